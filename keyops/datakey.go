package keyops

import (
	"context"
	"fmt"
)

// GenerateDataKey makes random bytes in the token, and returns them in plain and encrypted.
func (s *Service) GenerateDataKey(ctx context.Context, caller Caller, in GenerateDataKeyInput) (GenerateDataKeyOutput, error) {
	return s.dataKey(ctx, caller, "GenerateDataKey", in)
}

// GenerateDataKeyWithoutPlaintext makes random bytes in the token, and returns them
// encrypted only.
func (s *Service) GenerateDataKeyWithoutPlaintext(ctx context.Context, caller Caller, in GenerateDataKeyWithoutPlaintextInput) (GenerateDataKeyWithoutPlaintextOutput, error) {
	out, err := s.dataKey(ctx, caller, "GenerateDataKeyWithoutPlaintext", GenerateDataKeyInput(in))
	clear(out.Plaintext)
	return GenerateDataKeyWithoutPlaintextOutput{CiphertextBlob: out.CiphertextBlob, KeyID: out.KeyID, KeyMaterialID: out.KeyMaterialID}, err
}

func (s *Service) dataKey(ctx context.Context, caller Caller, name string, in GenerateDataKeyInput) (GenerateDataKeyOutput, error) {
	t := target{ref: in.KeyID, tokens: in.GrantTokens, context: in.EncryptionContext, says: saysEncrypting("")}
	return do(ctx, s, caller, name, t, func(ctx context.Context, c *call) (GenerateDataKeyOutput, error) {
		if err := c.check(EncryptDecrypt, "", "", AlgorithmSymmetricDefault); err != nil {
			return GenerateDataKeyOutput{}, err
		}
		n, err := dataKeyBytes(in.KeySpec, in.NumberOfBytes)
		if err != nil {
			return GenerateDataKeyOutput{}, err
		}
		plaintext := make([]byte, n)
		if !in.DryRun {
			if plaintext, err = s.random(ctx, n); err != nil {
				return GenerateDataKeyOutput{}, err
			}
		}
		blob, id, err := s.seal(ctx, c.key, plaintext, in.EncryptionContext, in.DryRun)
		if err != nil {
			clear(plaintext)
			return GenerateDataKeyOutput{}, err
		}
		return GenerateDataKeyOutput{CiphertextBlob: blob, Plaintext: plaintext, KeyID: c.key.arn, KeyMaterialID: id.String()}, nil
	})
}

func dataKeyBytes(spec DataKeySpec, n int) (int, error) {
	switch {
	case spec != "" && n != 0, spec == "" && n == 0:
		return 0, refuse(ErrValidation, "Please specify either number of bytes or key spec.")
	case spec == DataKeyAES256:
		return 32, nil
	case spec == DataKeyAES128:
		return 16, nil
	case spec != "":
		return 0, invalid("keySpec", "satisfy enum value set: [AES_256, AES_128]")
	case n < 1 || n > maxRandom:
		return 0, invalid("numberOfBytes", "have value between 1 and %d", maxRandom)
	}
	return n, nil
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
