package keyops

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/ciphertext"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/policy"
)

// Encrypt encrypts a small plaintext under the key's current material.
func (s *Service) Encrypt(ctx context.Context, caller Caller, in EncryptInput) (EncryptOutput, error) {
	t := target{ref: in.KeyID, tokens: in.GrantTokens, context: in.EncryptionContext, says: saysSymmetric(in.EncryptionAlgorithm)}
	return do(ctx, s, caller, "Encrypt", t, func(ctx context.Context, c *call) (EncryptOutput, error) {
		if err := c.check(EncryptDecrypt, in.EncryptionAlgorithm, "encryptionAlgorithm", AlgorithmSymmetricDefault); err != nil {
			return EncryptOutput{}, err
		}
		if err := size("plaintext", in.Plaintext, maxPlaintext); err != nil {
			return EncryptOutput{}, err
		}
		blob, id, err := s.seal(ctx, c, in.Plaintext, in.EncryptionContext, in.DryRun)
		if err != nil {
			return EncryptOutput{}, err
		}
		return EncryptOutput{
			CiphertextBlob: blob, KeyID: c.key.arn,
			EncryptionAlgorithm: AlgorithmSymmetricDefault, KeyMaterialID: id.String(),
		}, nil
	})
}

// saysSymmetric is what conditions may ask of an encryption algorithm.
func saysSymmetric(a Algorithm) []say {
	if a == "" {
		a = AlgorithmSymmetricDefault
	}
	return []say{{policy.EncryptionAlgorithm, string(a)}}
}

// seal encrypts under the current material and builds the blob.
func (s *Service) seal(ctx context.Context, c *call, plaintext []byte, context map[string]string, dryRun bool) ([]byte, material.ID, error) {
	m, err := c.key.current()
	if err != nil {
		return nil, material.ID{}, err
	}
	header := ciphertext.NewHeader(c.key.ID, m.ID)
	aad, err := ciphertext.AAD(header, m.ID, context)
	if err != nil {
		return nil, m.ID, fromContext(err)
	}
	if dryRun {
		return nil, m.ID, errDryRun
	}
	if err := s.prove(ctx, c.key, m); err != nil {
		return nil, m.ID, err
	}
	if err := s.countEncryption(ctx, c.key, m); err != nil {
		return nil, m.ID, err
	}
	iv, sealed, err := s.token.EncryptGCM(ctx, m.Object, aad, plaintext)
	if err != nil {
		return nil, m.ID, s.tokenFailed(m, fmt.Errorf("encrypting: %w", err))
	}
	header.IV = iv
	blob, err := ciphertext.Build(header, sealed)
	if err != nil {
		// The token answered with an IV or a length that the format does not have.
		return nil, m.ID, internal(err)
	}
	return blob, m.ID, nil
}

// Decrypt decrypts what Encrypt or GenerateDataKey made, in this or in another Region.
func (s *Service) Decrypt(ctx context.Context, caller Caller, in DecryptInput) (DecryptOutput, error) {
	header, sealed, malformed := ciphertext.Parse(in.CiphertextBlob)
	t := target{ref: in.KeyID, tokens: in.GrantTokens, context: in.EncryptionContext, says: saysSymmetric(in.EncryptionAlgorithm)}
	switch {
	case len(in.CiphertextBlob) == 0 || len(in.CiphertextBlob) > maxCiphertext:
		t.invalid = size("ciphertextBlob", in.CiphertextBlob, maxCiphertext)
	case malformed != nil && in.KeyID == "":
		t.invalid = fromBlob(malformed)
	case in.KeyID == "":
		t.blob = header.KeyID()
	}
	return do(ctx, s, caller, "Decrypt", t, func(ctx context.Context, c *call) (DecryptOutput, error) {
		if err := c.check(EncryptDecrypt, in.EncryptionAlgorithm, "encryptionAlgorithm", AlgorithmSymmetricDefault); err != nil {
			return DecryptOutput{}, err
		}
		if malformed != nil {
			return DecryptOutput{}, fromBlob(malformed)
		}
		if header.KeyID() != c.key.ID {
			return DecryptOutput{}, refuse(ErrIncorrectKey, "The key ID in the request does not identify a CMK that can perform this operation.")
		}
		m, err := s.materialOf(c.key, header)
		if err != nil {
			return DecryptOutput{}, err
		}
		aad, err := ciphertext.AAD(header, m.ID, in.EncryptionContext)
		if err != nil {
			return DecryptOutput{}, fromBlob(err)
		}
		if in.DryRun {
			return DecryptOutput{}, errDryRun
		}
		if err := s.prove(ctx, c.key, m); err != nil {
			return DecryptOutput{}, err
		}
		plaintext, err := s.token.DecryptGCM(ctx, m.Object, header.IV, aad, sealed)
		if errors.Is(err, hsm.ErrDataInvalid) {
			return DecryptOutput{}, fromBlob(err)
		}
		if err != nil {
			return DecryptOutput{}, s.tokenFailed(m, fmt.Errorf("decrypting: %w", err))
		}
		return DecryptOutput{
			Plaintext: plaintext, KeyID: c.key.arn,
			EncryptionAlgorithm: AlgorithmSymmetricDefault, KeyMaterialID: m.ID.String(),
		}, nil
	})
}

