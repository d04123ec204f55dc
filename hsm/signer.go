package hsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"io"
	"time"
)

const signerWait = 10 * time.Second

// Signer returns an EC key as a crypto.Signer, through crypto11, for crypto/x509. spki is
// what Generate returned for the key: tokens hold no public halves.
//
// It is not for request paths: crypto.Signer has no context, and crypto11 searches for the
// object at each signature. The signature is verified under spki before it is returned,
// because that search would also find a key that somebody made under the same CKA_ID.
func (t *Token) Signer(ctx context.Context, id ID, spki []byte) (crypto.Signer, error) {
	parsed, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fmt.Errorf("parsing SPKI of %s: %w: %w", id, ErrCaller, err)
	}
	public, ok := parsed.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("SPKI of %s is of type %T: %w", id, parsed, ErrNotSupported)
	}
	o, err := t.Lookup(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := CheckUse(o.Spec, UseSign); err != nil {
		return nil, err
	}
	return &signer{t: t, id: id, public: public}, nil
}

type signer struct {
	t      *Token
	id     ID
	public *ecdsa.PublicKey
}

// Public returns the public key that the signer was made with.
func (s *signer) Public() crypto.PublicKey { return s.public }

// Sign signs a digest in the token and returns an ASN.1 signature.
func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	if !s.t.module.gate.enter() {
		return nil, fmt.Errorf("signing with %s: %w", s.id, ErrUnavailable)
	}
	defer s.t.module.gate.leave()
	// Not before the gate: the library could be initialised anew in between, and the session
	// numbers that crypto11 holds would be somebody else's.
	c, err := s.t.connected()
	if err != nil {
		return nil, fmt.Errorf("signing with %s: %w", s.id, err)
	}
	defer recovered("crypto11 Sign", &err)
	key, err := c.signers.FindPrivateKey(s.id[:], nil)
	if err == nil {
		signature, err = key.Sign(nil, digest, opts)
	}
	if err != nil {
		kind := ErrModuleBroken
		if s.t.probe(c) != nil { // crypto11 reports a token that is away as a key that is not there
			kind = ErrUnavailable
		}
		return nil, fmt.Errorf("signing with %s through crypto11: %w: %w", s.id, kind, err)
	}
	if !ecdsa.VerifyASN1(s.public, digest, signature) {
		return nil, fmt.Errorf("signature of %s does not verify under its public key: %w", s.id, ErrModuleBroken)
	}
	return signature, nil
}
