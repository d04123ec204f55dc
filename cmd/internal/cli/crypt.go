package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (a *app) encrypt(use string) *cobra.Command {
	var pairs []string
	req, u := &kmsv1.EncryptRequest{}, &usage{}
	c := &cobra.Command{
		Use: use, Short: "Encrypt standard input, at most 4096 bytes", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if req.EncryptionContext, err = parseContext(pairs); err != nil {
				return err
			}
			req.Plaintext, err = readAll(a.In, maxPlaintext, "plaintext", "; keyferry envelope seal encrypts files of any length")
			if err != nil {
				return err
			}
			req.KeyId, req.GrantTokens, req.DryRun = keyRef(args[0]), u.grantTokens, u.dryRun
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.crypto.Encrypt(ctx, req)
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				return a.write(out.GetCiphertextBlob())
			})
		},
	}
	contextFlag(c, &pairs)
	encryptionFlag(c, &req.EncryptionAlgorithm)
	u.flags(c)
	return c
}

func encryptionFlag(c *cobra.Command, algorithm *string) {
	c.Flags().StringVar(algorithm, "algorithm", "", "encryption algorithm; RSA keys need one, such as RSAES_OAEP_SHA_256 (default SYMMETRIC_DEFAULT)")
}

// usage is what every use of a key can say besides: the grants that it relies on, and that
// it is only a question.
type usage struct {
	grantTokens []string
	dryRun      bool
}

func (u *usage) flags(c *cobra.Command) {
	grantFlag(c, &u.grantTokens)
	c.Flags().BoolVar(&u.dryRun, "dry-run", false, onlyCheck)
}

const onlyCheck = "only check permission and request; exit code 0 if it would have been done"

func grantFlag(c *cobra.Command, tokens *[]string) {
	c.Flags().StringArrayVar(tokens, "grant-token", nil, "`TOKEN` of a grant to rely on, repeated; grants are in force without it")
}

func contextFlag(c *cobra.Command, pairs *[]string) {
	c.Flags().StringArrayVarP(pairs, "context", "c", nil, "`KEY=VALUE` of the encryption context, repeated; decryption needs the same pairs")
}

func (a *app) decrypt(use string) *cobra.Command {
	var pairs []string
	req, u := &kmsv1.DecryptRequest{}, &usage{}
	c := &cobra.Command{
		Use: use, Short: "Decrypt standard input; KEY is optional, since the ciphertext names it", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if req.EncryptionContext, err = parseContext(pairs); err != nil {
				return err
			}
			if req.CiphertextBlob, err = readAll(a.In, maxCiphertext, "ciphertext", ""); err != nil {
				return err
			}
			req.GrantTokens, req.DryRun = u.grantTokens, u.dryRun
			if len(args) == 1 {
				req.KeyId = keyRef(args[0])
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.crypto.Decrypt(ctx, req)
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				return a.write(out.GetPlaintext())
			})
		},
	}
	contextFlag(c, &pairs)
	encryptionFlag(c, &req.EncryptionAlgorithm)
	u.flags(c)
	return c
}

func (a *app) reEncrypt(use string) *cobra.Command {
	var pairs, newPairs []string
	var from string
	var noContext bool
	req, u := &kmsv1.ReEncryptRequest{}, &usage{}
	c := &cobra.Command{
		Use: use, Short: "Encrypt what standard input encrypts under KEY instead, without seeing it", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if req.SourceEncryptionContext, err = parseContext(pairs); err != nil {
				return err
			}
			if req.DestinationEncryptionContext, err = parseContext(newPairs); err != nil {
				return err
			}
			switch {
			case noContext && len(newPairs) > 0:
				return usagef("--no-context and --to-context contradict each other")
			case !noContext && len(newPairs) == 0:
				req.DestinationEncryptionContext = req.SourceEncryptionContext
			}
			if req.CiphertextBlob, err = readAll(a.In, maxCiphertext, "ciphertext", ""); err != nil {
				return err
			}
			if from != "" {
				req.SourceKeyId = keyRef(from)
			}
			req.DestinationKeyId, req.GrantTokens, req.DryRun = keyRef(args[0]), u.grantTokens, u.dryRun
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.crypto.ReEncrypt(ctx, req)
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				return a.write(out.GetCiphertextBlob())
			})
		},
	}
	f := c.Flags()
	f.StringArrayVarP(&pairs, "context", "c", nil, "`KEY=VALUE` of the encryption context, repeated")
	f.StringArrayVar(&newPairs, "to-context", nil, "`KEY=VALUE` of the new encryption context, repeated (default as it was)")
	f.BoolVar(&noContext, "no-context", false, "no new encryption context")
	f.StringVar(&from, "from", "", "`KEY` that must have encrypted; RSA ciphertexts need one")
	f.StringVar(&req.SourceEncryptionAlgorithm, "from-algorithm", "", "encryption algorithm that was used (default SYMMETRIC_DEFAULT)")
	f.StringVar(&req.DestinationEncryptionAlgorithm, "algorithm", "", "encryption algorithm to use (default SYMMETRIC_DEFAULT)")
	u.flags(c)
	return c
}

func (a *app) random(use string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: "Random bytes from the token, 1 to 1024", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := strconv.ParseUint(args[0], 10, 16)
			if err != nil {
				return usagef("number of bytes %q: want 1 to 1024", args[0])
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.crypto.GenerateRandom(ctx, &kmsv1.GenerateRandomRequest{NumberOfBytes: uint32(n)})
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				return a.write(out.GetPlaintext())
			})
		},
	}
}
