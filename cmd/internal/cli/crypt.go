package cli

import (
	"context"
	"encoding/base64"
	"strconv"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (a *app) encrypt(use string) *cobra.Command {
	var pairs []string
	c := &cobra.Command{
		Use: use, Short: "Encrypt standard input, at most 4096 bytes", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ec, err := parseContext(pairs)
			if err != nil {
				return err
			}
			plain, err := readAll(a.In, maxPlaintext, "plaintext", "; encrypt it under a data key instead: keyferry generate-data-key")
			if err != nil {
				return err
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.crypto.Encrypt(ctx, &kmsv1.EncryptRequest{KeyId: keyRef(args[0]), Plaintext: plain, EncryptionContext: ec})
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
	return c
}

func contextFlag(c *cobra.Command, pairs *[]string) {
	c.Flags().StringArrayVarP(pairs, "context", "c", nil, "`KEY=VALUE` of the encryption context, repeated; decryption needs the same pairs")
}

func (a *app) decrypt(use string) *cobra.Command {
	var pairs []string
	c := &cobra.Command{
		Use: use, Short: "Decrypt standard input; KEY is optional, since the ciphertext names it", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ec, err := parseContext(pairs)
			if err != nil {
				return err
			}
			blob, err := readAll(a.In, maxCiphertext, "ciphertext", "")
			if err != nil {
				return err
			}
			req := &kmsv1.DecryptRequest{CiphertextBlob: blob, EncryptionContext: ec}
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
	return c
}

func (a *app) generateDataKey(use string) *cobra.Command {
	var pairs []string
	var spec string
	var bytes uint32
	c := &cobra.Command{
		Use: use, Short: "Make a data key: base64 of the plaintext, then of its ciphertext, a line each", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ec, err := parseContext(pairs)
			if err != nil {
				return err
			}
			req := &kmsv1.GenerateDataKeyRequest{KeyId: keyRef(args[0]), EncryptionContext: ec, NumberOfBytes: bytes}
			if bytes == 0 || c.Flags().Changed("spec") {
				req.KeySpec = spec
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.crypto.GenerateDataKey(ctx, req)
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				e := base64.StdEncoding
				return a.write([]byte(e.EncodeToString(out.GetPlaintext()) + "\n" + e.EncodeToString(out.GetCiphertextBlob()) + "\n"))
			})
		},
	}
	contextFlag(c, &pairs)
	c.Flags().StringVar(&spec, "spec", "AES_256", "AES_256 or AES_128")
	c.Flags().Uint32Var(&bytes, "bytes", 0, "length of the data key, 1 to 1024, instead of --spec")
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
