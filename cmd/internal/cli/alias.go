package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// aliasName adds the prefix that users leave out.
func aliasName(s string) string {
	if strings.HasPrefix(s, "alias/") {
		return s
	}
	return "alias/" + s
}

func (a *app) aliasSet(use string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: "Give a key an alias in this Region, or point the alias to another key", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				id, err := cl.keyID(ctx, args[1])
				if err != nil {
					return err
				}
				name := aliasName(args[0])
				_, err = cl.keys.CreateAlias(ctx, &kmsv1.CreateAliasRequest{AliasName: name, TargetKeyId: id})
				if reason(err) == "AlreadyExistsException" {
					_, err = cl.keys.UpdateAlias(ctx, &kmsv1.UpdateAliasRequest{AliasName: name, TargetKeyId: id})
				}
				if err != nil {
					return err
				}
				a.say("%s is %s in %s", name, id, cl.region)
				return nil
			})
		},
	}
}

func (a *app) aliasList(use string) *cobra.Command {
	var key string
	c := &cobra.Command{
		Use: use, Short: "List the account's aliases in this Region", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) (err error) {
				id := ""
				if key != "" {
					if id, err = cl.keyID(ctx, key); err != nil {
						return err
					}
				}
				w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
				for marker := ""; ; {
					out, err := cl.keys.ListAliases(ctx, &kmsv1.ListAliasesRequest{KeyId: id, Marker: marker})
					if err != nil {
						return err
					}
					for _, e := range out.GetAliases() {
						if a.json {
							if err := a.print(e); err != nil {
								return err
							}
							continue
						}
						fmt.Fprintf(w, "%s\t%s\n", e.GetAliasName(), e.GetTargetKeyId())
					}
					if !out.GetTruncated() {
						return w.Flush()
					}
					marker = out.GetNextMarker()
				}
			})
		},
	}
	c.Flags().StringVar(&key, "key", "", "only those of this `KEY`")
	return c
}

func (a *app) aliasDelete(use string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: "Delete an alias; the key stays", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				name := aliasName(args[0])
				if _, err := cl.keys.DeleteAlias(ctx, &kmsv1.DeleteAliasRequest{AliasName: name}); err != nil {
					return err
				}
				a.say("%s is deleted in %s", name, cl.region)
				return nil
			})
		},
	}
}
