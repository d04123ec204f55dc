package hsm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

const (
	gcmTag      = 16
	checkBlocks = 32 // two AES blocks, see EncryptBlocks
)

// use runs fn with the object's handle on a session, after its role was checked.
func use[T any](ctx context.Context, t *Token, op string, id ID, u Use, fn func(s pkcs11.SessionHandle, e entry) (T, error)) (T, error) {
	return reach(ctx, t, op, id, func(s pkcs11.SessionHandle, e entry) (v T, err error) {
		if err := CheckUse(e.Spec, u); err != nil {
			return v, err
		}
		return fn(s, e)
	})
}

// reach runs fn with the object's handle on a session. A handle that the token no longer
// knows is looked up again, once.
func reach[T any](ctx context.Context, t *Token, op string, id ID, fn func(s pkcs11.SessionHandle, e entry) (T, error)) (T, error) {
	return do(ctx, t, call{op: op}, func(c *connection, s pkcs11.SessionHandle) (v T, err error) {
		for range 2 {
			e, err := t.resolve(ctx, c, s, id)
			if err != nil {
				return v, err
			}
			v, err = fn(s, e)
			if !errors.Is(err, ErrNotFound) {
				return v, err
			}
			// Before any search: SoftHSM knows no handle when its directory is gone.
			if gone := t.probe(c); gone != nil {
				return v, fmt.Errorf("%w: %w", ErrUnavailable, gone)
			}
			t.index.forget(id, e.handle)
		}
		return v, fmt.Errorf("object %s: %w", id, ErrNotFound)
	})
}

// EncryptGCM encrypts under AES-256-GCM and returns the IV and ciphertext ‖ 16-byte tag. The
// IV is 12 bytes of the host's randomness or, where the profile says so, the token's.
// Additional data must not be empty: some builds of SoftHSM abort the process on it.
func (t *Token) EncryptGCM(ctx context.Context, id ID, aad, plaintext []byte) (iv, sealed []byte, err error) {
	if len(aad) == 0 {
		return nil, nil, fmt.Errorf("encrypting: empty additional data: %w", ErrCaller)
	}
	if limit := t.cfg.Profile.GCM.MaxBytes; limit > 0 && len(plaintext) > limit {
		return nil, nil, fmt.Errorf("encrypting: %d bytes, the token takes %d: %w", len(plaintext), limit, ErrCaller)
	}
	type result struct{ iv, sealed []byte }
	r, err := use(ctx, t, "EncryptGCM", id, UseGCM, func(s pkcs11.SessionHandle, e entry) (result, error) {
		iv, sealed, err := t.encryptGCM(s, e.handle, aad, plaintext)
		return result{iv, sealed}, err
	})
	return r.iv, r.sealed, err
}

func (t *Token) encryptGCM(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, aad, plaintext []byte) (iv, sealed []byte, err error) {
	gcm := t.cfg.Profile.GCM
	switch gcm.IV {
	case IVFromCaller:
		iv = make([]byte, gcm.IVBytes)
		rand.Read(iv) // never fails since Go 1.24
	case IVInPlace:
		iv = make([]byte, gcm.IVBytes)
	case IVAppended: // no IV given
	}
	params := pkcs11.NewGCMParams(iv, aad, gcmTag*8)
	defer params.Free()
	sealed, err = t.driver.Encrypt(s, pkcs11.NewMechanism(gcm.Mechanism, params), h, plaintext)
	if err != nil {
		return nil, nil, err
	}
	switch gcm.IV {
	case IVInPlace:
		iv = params.IV()
		if allZero(iv) {
			return nil, nil, fmt.Errorf("the token left the IV as it was: %w", ErrModuleBroken)
		}
	case IVAppended:
		if n := len(plaintext) + gcmTag; len(sealed) == n+gcm.IVBytes {
			sealed, iv = sealed[:n], sealed[n:]
		}
		if allZero(iv) {
			return nil, nil, fmt.Errorf("the token appended no IV: %w", ErrModuleBroken)
		}
	}
	if len(iv) != gcm.IVBytes || len(sealed) != len(plaintext)+gcmTag {
		return nil, nil, fmt.Errorf("IV of %d and output of %d bytes for %d: %w", len(iv), len(sealed), len(plaintext), ErrModuleBroken)
	}
	return iv, sealed, nil
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// DecryptGCM opens what EncryptGCM made, here or on any other token that holds the same
// material. Whatever does not fit is [ErrDataInvalid].
func (t *Token) DecryptGCM(ctx context.Context, id ID, iv, aad, sealed []byte) ([]byte, error) {
	if len(aad) == 0 {
		return nil, fmt.Errorf("decrypting: empty additional data: %w", ErrCaller)
	}
	// An empty IV would be sixteen zero bytes to SoftHSM, so lengths are checked here.
	if len(iv) != 12 && len(iv) != 16 || len(sealed) < gcmTag {
		return nil, fmt.Errorf("decrypting: IV of %d and data of %d bytes: %w", len(iv), len(sealed), ErrDataInvalid)
	}
	return use(ctx, t, "DecryptGCM", id, UseGCM, func(s pkcs11.SessionHandle, e entry) ([]byte, error) {
		params := pkcs11.NewGCMParams(iv, aad, gcmTag*8)
		defer params.Free()
		plaintext, err := t.driver.Decrypt(s, pkcs11.NewMechanism(t.cfg.Profile.GCM.Mechanism, params), e.handle, sealed)
		if err != nil {
			return nil, err
		}
		if len(plaintext) != len(sealed)-gcmTag {
			return nil, fmt.Errorf("%d bytes out of %d: %w", len(plaintext), len(sealed), ErrModuleBroken)
		}
		return plaintext, nil
	})
}

// EncryptBlocks encrypts exactly two AES blocks by themselves (AES-ECB). It serves the check
// value of material and nothing else.
func (t *Token) EncryptBlocks(ctx context.Context, id ID, blocks []byte) ([]byte, error) {
	if len(blocks) != checkBlocks {
		return nil, fmt.Errorf("encrypting blocks: %d bytes, want %d: %w", len(blocks), checkBlocks, ErrCaller)
	}
	return use(ctx, t, "EncryptBlocks", id, UseBlocks, func(s pkcs11.SessionHandle, e entry) ([]byte, error) {
		out, err := t.driver.Encrypt(s, pkcs11.NewMechanism(pkcs11.CKM_AES_ECB, nil), e.handle, blocks)
		if err == nil && len(out) != checkBlocks {
			return nil, fmt.Errorf("%d bytes instead of %d: %w", len(out), checkBlocks, ErrModuleBroken)
		}
		return out, err
	})
}

// MAC returns the HMAC of the message, by the hash of the key's algorithm.
func (t *Token) MAC(ctx context.Context, id ID, message []byte) ([]byte, error) {
	return use(ctx, t, "MAC", id, UseMAC, func(s pkcs11.SessionHandle, e entry) ([]byte, error) {
		k := secretKeys[e.Spec.Algorithm]
		mac, err := t.driver.Sign(s, pkcs11.NewMechanism(k.mac, nil), e.handle, message)
		if err == nil && len(mac) != k.hash.Size() {
			return nil, fmt.Errorf("MAC of %d bytes: %w", len(mac), ErrModuleBroken)
		}
		return mac, err
	})
}
