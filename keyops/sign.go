package keyops

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	_ "crypto/sha256" // hashes of messages
	_ "crypto/sha512"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/spki"
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
		scheme, digest, err := c.digest(in.SigningAlgorithm, in.MessageType, in.Message)
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
		signature, err := s.token.Sign(ctx, m.Object, scheme, digest)
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
		scheme, digest, err := c.digest(in.SigningAlgorithm, in.MessageType, in.Message)
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
		pub, err := c.key.sealedKey(m)
		if err != nil {
			return VerifyOutput{}, err
		}
		if err := verify(pub, scheme, digest, in.Signature); err != nil {
			return VerifyOutput{}, &Error{Reason: ErrInvalidSignature, cause: err}
		}
		return VerifyOutput{SignatureValid: true, KeyID: c.key.arn, SigningAlgorithm: in.SigningAlgorithm}, nil
	})
}

// saysSigning is what conditions may ask of a signature.
func saysSigning(a Algorithm, t MessageType) []say {
	if t == "" {
		t = Raw
	}
	return []say{{policy.SigningAlgorithm, string(a)}, {policy.MessageType, string(t)}}
}

// signSchemes is what each signing algorithm asks of the token.
var signSchemes = map[Algorithm]hsm.SignScheme{
	AlgorithmECDSASHA256: {Padding: hsm.ECDSA, Hash: crypto.SHA256},
	AlgorithmECDSASHA384: {Padding: hsm.ECDSA, Hash: crypto.SHA384},
	AlgorithmECDSASHA512: {Padding: hsm.ECDSA, Hash: crypto.SHA512},
	AlgorithmPKCS1SHA256: {Padding: hsm.PKCS1v15, Hash: crypto.SHA256},
	AlgorithmPKCS1SHA384: {Padding: hsm.PKCS1v15, Hash: crypto.SHA384},
	AlgorithmPKCS1SHA512: {Padding: hsm.PKCS1v15, Hash: crypto.SHA512},
	AlgorithmPSSSHA256:   {Padding: hsm.PSS, Hash: crypto.SHA256},
	AlgorithmPSSSHA384:   {Padding: hsm.PSS, Hash: crypto.SHA384},
	AlgorithmPSSSHA512:   {Padding: hsm.PSS, Hash: crypto.SHA512},
}

// digest returns what the token signs for a message of either type, and how.
func (c *call) digest(a Algorithm, t MessageType, message []byte) (hsm.SignScheme, []byte, error) {
	scheme := signSchemes[a]
	if err := c.check(SignVerify, a, "signingAlgorithm", ""); err != nil {
		return scheme, nil, err
	}
	if err := size("message", message, maxMessage); err != nil {
		return scheme, nil, err
	}
	switch t {
	case Raw, "":
		h := scheme.Hash.New()
		h.Write(message)
		return scheme, h.Sum(nil), nil
	case Digest:
		if len(message) != scheme.Hash.Size() {
			return scheme, nil, refuse(ErrValidation, "Digest is invalid length for algorithm %s.", a)
		}
		return scheme, message, nil
	}
	return scheme, nil, invalid("messageType", "satisfy enum value set: [RAW, DIGEST]")
}

var errSignature = errors.New("signature does not match")

// verify checks a signature under a public key of the row's kind.
func verify(pub crypto.PublicKey, scheme hsm.SignScheme, digest, signature []byte) error {
	ok := false
	switch key := pub.(type) {
	case *ecdsa.PublicKey:
		ok = scheme.Padding == hsm.ECDSA && spki.VerifyECDSA(key, digest, signature)
	case *rsa.PublicKey:
		switch scheme.Padding {
		case hsm.PKCS1v15:
			ok = rsa.VerifyPKCS1v15(key, scheme.Hash, digest, signature) == nil
		case hsm.PSS:
			ok = rsa.VerifyPSS(key, scheme.Hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
	}
	if !ok {
		return errSignature
	}
	return nil
}
