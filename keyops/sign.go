package keyops

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/policy"
)

// GenerateMac computes a MAC in the token.
func (s *Service) GenerateMac(ctx context.Context, caller Caller, in GenerateMacInput) (GenerateMacOutput, error) {
	return do(ctx, s, caller, "GenerateMac", target{ref: in.KeyID, tokens: in.GrantTokens, says: []say{{policy.MacAlgorithm, string(in.MacAlgorithm)}}}, func(ctx context.Context, c *call) (GenerateMacOutput, error) {
		mac, err := s.mac(ctx, c, in.MacAlgorithm, in.Message, in.DryRun)
		if err != nil {
			return GenerateMacOutput{}, err
		}
		return GenerateMacOutput{Mac: mac, KeyID: c.key.arn, MacAlgorithm: in.MacAlgorithm}, nil
	})
}

// VerifyMac computes the MAC again, in the token, and compares in constant time.
func (s *Service) VerifyMac(ctx context.Context, caller Caller, in VerifyMacInput) (VerifyMacOutput, error) {
	return do(ctx, s, caller, "VerifyMac", target{ref: in.KeyID, tokens: in.GrantTokens, says: []say{{policy.MacAlgorithm, string(in.MacAlgorithm)}}}, func(ctx context.Context, c *call) (VerifyMacOutput, error) {
		if err := size("mac", in.Mac, maxSignature); err != nil {
			return VerifyMacOutput{}, err
		}
		mac, err := s.mac(ctx, c, in.MacAlgorithm, in.Message, in.DryRun)
		if err != nil {
			return VerifyMacOutput{}, err
		}
		if subtle.ConstantTimeCompare(mac, in.Mac) != 1 {
			return VerifyMacOutput{}, &Error{Reason: ErrInvalidMac}
		}
		return VerifyMacOutput{MacValid: true, KeyID: c.key.arn, MacAlgorithm: in.MacAlgorithm}, nil
	})
}

func (s *Service) mac(ctx context.Context, c *call, a Algorithm, message []byte, dryRun bool) ([]byte, error) {
	if err := c.check(GenerateVerifyMac, a, "macAlgorithm", ""); err != nil {
		return nil, err
	}
	if err := size("message", message, maxMessage); err != nil {
		return nil, err
	}
	m, err := c.key.current()
	if err != nil {
		return nil, err
	}
	if dryRun {
		return nil, errDryRun
	}
	if err := s.prove(ctx, c.key, m); err != nil {
		return nil, err
	}
	mac, err := s.token.MAC(ctx, m.Object, message)
	if err != nil {
		return nil, s.tokenFailed(m, fmt.Errorf("computing a MAC: %w", err))
	}
	return mac, nil
}

// Sign signs a message, or its digest, in the token.
func (s *Service) Sign(ctx context.Context, caller Caller, in SignInput) (SignOutput, error) {
	return do(ctx, s, caller, "Sign", target{ref: in.KeyID, tokens: in.GrantTokens, says: saysSigning(in.SigningAlgorithm, in.MessageType)}, func(ctx context.Context, c *call) (SignOutput, error) {
		digest, err := c.digest(in.SigningAlgorithm, in.MessageType, in.Message)
		if err != nil {
			return SignOutput{}, err
		}
		m, err := c.key.current()
		if err != nil {
			return SignOutput{}, err
		}
		if in.DryRun {
			return SignOutput{}, errDryRun
		}
		if err := s.prove(ctx, c.key, m); err != nil {
			return SignOutput{}, err
		}
		signature, err := s.token.Sign(ctx, m.Object, hsm.SignScheme{Padding: hsm.ECDSA, Hash: crypto.SHA256}, digest)
		if err != nil {
			return SignOutput{}, s.tokenFailed(m, fmt.Errorf("signing: %w", err))
		}
		return SignOutput{Signature: signature, KeyID: c.key.arn, SigningAlgorithm: in.SigningAlgorithm}, nil
	})
}

// Verify checks a signature on the host, under the public key that was sealed when the key
// was made: the token's public objects can be replaced by anybody.
func (s *Service) Verify(ctx context.Context, caller Caller, in VerifyInput) (VerifyOutput, error) {
	return do(ctx, s, caller, "Verify", target{ref: in.KeyID, tokens: in.GrantTokens, says: saysSigning(in.SigningAlgorithm, in.MessageType)}, func(ctx context.Context, c *call) (VerifyOutput, error) {
		digest, err := c.digest(in.SigningAlgorithm, in.MessageType, in.Message)
		if err != nil {
			return VerifyOutput{}, err
		}
		if err := size("signature", in.Signature, maxSignature); err != nil {
			return VerifyOutput{}, err
		}
		m, err := c.key.listed()
		if err != nil {
			return VerifyOutput{}, err
		}
		if in.DryRun {
			return VerifyOutput{}, errDryRun
		}
		if err := verify(m.SPKI, digest, in.Signature); err != nil {
			if errors.Is(err, errSignature) {
				return VerifyOutput{}, &Error{Reason: ErrInvalidSignature, cause: err}
			}
			return VerifyOutput{}, err
		}
		return VerifyOutput{SignatureValid: true, KeyID: c.key.arn, SigningAlgorithm: in.SigningAlgorithm}, nil
	})
}

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
		return GetPublicKeyOutput{
			KeyID: c.key.arn, PublicKey: m.SPKI, KeySpec: c.key.Spec, KeyUsage: c.key.Usage,
			SigningAlgorithms: row.algorithms,
		}, nil
	})
}

// saysSigning is what conditions may ask of a signature.
func saysSigning(a Algorithm, t MessageType) []say {
	if t == "" {
		t = Raw
	}
	return []say{{policy.SigningAlgorithm, string(a)}, {policy.MessageType, string(t)}}
}

// digest returns what the token signs for a message of either type.
func (c *call) digest(a Algorithm, t MessageType, message []byte) ([]byte, error) {
	if err := c.check(SignVerify, a, "signingAlgorithm", ""); err != nil {
		return nil, err
	}
	if err := size("message", message, maxMessage); err != nil {
		return nil, err
	}
	switch t {
	case Raw, "":
		sum := sha256.Sum256(message)
		return sum[:], nil
	case Digest:
		if len(message) != c.key.use().digest {
			return nil, refuse(ErrValidation, "Digest is invalid length for algorithm %s.", a)
		}
		return message, nil
	}
	return nil, invalid("messageType", "satisfy enum value set: [RAW, DIGEST]")
}

var errSignature = errors.New("signature does not match")

// verify checks an ECDSA signature in DER under a public key in DER.
func verify(spki, digest, signature []byte) error {
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return fmt.Errorf("parsing the sealed public key: %w", err)
	}
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("sealed public key is a %T", pub)
	}
	if !ecdsa.VerifyASN1(key, digest, signature) {
		return errSignature
	}
	return nil
}
