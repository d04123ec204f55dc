package hsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// GenerateImportKey makes an import wrapping key under id and returns its public key as SPKI
// (DER), under which the customer wraps. spec.Import says what may be imported with it; the
// key's unwrap template demands exactly that.
func (t *Token) GenerateImportKey(ctx context.Context, spec Spec, id ID) (spki []byte, err error) {
	if err := spec.Check(); err != nil {
		return nil, err
	}
	if spec.Role != RoleImportWrapping {
		return nil, fmt.Errorf("generating an import wrapping key: role %q: %w", spec.Role, ErrCaller)
	}
	if err := t.known.canImport(spec); err != nil {
		return nil, err
	}
	return t.generatePair(ctx, "GenerateImportKey", pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, spec, id)
}

// canImport says what the token lacks for an import wrapping key.
func (c Capabilities) canImport(spec Spec) error {
	if !slices.Contains(c.ImportSchemes, spec.Import.Scheme) {
		return fmt.Errorf("import by %s: the token's RSA-OAEP or key wrapping does not do this; it can %v: %w",
			spec.Import.Scheme, c.ImportSchemes, ErrNotSupported)
	}
	if !slices.Contains(c.ImportKeys, spec.Algorithm) {
		return fmt.Errorf("import under %s: the token makes no such key; it can %v: %w", spec.Algorithm, c.ImportKeys, ErrNotSupported)
	}
	if k := c.Of(spec.Import.Algorithm, spec.Import.Usage); !k.Use {
		return fmt.Errorf("import of %s %s: %s: %w", spec.Import.Algorithm, spec.Import.Usage, k.Limit, ErrNotSupported)
	}
	return nil
}

// ImportUnwrap makes material of a blob that was wrapped under an import wrapping key, and
// returns the public key of a pair as SPKI (DER), if the token shows it: RSA keys show
// theirs, and of elliptic-curve keys SoftHSM shows nothing. The bytes are unwrapped inside the token.
// A blob that does not open, or holds another key than was announced, is [ErrDataInvalid]
// and leaves nothing behind.
func (t *Token) ImportUnwrap(ctx context.Context, wrapping ID, material Spec, id ID, blob []byte) (spki []byte, err error) {
	template, err := Template(material, id, t.cfg.Profile, HowUnwrap)
	if err != nil {
		return nil, err
	}
	blob = bytes.Clone(blob) // the caller may leave and reuse it while the token reads
	result := make(chan []byte, 1)
	err = t.make(ctx, "ImportUnwrap", material, id, func(c *connection, s pkcs11.SessionHandle) (pkcs11.ObjectHandle, error) {
		key, err := t.resolve(ctx, c, s, wrapping)
		if err != nil {
			return 0, fmt.Errorf("import wrapping key: %w", err)
		}
		if err := CheckImport(key.Spec, material, blob); err != nil {
			return 0, err
		}
		h, err := t.openImport(s, key, template, blob)
		if err != nil {
			return 0, err
		}
		public, err := t.examineImport(s, h, material)
		if err != nil {
			return 0, t.undo(s, h, err)
		}
		result <- public
		return h, nil
	})
	if err != nil {
		return nil, err
	}
	return <-result, nil
}

// openImport unwraps in one step, or in two where the token has no CKM_RSA_AES_KEY_WRAP: the
// AES key between is a session object, and gone when this returns.
func (t *Token) openImport(s pkcs11.SessionHandle, key entry, template []Attribute, blob []byte) (h pkcs11.ObjectHandle, err error) {
	p, purpose := t.cfg.Profile, key.Spec.Import
	if !p.twoSteps(purpose.Scheme) {
		return t.driver.UnwrapKey(s, p.importMechanism(purpose.Scheme), key.handle, blob, template)
	}
	step := Spec{Role: RoleImportStep, Algorithm: AES256, Import: purpose}
	between, err := Template(step, NewID(), p, HowUnwrap)
	if err != nil {
		return 0, err
	}
	n := key.Spec.Algorithm.ModulusBits() / 8
	aes, err := t.driver.UnwrapKey(s, p.importMechanism(purpose.Scheme), key.handle, blob[:n], between)
	if err != nil {
		return 0, err
	}
	defer func() {
		if destroyed := t.driver.DestroyObject(s, aes); destroyed != nil {
			err = errors.Join(err, fmt.Errorf("destroying the AES key of an import: %w", destroyed))
		}
	}()
	return t.driver.UnwrapKey(s, rawMechanism{code: p.wrapMechanism()}, aes, blob[n:], template)
}

// examineImport proves what was imported as far as the token shows it, and returns the
// public key of a pair.
func (t *Token) examineImport(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, material Spec) ([]byte, error) {
	if material.Algorithm.Secret() {
		return nil, t.proveLength(s, h, material.Algorithm.SecretBytes())
	}
	return t.publicOf(s, h, material)
}
