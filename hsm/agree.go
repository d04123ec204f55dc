package hsm

import (
	"context"
	"encoding/asn1"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/keyferry/keyferry/hsm/spki"
)

// Agree computes the secret that this key shares with the key of peer, an uncompressed
// point: the x-coordinate, as long as the curve's field, with no derivation. The point is
// checked first, since a token that computes with one that is not on the curve gives its
// key away, a few bits each time.
func (t *Token) Agree(ctx context.Context, id ID, peer []byte) ([]byte, error) {
	return use(ctx, t, "Agree", id, UseAgree, func(s pkcs11.SessionHandle, e entry) (secret []byte, err error) {
		if err := CheckAgree(e.Spec, peer); err != nil {
			return nil, err
		}
		n := fieldBytes(e.Spec.Algorithm.Curve())
		m, err := t.cfg.Profile.ecdh(peer)
		if err != nil {
			return nil, err
		}
		h, err := t.driver.DeriveKey(s, m, e.handle, agreedTemplate(n))
		if err != nil {
			return nil, err
		}
		defer func() {
			if destroyed := t.driver.DestroyObject(s, h); destroyed != nil && err == nil {
				clear(secret)
				secret, err = nil, fmt.Errorf("destroying a shared secret: %w", destroyed)
			}
		}()
		values, err := t.driver.Attributes(s, h, []uint{pkcs11.CKA_VALUE})
		if err != nil {
			return nil, err
		}
		if secret = values[pkcs11.CKA_VALUE]; len(secret) != n {
			return nil, fmt.Errorf("shared secret of %d bytes, want %d: %w", len(secret), n, ErrModuleBroken)
		}
		return secret, nil
	})
}

// CheckAgree reports whether an object of this spec agrees on secrets, and with this point:
// an uncompressed one on the key's curve. A bad point is [ErrDataInvalid].
func CheckAgree(s Spec, peer []byte) error {
	if err := CheckUse(s, UseAgree); err != nil {
		return err
	}
	if _, err := spki.ParsePoint(s.Algorithm.Curve(), peer); err != nil {
		return fmt.Errorf("peer's point: %w: %w", ErrDataInvalid, err)
	}
	return nil
}

// agreedTemplate is the shared secret for as long as it takes to read it. It does nothing.
func agreedTemplate(n int) []Attribute {
	t := []Attribute{
		number(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		number(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
		flag(pkcs11.CKA_TOKEN, false),
		flag(pkcs11.CKA_PRIVATE, true),
		flag(pkcs11.CKA_SENSITIVE, false),
		flag(pkcs11.CKA_EXTRACTABLE, true),
	}
	t = append(t, flags(secretFlags, nil)...)
	return append(t, number(pkcs11.CKA_VALUE_LEN, uint(n)))
}

// ecdh returns CKM_ECDH1_DERIVE without a derivation function.
func (p Profile) ecdh(peer []byte) (rawMechanism, error) {
	if p.Agree.Point == PointDER {
		var err error
		if peer, err = asn1.Marshal(peer); err != nil {
			return rawMechanism{}, fmt.Errorf("encoding point: %w", err)
		}
	}
	// CK_ECDH1_DERIVE_PARAMS: the function, the length and place of shared data, those of the point.
	param := words(pkcs11.CKD_NULL, 0, 0, uint(len(peer)), 0)
	return rawMechanism{code: pkcs11.CKM_ECDH1_DERIVE, param: param, refs: []ref{{at: len(param) - 8, data: peer}}}, nil
}
