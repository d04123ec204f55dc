package cli

import (
	"context"
	"encoding/base64"
	"strings"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// lines prints values in base64, a line each.
func (a *app) lines(values ...[]byte) error {
	var b strings.Builder
	for _, v := range values {
		b.WriteString(base64.StdEncoding.EncodeToString(v) + "\n")
	}
	return a.write([]byte(b.String()))
}

// withoutPlaintext is a flag of users, and in the names of AWS a fact.
func withoutPlaintext(c *cobra.Command, sealed *bool) {
	if *sealed = strings.HasSuffix(c.Name(), "-without-plaintext"); !*sealed {
		c.Flags().BoolVar(sealed, "without-plaintext", false, "only the ciphertext: for what is decrypted when it is needed")
	}
}

func (a *app) generateDataKey(use string) *cobra.Command {
	var pairs []string
	var spec string
	var bytes uint32
	var sealed bool
	u := &usage{}
	c := &cobra.Command{
		Use: use, Short: "Make a data key: base64 of the plaintext, then of its ciphertext, a line each", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ec, err := parseContext(pairs)
			if err != nil {
				return err
			}
			req := &kmsv1.GenerateDataKeyRequest{
				KeyId: keyRef(args[0]), EncryptionContext: ec, NumberOfBytes: bytes, GrantTokens: u.grantTokens, DryRun: u.dryRun,
			}
			if bytes == 0 || c.Flags().Changed("spec") {
				req.KeySpec = spec
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				if sealed {
					return a.sealedDataKey(ctx, cl, req)
				}
				out, err := cl.crypto.GenerateDataKey(ctx, req)
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				return a.lines(out.GetPlaintext(), out.GetCiphertextBlob())
			})
		},
	}
	contextFlag(c, &pairs)
	c.Flags().StringVar(&spec, "spec", "AES_256", "AES_256 or AES_128")
	c.Flags().Uint32Var(&bytes, "bytes", 0, "length of the data key, 1 to 1024, instead of --spec")
	withoutPlaintext(c, &sealed)
	u.flags(c)
	return c
}

func (a *app) sealedDataKey(ctx context.Context, cl *client, r *kmsv1.GenerateDataKeyRequest) error {
	out, err := cl.crypto.GenerateDataKeyWithoutPlaintext(ctx, &kmsv1.GenerateDataKeyWithoutPlaintextRequest{
		KeyId: r.GetKeyId(), KeySpec: r.GetKeySpec(), NumberOfBytes: r.GetNumberOfBytes(),
		EncryptionContext: r.GetEncryptionContext(), GrantTokens: r.GetGrantTokens(), DryRun: r.GetDryRun(),
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.print(out)
	}
	return a.lines(out.GetCiphertextBlob())
}

func (a *app) generateDataKeyPair(use string) *cobra.Command {
	var pairs []string
	var sealed bool
	req, u := &kmsv1.GenerateDataKeyPairRequest{}, &usage{}
	c := &cobra.Command{
		Use: use, Short: "Make a key pair for use outside: base64 of the private key (PKCS #8), of its ciphertext, and of the public key, a line each", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if req.EncryptionContext, err = parseContext(pairs); err != nil {
				return err
			}
			req.KeyId, req.KeyPairSpec = keyRef(args[0]), strings.ToUpper(req.GetKeyPairSpec())
			req.GrantTokens, req.DryRun = u.grantTokens, u.dryRun
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				if sealed {
					return a.sealedDataKeyPair(ctx, cl, req)
				}
				out, err := cl.crypto.GenerateDataKeyPair(ctx, req)
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				return a.lines(out.GetPrivateKeyPlaintext(), out.GetPrivateKeyCiphertextBlob(), out.GetPublicKey())
			})
		},
	}
	contextFlag(c, &pairs)
	c.Flags().StringVar(&req.KeyPairSpec, "spec", "", "kind of key pair, such as ECC_NIST_P256 or RSA_3072")
	cobra.CheckErr(c.MarkFlagRequired("spec"))
	withoutPlaintext(c, &sealed)
	u.flags(c)
	return c
}

func (a *app) sealedDataKeyPair(ctx context.Context, cl *client, r *kmsv1.GenerateDataKeyPairRequest) error {
	out, err := cl.crypto.GenerateDataKeyPairWithoutPlaintext(ctx, &kmsv1.GenerateDataKeyPairWithoutPlaintextRequest{
		KeyId: r.GetKeyId(), KeyPairSpec: r.GetKeyPairSpec(), EncryptionContext: r.GetEncryptionContext(),
		GrantTokens: r.GetGrantTokens(), DryRun: r.GetDryRun(),
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.print(out)
	}
	return a.lines(out.GetPrivateKeyCiphertextBlob(), out.GetPublicKey())
}
