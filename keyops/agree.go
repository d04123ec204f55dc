package keyops

import (
	"context"
	"crypto/ecdsa"
	"fmt"

	"github.com/keyferry/keyferry/hsm/spki"
	"github.com/keyferry/keyferry/keyops/policy"
)

// DeriveSharedSecret agrees with the owner of another public key on a secret (ECDH), in the
// token. The secret is raw: callers derive keys from it.
func (s *Service) DeriveSharedSecret(ctx context.Context, caller Caller, in DeriveSharedSecretInput) (DeriveSharedSecretOutput, error) {
	t := target{ref: in.KeyID, tokens: in.GrantTokens, says: []say{{policy.KeyAgreementAlgorithm, string(in.KeyAgreementAlgorithm)}}}
	return do(ctx, s, caller, "DeriveSharedSecret", t, func(ctx context.Context, c *call) (DeriveSharedSecretOutput, error) {
		if err := c.check(KeyAgreement, in.KeyAgreementAlgorithm, "keyAgreementAlgorithm", ""); err != nil {
			return DeriveSharedSecretOutput{}, err
		}
		if err := size("publicKey", in.PublicKey, maxPublicKey); err != nil {
			return DeriveSharedSecretOutput{}, err
		}
		peer, err := c.key.peer(in.PublicKey)
		if err != nil {
			return DeriveSharedSecretOutput{}, err
		}
		m, err := c.key.current()
		if err != nil {
			return DeriveSharedSecretOutput{}, err
		}
		if in.DryRun {
			return DeriveSharedSecretOutput{}, errDryRun
		}
		if err := s.prove(ctx, c.key, m); err != nil {
			return DeriveSharedSecretOutput{}, err
		}
		secret, err := s.token.Agree(ctx, m.Object, peer)
		if err != nil {
			return DeriveSharedSecretOutput{}, s.tokenFailed(m, fmt.Errorf("agreeing on a secret: %w", err))
		}
		return DeriveSharedSecretOutput{
			SharedSecret: secret, KeyID: c.key.arn, KeyAgreementAlgorithm: in.KeyAgreementAlgorithm, KeyOrigin: c.key.Origin,
		}, nil
	})
}

// peer returns the point of another public key, which has to be on the key's own curve: a
// token that computed with a point that is not would give its key away.
func (k *Key) peer(der []byte) ([]byte, error) {
	pub, err := k.use().public(der)
	if err != nil {
		return nil, &Error{
			Reason:  ErrValidation,
			Message: fmt.Sprintf("The public key must be a DER-encoded SubjectPublicKeyInfo with an uncompressed point on the curve of key spec %s.", k.Spec),
			cause:   err,
		}
	}
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return nil, internal(fmt.Errorf("key spec %s agrees with a %T", k.Spec, pub))
	}
	return spki.Point(key)
}