// materialOf finds the material that a ciphertext names. What this Region holds decrypts,
// pending or not. What the key lists and this Region lacks may still arrive, so the caller
// is told to repeat the call; material IDs are public, so that tells nobody anything.
func (s *Service) materialOf(k *Key, h ciphertext.Header) (*Material, error) {
	if m := k.byPrefix(h.Material); m != nil && !m.Lost {
		return m, nil
	} else if m != nil || s.mayArrive(k, h.Material) {
		return nil, refuse(ErrKeyUnavailable, "The key material that encrypted this is not in Region %s now; the call can be repeated.", s.self.Region)
	}
	return nil, fromBlob(fmt.Errorf("key %s has no material %x", k.ID, h.Material))
}

// GenerateDataKey makes random bytes in the token, and returns them in plain and encrypted.
func (s *Service) GenerateDataKey(ctx context.Context, caller Caller, in GenerateDataKeyInput) (GenerateDataKeyOutput, error) {
	t := target{ref: in.KeyID, tokens: in.GrantTokens, context: in.EncryptionContext, says: saysSymmetric("")}
	return do(ctx, s, caller, "GenerateDataKey", t, func(ctx context.Context, c *call) (GenerateDataKeyOutput, error) {
		if err := c.check(EncryptDecrypt, "", "", AlgorithmSymmetricDefault); err != nil {
			return GenerateDataKeyOutput{}, err
		}
		n, err := dataKeyBytes(in)
		if err != nil {
			return GenerateDataKeyOutput{}, err
		}
		plaintext := make([]byte, n)
		if !in.DryRun {
			if plaintext, err = s.random(ctx, n); err != nil {
				return GenerateDataKeyOutput{}, err
			}
		}
		blob, id, err := s.seal(ctx, c, plaintext, in.EncryptionContext, in.DryRun)
		if err != nil {
			clear(plaintext)
			return GenerateDataKeyOutput{}, err
		}
		return GenerateDataKeyOutput{CiphertextBlob: blob, Plaintext: plaintext, KeyID: c.key.arn, KeyMaterialID: id.String()}, nil
	})
}

func dataKeyBytes(in GenerateDataKeyInput) (int, error) {
	switch {
	case in.KeySpec != "" && in.NumberOfBytes != 0, in.KeySpec == "" && in.NumberOfBytes == 0:
		return 0, refuse(ErrValidation, "Please specify either number of bytes or key spec.")
	case in.KeySpec == DataKeyAES256:
		return 32, nil
	case in.KeySpec == DataKeyAES128:
		return 16, nil
	case in.KeySpec != "":
		return 0, invalid("keySpec", "satisfy enum value set: [AES_256, AES_128]")
	case in.NumberOfBytes < 1 || in.NumberOfBytes > maxRandom:
		return 0, invalid("numberOfBytes", "have value between 1 and %d", maxRandom)
	}
	return in.NumberOfBytes, nil
}

// GenerateRandom returns bytes of the token's random number generator.
func (s *Service) GenerateRandom(ctx context.Context, caller Caller, in GenerateRandomInput) (GenerateRandomOutput, error) {
	return do(ctx, s, caller, "GenerateRandom", target{}, func(ctx context.Context, c *call) (GenerateRandomOutput, error) {
		if in.NumberOfBytes == 0 {
			return GenerateRandomOutput{}, refuse(ErrValidation, "NumberOfBytes is required.")
		}
		if in.NumberOfBytes < 1 || in.NumberOfBytes > maxRandom {
			return GenerateRandomOutput{}, invalid("numberOfBytes", "have value between 1 and %d", maxRandom)
		}
		b, err := s.random(ctx, in.NumberOfBytes)
		return GenerateRandomOutput{Plaintext: b}, err
	})
}

func (s *Service) random(ctx context.Context, n int) ([]byte, error) {
	b, err := s.token.Random(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("generating random bytes: %w", err)
	}
	if len(b) != n {
		return nil, internal(fmt.Errorf("the token answered %d random bytes, want %d", len(b), n))
	}
	return b, nil
}

// size refuses a field that is empty or too long.
func size(field string, b []byte, limit int) error {
	switch {
	case len(b) == 0:
		return invalid(field, "have length greater than or equal to 1")
	case len(b) > limit:
		return invalid(field, "have length less than or equal to %d", limit)
	}
	return nil
}
