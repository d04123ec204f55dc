package cli

import (
	"context"
	"encoding/pem"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (a *app) deriveSharedSecret(use string) *cobra.Command {
	var file string
	req, u := &kmsv1.DeriveSharedSecretRequest{}, &usage{}
	c := &cobra.Command{
		Use: use, Short: "Agree on a secret with the owner of another public key, by ECDH; derive keys from it with a KDF", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if req.PublicKey, err = a.readPublicKey(file); err != nil {
				return err
			}
			req.KeyId, req.GrantTokens, req.DryRun = keyRef(args[0]), u.grantTokens, u.dryRun
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.crypto.DeriveSharedSecret(ctx, req)
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				return a.write(out.GetSharedSecret())
			})
		},
	}
	c.Flags().StringVar(&file, "peer", "", "`FILE` with the other side's public key, PEM or DER")
	cobra.CheckErr(c.MarkFlagRequired("peer"))
	c.Flags().StringVar(&req.KeyAgreementAlgorithm, "algorithm", "ECDH", "key agreement algorithm")
	u.flags(c)
	return c
}

// readPublicKey reads a SubjectPublicKeyInfo. The server checks it.
func (a *app) readPublicKey(name string) ([]byte, error) {
	b, err := a.readFile(name, maxPublicKey, "public key")
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	switch {
	case block == nil:
		return b, nil
	case block.Type != "PUBLIC KEY":
		return nil, usagef("reading the public key: %s holds a PEM block %q, want PUBLIC KEY", name, block.Type)
	}
	return block.Bytes, nil
}
