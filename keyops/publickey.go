package keyops

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/hsm/spki"
)

// GetPublicKey returns the sealed public key.
func (s *Service) GetPublicKey(ctx context.Context, caller Caller, in GetPublicKeyInput) (GetPublicKeyOutput, error) {
	return do(ctx, s, caller, "GetPublicKey", target{ref: in.KeyID, tokens: in.GrantTokens}, func(_ context.Context, c *call) (GetPublicKeyOutput, error) {
		row := c.key.use()
		if !row.pair() {
			return GetPublicKeyOutput{}, refuse(ErrUnsupportedOperation, "%s is not an asymmetric key.", c.key.arn)
		}
		m, err := c.key.listed()
		if err != nil {
			return GetPublicKeyOutput{}, err
		}
		out := GetPublicKeyOutput{KeyID: c.key.arn, PublicKey: m.SPKI, KeySpec: c.key.Spec, KeyUsage: c.key.Usage}
		switch row.usage {
		case EncryptDecrypt:
			out.EncryptionAlgorithms = row.algorithms
		case SignVerify:
			out.SigningAlgorithms = row.algorithms
		case KeyAgreement:
			out.KeyAgreementAlgorithms = row.algorithms
		}
		return out, nil
	})
}

// public decodes a public key of this row: a peer, or whoever imports, may name one of
// another kind.
func (u use) public(der []byte) (crypto.PublicKey, error) {
	pub, err := spki.Parse(der)
	if err != nil {
		return nil, err
	}
	switch key := pub.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == u.token.Curve() {
			return key, nil
		}
	case *rsa.PublicKey:
		if key.N.BitLen() == u.token.ModulusBits() {
			return key, nil
		}
	}
	return nil, fmt.Errorf("public key is not one of %s", u.token)
}

// sealedKey decodes the public key of a material, which was checked before it was sealed.
func (k *Key) sealedKey(m *Material) (crypto.PublicKey, error) {
	pub, err := k.use().public(m.SPKI)
	if err != nil {
		return nil, internal(fmt.Errorf("sealed public key of material %s: %w", m.ID, err))
	}
	return pub, nil
}

// sealedRSA is sealedKey of an RSA key.
func (k *Key) sealedRSA(m *Material) (*rsa.PublicKey, error) {
	pub, err := k.sealedKey(m)
	if err != nil {
		return nil, err
	}
	key, ok := pub.(*rsa.PublicKey)
	if !ok {
		return nil, internal(errors.New("sealed public key is not RSA"))
	}
	return key, nil
}
