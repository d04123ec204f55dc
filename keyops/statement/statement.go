// Package statement signs what one party tells another so that it cannot be taken for
// anything else.
//
// A statement is a purpose, a payload and a signature over both. The purpose is part of
// what is signed, so that an approval, say, can never be presented as a certificate. The
// payload is bytes: it is verified before it is parsed, and stored and passed on as it
// came, never encoded again. The binary form has exactly one encoding.
//
// The package holds no keys and no state, and all functions may be called at once.
package statement

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/keyops/wire"
)

// Limits of a statement's fields in bytes.
const (
	MaxPurpose   = 64
	MaxPayload   = 1 << 20
	MaxSignature = 256 // an ECDSA P-521 signature in DER has at most 139
)

// Sentinels of this package.
var (
	// ErrSignature means that the signature is not the given key's over this statement.
	ErrSignature = errors.New("signature not valid")
	// ErrKey means a key of a kind that no statement is signed with.
	ErrKey = errors.New("key type not accepted: want ECDSA P-256 or P-384, or Ed25519")
)

// Signed is a statement with its signature. Payload must not be changed.
type Signed struct {
	Purpose   Purpose
	Payload   []byte
	Signature []byte
}

// Signer signs digests in somebody's name. The Region's implementation calls its token.
type Signer interface {
	// Sign signs a SHA-384 digest. ECDSA signatures are in ASN.1 DER; Ed25519 signs the
	// digest as its message.
	Sign(ctx context.Context, digest []byte) (signature []byte, err error)
}

// SignerFunc makes a function a Signer.
type SignerFunc func(ctx context.Context, digest []byte) ([]byte, error)

// Sign calls the function.
func (f SignerFunc) Sign(ctx context.Context, digest []byte) ([]byte, error) { return f(ctx, digest) }

// HostKey makes a private key in this process a Signer. Operators' keys are such keys;
// a Region's is not.
func HostKey(k crypto.Signer) Signer {
	return SignerFunc(func(_ context.Context, digest []byte) ([]byte, error) {
		if _, ok := k.Public().(ed25519.PublicKey); ok {
			return k.Sign(rand.Reader, digest, crypto.Hash(0))
		}
		return k.Sign(rand.Reader, digest, crypto.SHA384)
	})
}

// Digest returns the SHA-384 of "keyferry/PURPOSE/v1", a zero byte, the payload's length
// as eight bytes, big-endian, and the payload. The zero byte and the length make the split
// between purpose and payload unambiguous.
func Digest(p Purpose, payload []byte) []byte {
	h := sha512.New384()
	h.Write([]byte("keyferry/" + string(p) + "/v1"))
	h.Write([]byte{0})
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(payload))))
	h.Write(payload)
	return h.Sum(nil)
}

// Sign makes a statement.
func Sign(ctx context.Context, s Signer, p Purpose, payload []byte) (Signed, error) {
	if !p.Known() {
		return Signed{}, &UnknownPurposeError{Name: string(p)}
	}
	if len(payload) > MaxPayload {
		return Signed{}, fmt.Errorf("payload of %d bytes, at most %d allowed", len(payload), MaxPayload)
	}
	sig, err := s.Sign(ctx, Digest(p, payload))
	if err != nil {
		return Signed{}, fmt.Errorf("signing %s: %w", p, err)
	}
	return Signed{Purpose: p, Payload: payload, Signature: sig}, nil
}

// Verify reports whether the signature is pub's over this purpose and payload. It comes
// before any parsing of the payload.
func (s Signed) Verify(pub crypto.PublicKey) error {
	if err := CheckKey(pub); err != nil {
		return fmt.Errorf("verifying %s: %w", s.Purpose, err)
	}
	digest, ok := Digest(s.Purpose, s.Payload), false
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(k, digest, s.Signature)
	case ed25519.PublicKey:
		ok = ed25519.Verify(k, digest, s.Signature)
	}
	if !ok {
		return fmt.Errorf("verifying %s: %w", s.Purpose, ErrSignature)
	}
	return nil
}

// CheckKey reports whether pub is of a kind that statements are signed with.
func CheckKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if n := k.Curve.Params().Name; n == "P-256" || n == "P-384" {
			return nil
		}
	case ed25519.PublicKey:
		if len(k) == ed25519.PublicKeySize {
			return nil
		}
	}
	return ErrKey
}

// Marshal returns the one binary form.
func (s Signed) Marshal() []byte {
	var w wire.Writer
	w.String(string(s.Purpose))
	w.Bytes(s.Payload)
	w.Bytes(s.Signature)
	return w.Out()
}

// Parse reads the binary form. It verifies nothing. A purpose that this version does not
// know is an *UnknownPurposeError; whoever receives statements for others holds its bytes.
func Parse(b []byte) (Signed, error) {
	r := wire.NewReader(b)
	s := Signed{Purpose: Purpose(r.String(MaxPurpose)), Payload: r.Bytes(MaxPayload), Signature: r.Bytes(MaxSignature)}
	if err := r.Done(); err != nil {
		return Signed{}, fmt.Errorf("parsing statement: %w", err)
	}
	if !s.Purpose.Known() {
		return Signed{}, fmt.Errorf("parsing statement: %w", &UnknownPurposeError{Name: string(s.Purpose)})
	}
	return s, nil
}

// Hash returns the SHA-384 of the binary form, by which other statements name this one.
func (s Signed) Hash() []byte {
	h := sha512.Sum384(s.Marshal())
	return h[:]
}
