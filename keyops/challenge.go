package keyops

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"github.com/keyferry/keyferry/hsm"
)

// challenge makes a private key do what only the other half of a public key can, on bytes
// that nobody could have prepared.
func (s *Service) challenge(ctx context.Context, row use, object hsm.ID, der []byte) error {
	pub, err := row.public(der)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotOurs, err)
	}
	var nonce [32]byte
	rand.Read(nonce[:])
	switch row.tokenUsage {
	case hsm.UsageSign:
		err = s.challengeSigner(ctx, object, pub, nonce[:])
	case hsm.UsageDecrypt:
		err = s.challengeDecrypter(ctx, object, pub, nonce[:])
	case hsm.UsageAgree:
		err = s.challengeAgreement(ctx, object, pub)
	default:
		err = fmt.Errorf("no challenge for usage %q", row.tokenUsage)
	}
	return err
}

var errAnswer = fmt.Errorf("%w: its answer to a challenge is wrong", errNotOurs)

// The label keeps what is signed here apart from what clients have signed.
const challengeLabel = "keyferry/challenge/v1"

func (s *Service) challengeSigner(ctx context.Context, object hsm.ID, pub crypto.PublicKey, nonce []byte) error {
	digest := sha256.Sum256(append([]byte(challengeLabel), nonce...))
	scheme := hsm.SignScheme{Padding: hsm.ECDSA, Hash: crypto.SHA256}
	if _, ok := pub.(*rsa.PublicKey); ok {
		scheme.Padding = hsm.PKCS1v15
	}
	signature, err := s.token.Sign(ctx, object, scheme, digest[:])
	if err != nil {
		return err
	}
	if err := verify(pub, scheme, digest[:], signature); err != nil {
		return fmt.Errorf("%w: %w", errAnswer, err)
	}
	return nil
}

func (s *Service) challengeDecrypter(ctx context.Context, object hsm.ID, pub crypto.PublicKey, nonce []byte) error {
	key, ok := pub.(*rsa.PublicKey)
	if !ok {
		return fmt.Errorf("%w: a %T encrypts nothing", errNotOurs, pub)
	}
	blob, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key, nonce, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotOurs, err)
	}
	plaintext, err := s.token.DecryptOAEP(ctx, object, crypto.SHA256, blob)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(plaintext, nonce) != 1 {
		return errAnswer
	}
	return nil
}

func (s *Service) challengeAgreement(ctx context.Context, object hsm.ID, pub crypto.PublicKey) error {
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("%w: a %T agrees on nothing", errNotOurs, pub)
	}
	theirs, err := key.ECDH()
	if err != nil {
		return fmt.Errorf("%w: %w", errNotOurs, err)
	}
	ours, err := theirs.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	want, err := ours.ECDH(theirs)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotOurs, err)
	}
	got, err := s.token.Agree(ctx, object, ours.PublicKey().Bytes())
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(got, want) != 1 {
		return errAnswer
	}
	return nil
}
