package keyops

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/spki"
	"github.com/keyferry/keyferry/keyops/ecpublic"
)

// Bounds of the public exponent of an imported RSA key: those of FIPS 186-5 below, and what
// every verifier takes above.
const (
	minExponent = 1<<16 + 1
	maxExponent = 1<<31 - 1
)

// curves are those of which a public key can be recovered.
var curves = map[hsm.Algorithm]*ecpublic.Curve{
	hsm.ECP256: ecpublic.P256, hsm.ECP384: ecpublic.P384, hsm.ECP521: ecpublic.P521, hsm.ECSecp256k1: ecpublic.Secp256k1,
}

// recoverPublic returns the public key of an imported elliptic-curve key, of which the token
// shows nothing, from what the private key does (ADR 0024).
func (s *Service) recoverPublic(ctx context.Context, row use, object hsm.ID) ([]byte, error) {
	curve := curves[row.token]
	if curve == nil {
		return nil, internal(fmt.Errorf("the token shows no public half of an imported %s key", row.token))
	}
	var point []byte
	var err error
	if row.tokenUsage == hsm.UsageAgree {
		point, err = s.recoverByAgreement(ctx, curve, object)
	} else {
		point, err = s.recoverBySignatures(ctx, curve, object)
	}
	if unusable(err) || errors.Is(err, ecpublic.ErrNoKey) {
		// A scalar of zero, or of the curve's order, is taken by C_UnwrapKey and fails here.
		return nil, fmt.Errorf("%w: %w", errNotOurs, err)
	}
	if err != nil {
		return nil, fmt.Errorf("recovering a public key: %w", err)
	}
	public, err := spki.ParsePoint(row.token.Curve(), point)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotOurs, err)
	}
	return spki.Marshal(public)
}

func (s *Service) recoverBySignatures(ctx context.Context, curve *ecpublic.Curve, object hsm.ID) ([]byte, error) {
	var made [2]ecpublic.Signature
	for i := range made {
		var nonce [32]byte
		rand.Read(nonce[:])
		digest := sha256.Sum256(append([]byte("keyferry/recover/v1"), nonce[:]...))
		der, err := s.token.Sign(ctx, object, hsm.SignScheme{Padding: hsm.ECDSA, Hash: crypto.SHA256}, digest[:])
		if err != nil {
			return nil, err
		}
		made[i] = ecpublic.Signature{Digest: digest[:], DER: der}
	}
	return ecpublic.FromSignatures(curve, made[0], made[1])
}

func (s *Service) recoverByAgreement(ctx context.Context, curve *ecpublic.Curve, object hsm.ID) ([]byte, error) {
	secret, err := s.token.Agree(ctx, object, curve.Generator())
	if err != nil {
		return nil, err
	}
	return ecpublic.FromAgreement(curve, secret)
}

// proveImport checks that the public half which was recovered of an imported key pair is of
// the kind that the key's spec declares. That the object in the token is its other half is
// proven by identify, on a challenge.
func proveImport(k *Key, der []byte) error {
	public, err := spki.Parse(der)
	if err != nil {
		return fmt.Errorf("%w: its public half: %w", errNotOurs, err)
	}
	if err := ofKind(k, public); err != nil {
		return fmt.Errorf("%w: %w", errNotOurs, err)
	}
	return nil
}

func ofKind(k *Key, public crypto.PublicKey) error {
	algorithm := k.use().token
	switch p := public.(type) {
	case *rsa.PublicKey:
		switch {
		case p.N.BitLen() != algorithm.ModulusBits():
			return fmt.Errorf("RSA modulus of %d bits, want %d", p.N.BitLen(), algorithm.ModulusBits())
		case p.N.Bit(0) == 0 || p.E%2 == 0 || p.E < minExponent || p.E > maxExponent:
			return fmt.Errorf("RSA public exponent %d", p.E)
		}
	case *ecdsa.PublicKey:
		if p.Curve != algorithm.Curve() {
			return fmt.Errorf("curve %s", p.Curve.Params().Name)
		}
	default:
		return fmt.Errorf("public key of type %T", public)
	}
	return nil
}
