package cli

import (
	"context"
	"crypto"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// toSign is standard input as it is signed: the bytes themselves, or a digest. For an
// algorithm that hashes first both give the same signature, so a file of any size can be
// signed.
type toSign struct {
	message []byte // the whole input, or its first maxMessage+1 bytes
	kind    string // RAW or DIGEST
}

// digests are the hashes of the algorithms that sign a digest.
var digests = map[string]crypto.Hash{"_SHA_256": crypto.SHA256, "_SHA_384": crypto.SHA384, "_SHA_512": crypto.SHA512}

// readToSign reads what there is to sign, before anybody is called.
func (a *app) readToSign(digest bool) (s toSign, err error) {
	if digest {
		s.message, err = readAll(a.In, 64, "digest", "; without --digest standard input is the message")
		s.kind = "DIGEST"
		return s, err
	}
	head := make([]byte, maxMessage+1)
	n, err := io.ReadFull(a.In, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return s, err
	}
	return toSign{head[:n], "RAW"}, nil
}

// shorten hashes a message that is longer than the API takes.
func (a *app) shorten(s *toSign, algorithm string) error {
	if len(s.message) <= maxMessage {
		return nil
	}
	var hash crypto.Hash
	for suffix, h := range digests {
		if strings.HasSuffix(algorithm, suffix) && !strings.HasPrefix(algorithm, "ED25519") {
			hash = h
		}
	}
	if hash == 0 {
		return usagef("the message is longer than %d bytes, and %s signs whole messages only", maxMessage, algorithm)
	}
	h := hash.New()
	h.Write(s.message)
	if _, err := io.Copy(h, a.In); err != nil {
		return err
	}
	*s = toSign{h.Sum(nil), "DIGEST"}
	return nil
}

// settle returns the algorithm, and has a message hashed that is longer than the API takes.
func (a *app) settle(ctx context.Context, cl *client, s *toSign, named, key string, tokens []string) (string, error) {
	algorithm, err := cl.theAlgorithm(ctx, named, key, tokens, (*kmsv1.KeyMetadata).GetSigningAlgorithms)
	if err != nil {
		return "", err
	}
	return algorithm, a.shorten(s, algorithm)
}

// theAlgorithm is what the user named, or the only one that the key has.
func (c *client) theAlgorithm(ctx context.Context, named, key string, tokens []string, of func(*kmsv1.KeyMetadata) []string) (string, error) {
	if named != "" {
		return named, nil
	}
	out, err := c.keys.DescribeKey(ctx, &kmsv1.DescribeKeyRequest{KeyId: keyRef(key), GrantTokens: tokens})
	if err != nil {
		return "", err
	}
	switch all := of(out.GetKeyMetadata()); len(all) {
	case 0:
		return "", usagef("%s has the usage %s, which is not for this", key, out.GetKeyMetadata().GetKeyUsage())
	case 1:
		return all[0], nil
	default:
		return "", usagef("%s can do it in several ways: give --algorithm, one of %s", key, strings.Join(all, ", "))
	}
}

func signFlags(c *cobra.Command, algorithm *string, digest *bool, u *usage) {
	algorithmFlag(c, algorithm, "signing")
	c.Flags().BoolVar(digest, "digest", false, "standard input is the message's digest")
	u.flags(c)
}

func algorithmFlag(c *cobra.Command, algorithm *string, kind string) {
	c.Flags().StringVar(algorithm, "algorithm", "", kind+" algorithm (default the only one that the key has)")
}

func (a *app) sign(use string) *cobra.Command {
	req, u := &kmsv1.SignRequest{}, &usage{}
	var digest bool
	c := &cobra.Command{
		Use: use, Short: "Sign standard input; ECDSA signatures are DER", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			input, err := a.readToSign(digest)
			if err != nil {
				return err
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				if req.SigningAlgorithm, err = a.settle(ctx, cl, &input, req.SigningAlgorithm, args[0], u.grantTokens); err != nil {
					return err
				}
				req.KeyId, req.Message, req.MessageType = keyRef(args[0]), input.message, input.kind
				req.GrantTokens, req.DryRun = u.grantTokens, u.dryRun
				out, err := cl.crypto.Sign(ctx, req)
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
	signFlags(c, &req.SigningAlgorithm, &digest, u)
	return c
}

func (a *app) verify(use string) *cobra.Command {
	req, u := &kmsv1.VerifyRequest{}, &usage{}
	var file string
	var digest bool
	c := &cobra.Command{
		Use: use, Short: "Check the signature of standard input", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if req.Signature, err = a.readFile(file, maxCiphertext, "signature"); err != nil {
				return err
			}
			input, err := a.readToSign(digest)
			if err != nil {
				return err
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				if req.SigningAlgorithm, err = a.settle(ctx, cl, &input, req.SigningAlgorithm, args[0], u.grantTokens); err != nil {
					return err
				}
				req.KeyId, req.Message, req.MessageType = keyRef(args[0]), input.message, input.kind
				req.GrantTokens, req.DryRun = u.grantTokens, u.dryRun
				out, err := cl.crypto.Verify(ctx, req)
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
	signFlags(c, &req.SigningAlgorithm, &digest, u)
	c.Flags().StringVar(&file, "signature", "", "`FILE` with the signature")
	cobra.CheckErr(c.MarkFlagRequired("signature"))
	return c
}
