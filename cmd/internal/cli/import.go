package cli

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

const maxImport = 6144 // bytes of an import token, and of wrapped material

// writeNew writes a file that was not there.
func writeNew(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

func (a *app) importParameters(use string) *cobra.Command {
	req := &kmsv1.GetParametersForImportRequest{}
	var public, token string
	c := a.onKeyWith(use, "Get a public key to wrap key material under, and the token for its import; prints until when they are good", cobra.ExactArgs(1),
		func(ctx context.Context, cl *client, id string, _ []string) error {
			for _, name := range []string{public, token} {
				if _, err := os.Lstat(name); err == nil {
					return usagef("%s exists: name a file that does not", name)
				}
			}
			req.KeyId, req.WrappingAlgorithm, req.WrappingKeySpec = id, strings.ToUpper(req.GetWrappingAlgorithm()), strings.ToUpper(req.GetWrappingKeySpec())
			out, err := cl.keys.GetParametersForImport(ctx, req)
			if err != nil {
				return err
			}
			if err := writeNew(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: out.GetPublicKey()})); err != nil {
				return fmt.Errorf("writing the public key: %w", err)
			}
			if err := writeNew(token, out.GetImportToken()); err != nil {
				return fmt.Errorf("writing the import token: %w", err)
			}
			if a.json {
				return a.print(out)
			}
			a.say("wrap the material of %s under %s with %s, then keyferry key import --token %s", id, public, req.GetWrappingAlgorithm(), token)
			return a.write([]byte(out.GetParametersValidTo().AsTime().Format(time.RFC3339) + "\n"))
		})
	f := c.Flags()
	f.StringVar(&req.WrappingAlgorithm, "algorithm", "", "wrapping algorithm, such as RSA_AES_KEY_WRAP_SHA_256; keyferry region show lists what the token can do")
	f.StringVar(&req.WrappingKeySpec, "spec", "RSA_4096", "wrapping key: RSA_2048, RSA_3072 or RSA_4096")
	f.StringVar(&public, "public-key", "", "`FILE` to write the public key to, PEM")
	f.StringVar(&token, "token", "", "`FILE` to write the import token to")
	for _, name := range []string{"algorithm", "public-key", "token"} {
		cobra.CheckErr(c.MarkFlagRequired(name))
	}
	return c
}

// expiry is how long imported material lives: one of the three must be said.
type expiry struct {
	in    days
	at    string
	never bool
}

func (e *expiry) flags(c *cobra.Command) {
	c.Flags().Var(&e.in, "expires-in", "`DAYS` after which the material expires, at most 365d")
	c.Flags().StringVar(&e.at, "valid-to", "", "`TIME` at which the material expires, such as 2026-12-31T12:00:00Z")
	c.Flags().BoolVar(&e.never, "no-expiry", false, "the material does not expire")
	c.MarkFlagsOneRequired("expires-in", "valid-to", "no-expiry")
	c.MarkFlagsMutuallyExclusive("expires-in", "valid-to", "no-expiry")
}

func (e *expiry) set(req *kmsv1.ImportKeyMaterialRequest) error {
	if e.never {
		req.ExpirationModel = "KEY_MATERIAL_DOES_NOT_EXPIRE"
		return nil
	}
	end := time.Now().Add(time.Duration(e.in) * 24 * time.Hour)
	if e.at != "" {
		var err error
		if end, err = time.Parse(time.RFC3339, e.at); err != nil {
			return usagef("time %q: want one such as 2026-12-31T12:00:00Z", e.at)
		}
	}
	req.ExpirationModel, req.ValidTo = "KEY_MATERIAL_EXPIRES", timestamppb.New(end)
	return nil
}

func (a *app) keyImport(use string) *cobra.Command {
	req := &kmsv1.ImportKeyMaterialRequest{}
	var token string
	var fresh, existing bool
	var end expiry
	c := &cobra.Command{
		Use: use, Short: "Import wrapped key material from standard input; prints the ID of the material", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if err := end.set(req); err != nil {
				return err
			}
			switch {
			case fresh:
				req.ImportType = "NEW_KEY_MATERIAL"
			case existing || req.GetKeyMaterialId() != "":
				req.ImportType = "EXISTING_KEY_MATERIAL"
			}
			if req.ImportToken, err = a.readFile(token, maxImport, "import token"); err != nil {
				return err
			}
			if req.EncryptedKeyMaterial, err = readAll(a.In, maxImport, "wrapped key material", ""); err != nil {
				return err
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				if req.KeyId, err = cl.keyID(ctx, args[0]); err != nil {
					return err
				}
				out, err := cl.keys.ImportKeyMaterial(ctx, req)
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				a.say("%s has material in %s; delete your copy, or keep it as the only backup", req.GetKeyId(), cl.region)
				return a.write([]byte(out.GetKeyMaterialId() + "\n"))
			})
		},
	}
	f := c.Flags()
	f.StringVar(&token, "token", "", "`FILE` with the import token")
	cobra.CheckErr(c.MarkFlagRequired("token"))
	end.flags(c)
	f.BoolVar(&fresh, "new", false, "material that the key has not had; it becomes current by keyferry key rotate")
	f.BoolVar(&existing, "existing", false, "material that the key has had (default: new if it never had any)")
	c.MarkFlagsMutuallyExclusive("new", "existing")
	f.StringVar(&req.KeyMaterialId, "material-id", "", "`ID` that the material must have; implies --existing")
	c.MarkFlagsMutuallyExclusive("new", "material-id")
	f.StringVar(&req.KeyMaterialDescription, "description", "", "what the material is")
	return c
}

func (a *app) keyDeleteMaterial(use string) *cobra.Command {
	var material string
	c := a.onKeyWith(use, "Delete imported key material in this Region at once; the key waits for it to be imported again", cobra.ExactArgs(1),
		func(ctx context.Context, cl *client, id string, _ []string) error {
			out, err := cl.keys.DeleteImportedKeyMaterial(ctx, &kmsv1.DeleteImportedKeyMaterialRequest{KeyId: id, KeyMaterialId: material})
			if err != nil {
				return err
			}
			if a.json {
				return a.print(out)
			}
			a.say("material %s of %s is deleted in %s", out.GetKeyMaterialId(), id, cl.region)
			return nil
		})
	c.Flags().StringVar(&material, "material-id", "", "`ID` of the material (default the current one)")
	return c
}
