package gateway

import (
	"context"

	"github.com/keyferry/keyferry/keyops"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (s *cryptoService) GenerateDataKey(ctx context.Context, r *kmsv1.GenerateDataKeyRequest) (*kmsv1.GenerateDataKeyResponse, error) {
	out, err := s.keys.GenerateDataKey(ctx, callerOf(ctx), keyops.GenerateDataKeyInput{
		KeyID:             r.GetKeyId(),
		KeySpec:           keyops.DataKeySpec(r.GetKeySpec()),
		NumberOfBytes:     int(r.GetNumberOfBytes()),
		EncryptionContext: r.GetEncryptionContext(),
		DryRun:            r.GetDryRun(),
		GrantTokens:       r.GetGrantTokens(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.GenerateDataKeyResponse{
		CiphertextBlob: out.CiphertextBlob,
		Plaintext:      out.Plaintext,
		KeyId:          out.KeyID,
		KeyMaterialId:  out.KeyMaterialID,
	}, nil
}

func (s *cryptoService) GenerateDataKeyWithoutPlaintext(ctx context.Context, r *kmsv1.GenerateDataKeyWithoutPlaintextRequest) (*kmsv1.GenerateDataKeyWithoutPlaintextResponse, error) {
	out, err := s.keys.GenerateDataKeyWithoutPlaintext(ctx, callerOf(ctx), keyops.GenerateDataKeyWithoutPlaintextInput{
		KeyID:             r.GetKeyId(),
		KeySpec:           keyops.DataKeySpec(r.GetKeySpec()),
		NumberOfBytes:     int(r.GetNumberOfBytes()),
		EncryptionContext: r.GetEncryptionContext(),
		DryRun:            r.GetDryRun(),
		GrantTokens:       r.GetGrantTokens(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.GenerateDataKeyWithoutPlaintextResponse{
		CiphertextBlob: out.CiphertextBlob,
		KeyId:          out.KeyID,
		KeyMaterialId:  out.KeyMaterialID,
	}, nil
}

func (s *cryptoService) GenerateDataKeyPair(ctx context.Context, r *kmsv1.GenerateDataKeyPairRequest) (*kmsv1.GenerateDataKeyPairResponse, error) {
	out, err := s.keys.GenerateDataKeyPair(ctx, callerOf(ctx), keyops.GenerateDataKeyPairInput{
		KeyID:             r.GetKeyId(),
		KeyPairSpec:       keyops.DataKeyPairSpec(r.GetKeyPairSpec()),
		EncryptionContext: r.GetEncryptionContext(),
		DryRun:            r.GetDryRun(),
		GrantTokens:       r.GetGrantTokens(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.GenerateDataKeyPairResponse{
		PrivateKeyCiphertextBlob: out.PrivateKeyCiphertextBlob,
		PrivateKeyPlaintext:      out.PrivateKeyPlaintext,
		PublicKey:                out.PublicKey,
		KeyId:                    out.KeyID,
		KeyPairSpec:              string(out.KeyPairSpec),
		KeyMaterialId:            out.KeyMaterialID,
	}, nil
}

func (s *cryptoService) GenerateDataKeyPairWithoutPlaintext(ctx context.Context, r *kmsv1.GenerateDataKeyPairWithoutPlaintextRequest) (*kmsv1.GenerateDataKeyPairWithoutPlaintextResponse, error) {
	out, err := s.keys.GenerateDataKeyPairWithoutPlaintext(ctx, callerOf(ctx), keyops.GenerateDataKeyPairWithoutPlaintextInput{
		KeyID:             r.GetKeyId(),
		KeyPairSpec:       keyops.DataKeyPairSpec(r.GetKeyPairSpec()),
		EncryptionContext: r.GetEncryptionContext(),
		DryRun:            r.GetDryRun(),
		GrantTokens:       r.GetGrantTokens(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.GenerateDataKeyPairWithoutPlaintextResponse{
		PrivateKeyCiphertextBlob: out.PrivateKeyCiphertextBlob,
		PublicKey:                out.PublicKey,
		KeyId:                    out.KeyID,
		KeyPairSpec:              string(out.KeyPairSpec),
		KeyMaterialId:            out.KeyMaterialID,
	}, nil
}
