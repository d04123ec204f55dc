package hsm

import (
	"context"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"

	"github.com/keyferry/keyferry/hsm/spki"
)

// Generate makes a token object in the role, algorithm and usage of spec under id, which
// the caller has written down before. For key pairs it returns the public key as SPKI (DER),
// which is read now and never again. Without an error the object is durable in the token.
//
// Transport and establishment keys are made in ceremonies, import wrapping keys by
// [Token.GenerateImportKey].
func (t *Token) Generate(ctx context.Context, spec Spec, id ID) (spki []byte, err error) {
	if err := spec.Check(); err != nil {
		return nil, err
	}
	switch spec.Role {
	case RoleMaterial, RoleSharedMaterial, RoleRegionSigning, RoleSeal:
	default:
		return nil, fmt.Errorf("generating: role %q is made in ceremonies or for an import: %w", spec.Role, ErrCaller)
	}
	row, err := t.cfg.Profile.mechanismsOf(spec)
	if err != nil {
		return nil, fmt.Errorf("generating: %w", err)
	}
	if k := t.known.Of(spec.Algorithm, spec.Usage); !k.Generate || !k.Use || spec.Role == RoleSharedMaterial && !k.Wrap {
		return nil, fmt.Errorf("generating %s for role %q: %s: %w", spec.Algorithm, spec.Role, k.Limit, ErrNotSupported)
	}
	if row.pair {
		return t.generatePair(ctx, "Generate", row.generate, spec, id)
	}
	template, err := Template(spec, id, t.cfg.Profile, HowGenerate)
	if err != nil {
		return nil, err
	}
	return nil, t.make(ctx, "Generate", spec, id, func(_ *connection, s pkcs11.SessionHandle) (pkcs11.ObjectHandle, error) {
		return t.driver.GenerateKey(s, row.generate, template)
	})
}

// generatePair makes a key pair and reads its public half, which is gone afterwards.
func (t *Token) generatePair(ctx context.Context, op string, mechanism uint, spec Spec, id ID) ([]byte, error) {
	private, err := Template(spec, id, t.cfg.Profile, HowGenerate)
	if err != nil {
		return nil, err
	}
	public, err := Template(spec, id, t.cfg.Profile, HowPublicHalf)
	if err != nil {
		return nil, err
	}
	// Buffered: a caller that left does not read it.
	result := make(chan []byte, 1)
	err = t.make(ctx, op, spec, id, func(_ *connection, s pkcs11.SessionHandle) (pkcs11.ObjectHandle, error) {
		pub, priv, err := t.driver.GenerateKeyPair(s, mechanism, public, private)
		if err != nil {
			return 0, err
		}
		spki, err := publicSPKI(spec.Algorithm, func(typ uint) ([]byte, error) {
			values, err := t.driver.Attributes(s, pub, []uint{typ})
			return values[typ], err
		})
		// A session object, so at worst it lives as long as its session.
		if err := t.driver.DestroyObject(s, pub); err != nil {
			t.log.WithError(err).Warn("public half stays until its session ends")
		}
		if err != nil {
			return 0, t.undo(s, priv, fmt.Errorf("reading public half: %w", err))
		}
		result <- spki
		return priv, nil
	})
	if err != nil {
		return nil, err
	}
	return <-result, nil
}

// make runs one creation, reads the object back and puts it into the index. An object that
// is not what its template said is destroyed again.
func (t *Token) make(ctx context.Context, op string, spec Spec, id ID, create func(*connection, pkcs11.SessionHandle) (pkcs11.ObjectHandle, error)) error {
	_, err := do(ctx, t, call{op: op, write: true}, func(c *connection, s pkcs11.SessionHandle) (any, error) {
		if _, taken := t.index.get(id); taken {
			return nil, fmt.Errorf("object %s: %w", id, ErrExists)
		}
		h, err := create(c, s)
		if err != nil {
			return nil, err
		}
		e, err := t.inspect(s, h, string(id[:]), spec.Label())
		if errors.Is(err, errShape) {
			return nil, t.undo(s, h, fmt.Errorf("object %s: %w: %w", id, ErrDataInvalid, err))
		}
		if err != nil {
			return nil, t.undo(s, h, fmt.Errorf("reading back object %s: %w: %w", id, ErrModuleBroken, err))
		}
		t.index.put(e)
		return nil, nil
	})
	return err
}

// undo destroys what was just made. If that fails too, nobody knows what the token holds.
func (t *Token) undo(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, cause error) error {
	if err := t.driver.DestroyObject(s, h); err != nil {
		return fmt.Errorf("%w: %w: undoing: %w", cause, ErrOutcomeUnknown, err)
	}
	return cause
}

// publicSPKI builds the SPKI of a fresh pair's public half, whose attributes read returns.
func publicSPKI(a Algorithm, read func(typ uint) ([]byte, error)) ([]byte, error) {
	if rsaBits[a] != 0 {
		n, err := read(pkcs11.CKA_MODULUS)
		if err != nil {
			return nil, err
		}
		return spki.Marshal(&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}) // as publicHalf asks
	}
	curve := a.Curve()
	if curve == nil {
		return nil, fmt.Errorf("public half of %s: %w", a, ErrNotSupported)
	}
	point, err := read(pkcs11.CKA_EC_POINT)
	if err != nil {
		return nil, err
	}
	// The standard wants the point inside a DER OCTET STRING; some tokens give it bare.
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 {
		point = inner
	}
	public, err := spki.ParsePoint(curve, point)
	if err != nil {
		return nil, fmt.Errorf("parsing point of %s: %w: %w", a, ErrModuleBroken, err)
	}
	return spki.Marshal(public)
}

// Destroy removes an object from the token for good. It succeeds if there is none, and
// refuses, with [ErrQuarantined], an object that is not ours.
func (t *Token) Destroy(ctx context.Context, id ID) error {
	_, err := do(ctx, t, call{op: "Destroy", write: true}, func(c *connection, s pkcs11.SessionHandle) (any, error) {
		e, ok := t.index.get(id)
		if !ok {
			var err error
			if e, err = t.search(ctx, c, s, id); err != nil {
				return nil, absentIsFine(err)
			}
		}
		err := t.driver.DestroyObject(s, e.handle)
		if errors.Is(err, ErrNotFound) {
			// Gone by another hand, or the whole token is: only a token that is there may say so.
			if gone := t.probe(c); gone != nil {
				return nil, fmt.Errorf("%w: %w", ErrUnavailable, gone)
			}
			err = nil
		}
		if err != nil {
			return nil, err
		}
		t.index.forget(id, e.handle)
		return nil, nil
	})
	return err
}

func absentIsFine(err error) error {
	if errors.Is(err, ErrNotFound) && !errors.Is(err, ErrQuarantined) {
		return nil
	}
	return err
}
