package cli

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// onKeyWith is a command that changes one key, named by ID or alias, with further arguments.
func (a *app) onKeyWith(use, short string, args cobra.PositionalArgs, do func(ctx context.Context, cl *client, id string, rest []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				id, err := cl.keyID(ctx, args[0])
				if err != nil {
					return err
				}
				return do(ctx, cl, id, args[1:])
			})
		},
	}
}

func (a *app) keyTag(use string) *cobra.Command {
	var tags []*kmsv1.Tag
	args := func(c *cobra.Command, args []string) (err error) {
		if err := cobra.MinimumNArgs(2)(c, args); err != nil {
			return err
		}
		tags, err = parseTags(args[1:])
		return err
	}
	return a.onKeyWith(use, "Give a key tags in this Region", args, func(ctx context.Context, cl *client, id string, _ []string) error {
		if _, err := cl.keys.TagResource(ctx, &kmsv1.TagResourceRequest{KeyId: id, Tags: tags}); err != nil {
			return err
		}
		a.say("%s is tagged in %s", id, cl.region)
		return nil
	})
}

func (a *app) keyUntag(use string) *cobra.Command {
	return a.onKeyWith(use, "Take tags from a key in this Region", cobra.MinimumNArgs(2), func(ctx context.Context, cl *client, id string, names []string) error {
		if _, err := cl.keys.UntagResource(ctx, &kmsv1.UntagResourceRequest{KeyId: id, TagKeys: names}); err != nil {
			return err
		}
		a.say("%s is untagged in %s", id, cl.region)
		return nil
	})
}

func (a *app) keyTags(use string) *cobra.Command {
	return a.onKeyWith(use, "List a key's tags in this Region", cobra.ExactArgs(1), func(ctx context.Context, cl *client, id string, _ []string) error {
		out, err := cl.keys.ListResourceTags(ctx, &kmsv1.ListResourceTagsRequest{KeyId: id}) // one page has as many as a key can have
		if err != nil {
			return err
		}
		if a.json {
			return a.print(out)
		}
		w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
		for _, t := range out.GetTags() {
			fmt.Fprintf(w, "%s\t%s\n", t.GetTagKey(), t.GetTagValue())
		}
		return w.Flush()
	})
}

func (a *app) keyDescribeAs(use string) *cobra.Command {
	return a.onKeyWith(use, "Replace a key's description in this Region", cobra.ExactArgs(2), func(ctx context.Context, cl *client, id string, text []string) error {
		if _, err := cl.keys.UpdateKeyDescription(ctx, &kmsv1.UpdateKeyDescriptionRequest{KeyId: id, Description: text[0]}); err != nil {
			return err
		}
		a.say("%s is described in %s", id, cl.region)
		return nil
	})
}
