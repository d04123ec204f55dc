package cli

import (
	"context"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (a *app) mac(use string) *cobra.Command {
	req, u := &kmsv1.GenerateMacRequest{}, &usage{}
	c := &cobra.Command{
		Use: use, Short: "MAC of standard input, at most 4096 bytes", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if req.Message, err = readAll(a.In, maxMessage, "message", ""); err != nil {
				return err
			}
			req.KeyId, req.GrantTokens, req.DryRun = keyRef(args[0]), u.grantTokens, u.dryRun
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				if req.MacAlgorithm, err = cl.theAlgorithm(ctx, req.MacAlgorithm, args[0], u.grantTokens, (*kmsv1.KeyMetadata).GetMacAlgorithms); err != nil {
					return err
				}
				out, err := cl.crypto.GenerateMac(ctx, req)
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				return a.write(out.GetMac())
			})
		},
	}
	algorithmFlag(c, &req.MacAlgorithm, "MAC")
	u.flags(c)
	return c
}

func (a *app) verifyMac(use string) *cobra.Command {
	req, u := &kmsv1.VerifyMacRequest{}, &usage{}
	var file string
	c := &cobra.Command{
		Use: use, Short: "Check the MAC of standard input", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if req.Mac, err = a.readFile(file, maxCiphertext, "MAC"); err != nil {
				return err
			}
			if req.Message, err = readAll(a.In, maxMessage, "message", ""); err != nil {
				return err
			}
			req.KeyId, req.GrantTokens, req.DryRun = keyRef(args[0]), u.grantTokens, u.dryRun
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				if req.MacAlgorithm, err = cl.theAlgorithm(ctx, req.MacAlgorithm, args[0], u.grantTokens, (*kmsv1.KeyMetadata).GetMacAlgorithms); err != nil {
					return err
				}
				out, err := cl.crypto.VerifyMac(ctx, req)
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				a.say("MAC valid, made by %s", out.GetKeyId())
				return nil
			})
		},
	}
	algorithmFlag(c, &req.MacAlgorithm, "MAC")
	u.flags(c)
	c.Flags().StringVar(&file, "mac", "", "`FILE` with the MAC")
	cobra.CheckErr(c.MarkFlagRequired("mac"))
	return c
}
