package keyops

import (
	"context"

	"github.com/keyferry/keyferry/keyops/policy"
)

// DeriveSharedSecret agrees with the owner of another public key on a secret (ECDH), in the
// token.
func (s *Service) DeriveSharedSecret(ctx context.Context, caller Caller, in DeriveSharedSecretInput) (DeriveSharedSecretOutput, error) {
	t := target{ref: in.KeyID, tokens: in.GrantTokens, says: []say{{policy.KeyAgreementAlgorithm, string(in.KeyAgreementAlgorithm)}}}
	return do(ctx, s, caller, "DeriveSharedSecret", t, func(ctx context.Context, c *call) (DeriveSharedSecretOutput, error) {
		if err := c.check(KeyAgreement, in.KeyAgreementAlgorithm, "keyAgreementAlgorithm", ""); err != nil {
			return DeriveSharedSecretOutput{}, err
		}
		return DeriveSharedSecretOutput{}, refuse(ErrUnsupportedOperation, "This Region's token cannot do that.")
	})
}
