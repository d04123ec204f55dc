package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (a *app) grantCreate(use string) *cobra.Command {
	req := &kmsv1.CreateGrantRequest{}
	var pairs []string
	var exact bool
	c := &cobra.Command{
		Use: use, Short: "Allow a principal operations on a key in this Region; prints grant ID and grant token, a line each", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ec, err := parseContext(pairs)
			if err != nil {
				return err
			}
			switch {
			case exact:
				req.Constraints = &kmsv1.GrantConstraints{EncryptionContextEquals: ec}
			case ec != nil:
				req.Constraints = &kmsv1.GrantConstraints{EncryptionContextSubset: ec}
			}
			if exact && ec == nil {
				return usagef("--exact needs an encryption context: -c KEY=VALUE")
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				if req.KeyId, err = cl.keyID(ctx, args[0]); err != nil {
					return err
				}
				if req.GranteePrincipal, err = cl.principal(ctx, req.GetGranteePrincipal()); err != nil {
					return err
				}
				if req.RetiringPrincipal, err = cl.principal(ctx, req.GetRetiringPrincipal()); err != nil {
					return err
				}
				out, err := cl.keys.CreateGrant(ctx, req)
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				return a.write([]byte(out.GetGrantId() + "\n" + out.GetGrantToken() + "\n"))
			})
		},
	}
	f := c.Flags()
	f.StringVar(&req.GranteePrincipal, "to", "", "`PRINCIPAL` that is allowed: an ARN, or user/NAME or role/NAME of your own account")
	f.StringSliceVar(&req.Operations, "operation", nil, "`OPERATION` such as Decrypt, repeated or with commas")
	f.StringVar(&req.RetiringPrincipal, "retiring", "", "`PRINCIPAL` that may retire the grant")
	f.StringArrayVarP(&pairs, "context", "c", nil, "`KEY=VALUE` that the encryption context must have, repeated")
	f.BoolVar(&exact, "exact", false, "the encryption context must have these pairs and no others")
	f.StringVar(&req.Name, "name", "", "makes the command repeatable: with the same name and all else the same it makes no second grant")
	f.BoolVar(&req.DryRun, "dry-run", false, onlyCheck)
	grantFlag(c, &req.GrantTokens)
	for _, name := range []string{"to", "operation"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err) // the flags are above
		}
	}
	return c
}

// grantPages prints the pages of a listing of grants.
func (a *app) grantPages(next func(marker string) (grants []*kmsv1.GrantListEntry, more string, err error)) error {
	w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
	for marker := ""; ; {
		grants, more, err := next(marker)
		if err != nil {
			return err
		}
		for _, g := range grants {
			if a.json {
				if err := a.print(g); err != nil {
					return err
				}
				continue
			}
			key := g.GetKeyId()[strings.LastIndex(g.GetKeyId(), "/")+1:]
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", key, g.GetGrantId(), g.GetGranteePrincipal(), strings.Join(g.GetOperations(), ","), constraint(g.GetConstraints()))
		}
		if more == "" {
			return w.Flush()
		}
		marker = more
	}
}

func constraint(c *kmsv1.GrantConstraints) string {
	kind, pairs := "equals", c.GetEncryptionContextEquals()
	if len(pairs) == 0 {
		kind, pairs = "subset", c.GetEncryptionContextSubset()
	}
	if len(pairs) == 0 {
		return "-"
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		list = append(list, fmt.Sprintf("%q=%q", name, pairs[name]))
	}
	return kind + " " + strings.Join(list, " ")
}

func (a *app) grantList(use string) *cobra.Command {
	var grantee string
	c := &cobra.Command{
		Use: use, Short: "List a key's grants in this Region: key, grant, grantee, operations, constraint", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				id, err := cl.keyID(ctx, args[0])
				if err != nil {
					return err
				}
				if grantee, err = cl.principal(ctx, grantee); err != nil {
					return err
				}
				return a.grantPages(func(marker string) ([]*kmsv1.GrantListEntry, string, error) {
					out, err := cl.keys.ListGrants(ctx, &kmsv1.ListGrantsRequest{KeyId: id, GranteePrincipal: grantee, Marker: marker})
					return out.GetGrants(), out.GetNextMarker(), err
				})
			})
		},
	}
	c.Flags().StringVar(&grantee, "grantee", "", "only grants to this `PRINCIPAL`")
	return c
}

func (a *app) grantRetirable(use string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: "List the grants that a principal of your account may retire", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				principal, err := cl.principal(ctx, args[0])
				if err != nil {
					return err
				}
				return a.grantPages(func(marker string) ([]*kmsv1.GrantListEntry, string, error) {
					out, err := cl.keys.ListRetirableGrants(ctx, &kmsv1.ListRetirableGrantsRequest{RetiringPrincipal: principal, Marker: marker})
					return out.GetGrants(), out.GetNextMarker(), err
				})
			})
		},
	}
}

func (a *app) grantRetire(use string) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: use, Short: "End a grant that has done its work, by its token or by key and grant ID", Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				req := &kmsv1.RetireGrantRequest{GrantToken: args[0], DryRun: dryRun}
				if len(args) == 2 {
					id, err := cl.keyID(ctx, args[0])
					if err != nil {
						return err
					}
					req = &kmsv1.RetireGrantRequest{KeyId: id, GrantId: args[1], DryRun: dryRun}
				}
				if _, err := cl.keys.RetireGrant(ctx, req); err != nil {
					return err
				}
				a.say("the grant is retired in %s", cl.region)
				return nil
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, onlyCheck)
	return c
}

func (a *app) grantRevoke(use string) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: use, Short: "Take a grant away, at once", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				id, err := cl.keyID(ctx, args[0])
				if err != nil {
					return err
				}
				if _, err := cl.keys.RevokeGrant(ctx, &kmsv1.RevokeGrantRequest{KeyId: id, GrantId: args[1], DryRun: dryRun}); err != nil {
					return err
				}
				a.say("grant %s is revoked in %s", args[1], cl.region)
				return nil
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, onlyCheck)
	return c
}
