package cli

import (
	"context"
	"crypto/sha256"
	"io"
	"strings"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// message is what is signed: the bytes themselves, or the digest of a longer input. For a
// hash-then-sign algorithm both give the same signature, so a file of any size can be signed.
func (a *app) message(algorithm string, digest bool) (msg []byte, kind string, err error) {
	if digest {
		msg, err = readAll(a.In, 64, "digest", "; without --digest standard input is the message")
		return msg, "DIGEST", err
	}
	head := make([]byte, maxMessage+1)
	n, err := io.ReadFull(a.In, head)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return head[:n], "RAW", nil
	}
	if err != nil {
		return nil, "", err
	}
	if !strings.HasSuffix(algorithm, "_SHA_256") {
		return nil, "", usagef("the message is longer than %d bytes, and %s signs whole messages only", maxMessage, algorithm)
	}
	h := sha256.New()
	h.Write(head)
	if _, err := io.Copy(h, a.In); err != nil {
		return nil, "", err
	}
	return h.Sum(nil), "DIGEST", nil
}

func signFlags(c *cobra.Command, algorithm *string, digest *bool) {
	c.Flags().StringVar(algorithm, "algorithm", "ECDSA_SHA_256", "signing algorithm")
	c.Flags().BoolVar(digest, "digest", false, "standard input is the message's digest")
}

func (a *app) sign(use string) *cobra.Command {
	var algorithm string
	var digest bool
	c := &cobra.Command{
		Use: use, Short: "Sign standard input; ECDSA signatures are DER", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			msg, kind, err := a.message(algorithm, digest)
			if err != nil {
				return err
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.crypto.Sign(ctx, &kmsv1.SignRequest{KeyId: keyRef(args[0]), Message: msg, MessageType: kind, SigningAlgorithm: algorithm})
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				return a.write(out.GetSignature())
			})
		},
	}
	signFlags(c, &algorithm, &digest)
	return c
}

func (a *app) verify(use string) *cobra.Command {
	var algorithm, file string
	var digest bool
	c := &cobra.Command{
		Use: use, Short: "Check the signature of standard input", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			sig, err := a.readFile(file, maxCiphertext, "signature")
			if err != nil {
				return err
			}
			msg, kind, err := a.message(algorithm, digest)
			if err != nil {
				return err
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.crypto.Verify(ctx, &kmsv1.VerifyRequest{KeyId: keyRef(args[0]), Message: msg, MessageType: kind, Signature: sig, SigningAlgorithm: algorithm})
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				a.say("signature valid, made by %s", out.GetKeyId())
				return nil
			})
		},
	}
	signFlags(c, &algorithm, &digest)
	c.Flags().StringVar(&file, "signature", "", "`FILE` with the signature")
	cobra.CheckErr(c.MarkFlagRequired("signature"))
	return c
}

func (a *app) mac(use string) *cobra.Command {
	var algorithm string
	c := &cobra.Command{
		Use: use, Short: "MAC of standard input, at most 4096 bytes", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			msg, err := readAll(a.In, maxMessage, "message", "")
			if err != nil {
				return err
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.crypto.GenerateMac(ctx, &kmsv1.GenerateMacRequest{KeyId: keyRef(args[0]), Message: msg, MacAlgorithm: algorithm})
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
	c.Flags().StringVar(&algorithm, "algorithm", "HMAC_SHA_256", "MAC algorithm")
	return c
}

func (a *app) verifyMac(use string) *cobra.Command {
	var algorithm, file string
	c := &cobra.Command{
		Use: use, Short: "Check the MAC of standard input", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			mac, err := a.readFile(file, maxCiphertext, "MAC")
			if err != nil {
				return err
			}
			msg, err := readAll(a.In, maxMessage, "message", "")
			if err != nil {
				return err
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.crypto.VerifyMac(ctx, &kmsv1.VerifyMacRequest{KeyId: keyRef(args[0]), Message: msg, Mac: mac, MacAlgorithm: algorithm})
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
	c.Flags().StringVar(&algorithm, "algorithm", "HMAC_SHA_256", "MAC algorithm")
	c.Flags().StringVar(&file, "mac", "", "`FILE` with the MAC")
	cobra.CheckErr(c.MarkFlagRequired("mac"))
	return c
}
