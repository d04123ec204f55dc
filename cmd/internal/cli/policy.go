package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (a *app) policyGet(use string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: "Print the key policy", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				id, err := cl.keyID(ctx, args[0])
				if err != nil {
					return err
				}
				out, err := cl.keys.GetKeyPolicy(ctx, &kmsv1.GetKeyPolicyRequest{KeyId: id})
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				return a.write([]byte(strings.TrimRight(out.GetPolicy(), "\n") + "\n"))
			})
		},
	}
}

func (a *app) policyPut(use string) *cobra.Command {
	req := &kmsv1.PutKeyPolicyRequest{}
	c := &cobra.Command{
		Use: use, Short: "Replace the key policy in this Region by a file's", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			document, err := a.readFile(args[1], maxPolicy, "policy")
			if err != nil {
				return err
			}
			req.Policy = string(document)
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				if req.KeyId, err = cl.keyID(ctx, args[0]); err != nil {
					return err
				}
				if _, err := cl.keys.PutKeyPolicy(ctx, req); err != nil {
					return err
				}
				a.say("%s has the policy in %s", req.GetKeyId(), cl.region)
				return nil
			})
		},
	}
	c.Flags().BoolVar(&req.BypassPolicyLockoutSafetyCheck, "bypass-lockout-check", false, "accept a policy that does not let the caller change it again")
	return c
}

func (a *app) policyList(use string) *cobra.Command {
	return a.onKeyWith(use, "List the names of a key's policies, of which there is one", cobra.ExactArgs(1), func(ctx context.Context, cl *client, id string, _ []string) error {
		out, err := cl.keys.ListKeyPolicies(ctx, &kmsv1.ListKeyPoliciesRequest{KeyId: id})
		if err != nil {
			return err
		}
		if a.json {
			return a.print(out)
		}
		return a.write([]byte(strings.Join(out.GetPolicyNames(), "\n") + "\n"))
	})
}
