package hsmtest

import (
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"io"

	"github.com/keyferry/keyferry/hsm"
)

// use returns the object with this ID if its role has the use. The caller holds the lock.
func (f *Fake) use(id hsm.ID, u hsm.Use) (*object, error) {
	o, err := f.find(id)
	if err != nil {
		return nil, err
	}
	return o, hsm.CheckUse(o.Spec, u)
}

// EncryptGCM encrypts under a fresh IV of 12 bytes.
func (f *Fake) EncryptGCM(ctx context.Context, id hsm.ID, aad, plaintext []byte) (iv, sealed []byte, err error) {
	type result struct{ iv, sealed []byte }
	r, err := call(ctx, f, "EncryptGCM", "C_Encrypt", id, func() (result, error) {
		o, err := f.use(id, hsm.UseGCM)
		if err != nil {
			return result{}, err
		}
		if len(aad) == 0 {
			return result{}, fmt.Errorf("empty additional data: %w", hsm.ErrCaller)
		}
		iv := f.random(12)
		if u := (ivUse{id, string(iv)}); f.ivs[u] {
			f.violated("IV %x is used twice with object %s", iv, id)
		} else {
			f.ivs[u] = true
		}
		g, err := gcm(o.secret)
		if err != nil {
			return result{}, err
		}
		return result{iv, g.Seal(nil, iv, plaintext, aad)}, nil
	})
	return r.iv, r.sealed, err
}

// DecryptGCM opens what EncryptGCM sealed.
func (f *Fake) DecryptGCM(ctx context.Context, id hsm.ID, iv, aad, sealed []byte) ([]byte, error) {
	return call(ctx, f, "DecryptGCM", "C_Decrypt", id, func() ([]byte, error) {
		o, err := f.use(id, hsm.UseGCM)
		if err != nil {
			return nil, err
		}
		if len(aad) == 0 {
			return nil, fmt.Errorf("empty additional data: %w", hsm.ErrCaller)
		}
		g, err := gcm(o.secret)
		if err != nil {
			return nil, err
		}
		if len(iv) != g.NonceSize() || len(sealed) < g.Overhead() {
			return nil, hsm.ErrDataInvalid
		}
		plaintext, err := g.Open(nil, iv, sealed, aad)
		if err != nil {
			return nil, hsm.ErrDataInvalid
		}
		return plaintext, nil
	})
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// EncryptBlocks is AES-ECB over exactly two blocks.
func (f *Fake) EncryptBlocks(ctx context.Context, id hsm.ID, blocks []byte) ([]byte, error) {
	return call(ctx, f, "EncryptBlocks", "C_Encrypt", id, func() ([]byte, error) {
		o, err := f.use(id, hsm.UseBlocks)
		if err != nil {
			return nil, err
		}
		if len(blocks) != 32 {
			return nil, fmt.Errorf("%d bytes, want 32: %w", len(blocks), hsm.ErrCaller)
		}
		block, err := aes.NewCipher(o.secret)
		if err != nil {
			return nil, err
		}
		out := make([]byte, 32)
		block.Encrypt(out[:16], blocks[:16])
		block.Encrypt(out[16:], blocks[16:])
		return out, nil
	})
}

// MAC is the HMAC of the key's algorithm.
func (f *Fake) MAC(ctx context.Context, id hsm.ID, message []byte) ([]byte, error) {
	return call(ctx, f, "MAC", "C_Sign", id, func() ([]byte, error) {
		o, err := f.use(id, hsm.UseMAC)
		if err != nil {
			return nil, err
		}
		m := hmac.New(macHashes[o.Spec.Algorithm].New, o.secret)
		m.Write(message)
		return m.Sum(nil), nil
	})
}

var macHashes = map[hsm.Algorithm]crypto.Hash{
	hsm.HMACSHA224: crypto.SHA224, hsm.HMACSHA256: crypto.SHA256, hsm.HMACSHA384: crypto.SHA384, hsm.HMACSHA512: crypto.SHA512,
}

// Sign signs a digest. ECDSA signatures are deterministic (RFC 6979), which a real token's
// need not be.
func (f *Fake) Sign(ctx context.Context, id hsm.ID, scheme hsm.SignScheme, digest []byte) ([]byte, error) {
	return call(ctx, f, "Sign", "C_Sign", id, func() ([]byte, error) {
		o, err := f.find(id)
		if err != nil {
			return nil, err
		}
		if err := hsm.CheckSign(o.Spec, scheme, digest); err != nil {
			return nil, err
		}
		return o.private.sign(scheme, digest)
	})
}

// DecryptOAEP opens an RSA-OAEP ciphertext with an empty label.
func (f *Fake) DecryptOAEP(ctx context.Context, id hsm.ID, hash crypto.Hash, ciphertext []byte) ([]byte, error) {
	return call(ctx, f, "DecryptOAEP", "C_Decrypt", id, func() ([]byte, error) {
		o, err := f.find(id)
		if err != nil {
			return nil, err
		}
		if err := hsm.CheckOAEP(o.Spec, hash, ciphertext); err != nil {
			return nil, err
		}
		plaintext, err := rsa.DecryptOAEP(hash.New(), nil, o.private.rsa, ciphertext, nil)
		if err != nil {
			return nil, hsm.ErrDataInvalid
		}
		return plaintext, nil
	})
}

// Agree computes the x-coordinate of the shared point.
func (f *Fake) Agree(ctx context.Context, id hsm.ID, peer []byte) ([]byte, error) {
	return call(ctx, f, "Agree", "C_DeriveKey", id, func() ([]byte, error) {
		o, err := f.find(id)
		if err != nil {
			return nil, err
		}
		if err := hsm.CheckAgree(o.Spec, peer); err != nil {
			return nil, err
		}
		return o.private.agree(peer)
	})
}

// Random returns n bytes of the fake's randomness.
func (f *Fake) Random(ctx context.Context, n int) ([]byte, error) {
	return call(ctx, f, "Random", "C_GenerateRandom", hsm.ID{}, func() ([]byte, error) {
		if n < 1 || n > hsm.MaxRandom {
			return nil, fmt.Errorf("%d random bytes, want 1 to %d: %w", n, hsm.MaxRandom, hsm.ErrCaller)
		}
		return f.random(n), nil
	})
}

// Signer returns the key as a crypto.Signer for certificates.
func (f *Fake) Signer(ctx context.Context, id hsm.ID, spki []byte) (crypto.Signer, error) {
	public, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fmt.Errorf("parsing SPKI: %w: %w", hsm.ErrCaller, err)
	}
	o, err := f.Lookup(ctx, id)
	if err != nil {
		return nil, err
	}
	return &signer{f: f, id: id, public: public}, hsm.CheckUse(o.Spec, hsm.UseSign)
}

type signer struct {
	f      *Fake
	id     hsm.ID
	public crypto.PublicKey
}

func (s *signer) Public() crypto.PublicKey { return s.public }

func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.f.Sign(context.Background(), s.id, hsm.SignScheme{Padding: hsm.ECDSA, Hash: opts.HashFunc()}, digest)
}
