package cli

import (
	"context"
	"encoding/pem"
	"strings"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// parseTags reads key=value tags.
func parseTags(pairs []string) ([]*kmsv1.Tag, error) {
	var tags []*kmsv1.Tag
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, usagef("tag %q: want KEY=VALUE", p)
		}
		tags = append(tags, &kmsv1.Tag{TagKey: k, TagValue: v})
	}
	return tags, nil
}

// readPolicy reads a key policy from a file; no name means the default policy.
func (a *app) readPolicy(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	b, err := a.readFile(name, maxPolicy, "policy")
	return string(b), err
}

func (a *app) keyCreate(use string) *cobra.Command {
	req := &kmsv1.CreateKeyRequest{}
	var alias, policy string
	var tags []string
	c := &cobra.Command{
		Use: use, Short: "Create a key and print its ID", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if req.Tags, err = parseTags(tags); err != nil {
				return err
			}
			if req.Policy, err = a.readPolicy(policy); err != nil {
				return err
			}
			for _, name := range []*string{&req.KeySpec, &req.KeyUsage, &req.Origin} {
				*name = strings.ToUpper(*name)
			}
			if req.KeyUsage == "" {
				req.KeyUsage = onlyUsage[req.KeySpec]
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.keys.CreateKey(ctx, req)
				if err != nil {
					return err
				}
				m := out.GetKeyMetadata()
				for _, warning := range out.GetWarnings() {
					a.say("%s", warning)
				}
				if alias != "" {
					_, err := cl.keys.CreateAlias(ctx, &kmsv1.CreateAliasRequest{AliasName: aliasName(alias), TargetKeyId: m.GetKeyId()})
					if err != nil {
						a.say("key %s was created, but the alias was not: set it with keyferry alias set", m.GetKeyId())
						return err
					}
				}
				if a.json {
					return a.print(out)
				}
				a.say("created %s", m.GetArn())
				return a.write([]byte(m.GetKeyId() + "\n"))
			})
		},
	}
	f := c.Flags()
	f.StringVar(&req.KeySpec, "spec", "SYMMETRIC_DEFAULT", "key spec, such as RSA_3072; keyferry region show lists what the token can do")
	f.StringVar(&req.KeyUsage, "usage", "", "key usage: ENCRYPT_DECRYPT, SIGN_VERIFY, GENERATE_VERIFY_MAC or KEY_AGREEMENT (default the only one that the spec has)")
	f.StringVar(&req.Origin, "origin", "", "EXTERNAL for a key whose material you import (default AWS_KMS: made in the token)")
	f.BoolVar(&req.MultiRegion, "multi-region", false, "make a multi-Region primary key; this cannot be changed later")
	f.StringVar(&req.Description, "description", "", "what the key is for")
	f.StringVar(&alias, "alias", "", "also give the key this alias")
	f.StringVar(&policy, "policy", "", "`FILE` with the key policy (default: the account's own policies decide)")
	f.StringArrayVar(&tags, "tag", nil, "`KEY=VALUE`, repeated")
	return c
}

// onlyUsage saves typing where a spec has one usage. The server checks all the same.
var onlyUsage = map[string]string{
	"HMAC_224": mac, "HMAC_256": mac, "HMAC_384": mac, "HMAC_512": mac,
	"ECC_SECG_P256K1": "SIGN_VERIFY", "ECC_NIST_EDWARDS25519": "SIGN_VERIFY",
}

const mac = "GENERATE_VERIFY_MAC"

func (a *app) keyShow(use string) *cobra.Command {
	var tokens []string
	c := &cobra.Command{
		Use: use, Short: "Show a key", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.keys.DescribeKey(ctx, &kmsv1.DescribeKeyRequest{KeyId: keyRef(args[0]), GrantTokens: tokens})
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				m := out.GetKeyMetadata()
				return describe(a.Out, m, cl.rotationOf(ctx, m))
			})
		},
	}
	grantFlag(c, &tokens)
	return c
}

func (a *app) keyList(use string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: "List the account's keys in this Region", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				for marker := ""; ; {
					out, err := cl.keys.ListKeys(ctx, &kmsv1.ListKeysRequest{Marker: marker})
					if err != nil {
						return err
					}
					for _, k := range out.GetKeys() {
						line := k.GetKeyId() + "\n"
						if a.json {
							if err := a.print(k); err != nil {
								return err
							}
							continue
						}
						if err := a.write([]byte(line)); err != nil {
							return err
						}
					}
					if !out.GetTruncated() {
						return nil
					}
					marker = out.GetNextMarker()
				}
			})
		},
	}
}

// onKey is a command that does one thing to one key, named by ID or alias.
func (a *app) onKey(use, short string, do func(context.Context, *client, string) (string, error)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				id, err := cl.keyID(ctx, args[0])
				if err != nil {
					return err
				}
				done, err := do(ctx, cl, id)
				if err != nil {
					return err
				}
				a.say("%s is %s in %s", id, done, cl.region)
				return nil
			})
		},
	}
}

func (a *app) keyEnable(use string) *cobra.Command {
	return a.onKey(use, "Allow use of a key", func(ctx context.Context, cl *client, id string) (string, error) {
		_, err := cl.keys.EnableKey(ctx, &kmsv1.EnableKeyRequest{KeyId: id})
		return "enabled", err
	})
}

func (a *app) keyDisable(use string) *cobra.Command {
	return a.onKey(use, "Refuse use of a key in this Region until it is enabled again", func(ctx context.Context, cl *client, id string) (string, error) {
		_, err := cl.keys.DisableKey(ctx, &kmsv1.DisableKeyRequest{KeyId: id})
		return "disabled", err
	})
}

func (a *app) keyPublic(use string) *cobra.Command {
	var der bool
	var tokens []string
	c := &cobra.Command{
		Use: use, Short: "Print the public key of a key pair as PEM", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.crypto.GetPublicKey(ctx, &kmsv1.GetPublicKeyRequest{KeyId: keyRef(args[0]), GrantTokens: tokens})
				if err != nil {
					return err
				}
				switch {
				case a.json:
					return a.print(out)
				case der:
					return a.write(out.GetPublicKey())
				}
				return a.write(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: out.GetPublicKey()}))
			})
		},
	}
	c.Flags().BoolVar(&der, "der", false, "DER instead of PEM")
	grantFlag(c, &tokens)
	return c
}
