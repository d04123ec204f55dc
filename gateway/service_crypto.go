package gateway

import (
	"context"

	"github.com/keyferry/keyferry/keyops"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// cryptoService answers CryptoService out of keyops.
type cryptoService struct {
	kmsv1.UnimplementedCryptoServiceServer
	keys keyops.Operations
}

func (s *cryptoService) Encrypt(ctx context.Context, r *kmsv1.EncryptRequest) (*kmsv1.EncryptResponse, error) {
	out, err := s.keys.Encrypt(ctx, callerOf(ctx), keyops.EncryptInput{
		KeyID:               r.GetKeyId(),
		Plaintext:           r.GetPlaintext(),
		EncryptionContext:   r.GetEncryptionContext(),
		EncryptionAlgorithm: keyops.Algorithm(r.GetEncryptionAlgorithm()),
		DryRun:              r.GetDryRun(),
		GrantTokens:         r.GetGrantTokens(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.EncryptResponse{
		CiphertextBlob:      out.CiphertextBlob,
		KeyId:               out.KeyID,
		EncryptionAlgorithm: string(out.EncryptionAlgorithm),
		KeyMaterialId:       out.KeyMaterialID,
	}, nil
}

func (s *cryptoService) Decrypt(ctx context.Context, r *kmsv1.DecryptRequest) (*kmsv1.DecryptResponse, error) {
	out, err := s.keys.Decrypt(ctx, callerOf(ctx), keyops.DecryptInput{
		CiphertextBlob:      r.GetCiphertextBlob(),
		EncryptionContext:   r.GetEncryptionContext(),
		KeyID:               r.GetKeyId(),
		EncryptionAlgorithm: keyops.Algorithm(r.GetEncryptionAlgorithm()),
		DryRun:              r.GetDryRun(),
		GrantTokens:         r.GetGrantTokens(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.DecryptResponse{
		Plaintext:           out.Plaintext,
		KeyId:               out.KeyID,
		EncryptionAlgorithm: string(out.EncryptionAlgorithm),
		KeyMaterialId:       out.KeyMaterialID,
	}, nil
}

func (s *cryptoService) ReEncrypt(ctx context.Context, r *kmsv1.ReEncryptRequest) (*kmsv1.ReEncryptResponse, error) {
	out, err := s.keys.ReEncrypt(ctx, callerOf(ctx), keyops.ReEncryptInput{
		CiphertextBlob:                 r.GetCiphertextBlob(),
		SourceKeyID:                    r.GetSourceKeyId(),
		SourceEncryptionContext:        r.GetSourceEncryptionContext(),
		SourceEncryptionAlgorithm:      keyops.Algorithm(r.GetSourceEncryptionAlgorithm()),
		DestinationKeyID:               r.GetDestinationKeyId(),
		DestinationEncryptionContext:   r.GetDestinationEncryptionContext(),
		DestinationEncryptionAlgorithm: keyops.Algorithm(r.GetDestinationEncryptionAlgorithm()),
		DryRun:                         r.GetDryRun(),
		GrantTokens:                    r.GetGrantTokens(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.ReEncryptResponse{
		CiphertextBlob:                 out.CiphertextBlob,
		SourceKeyId:                    out.SourceKeyID,
		KeyId:                          out.KeyID,
		SourceEncryptionAlgorithm:      string(out.SourceEncryptionAlgorithm),
		DestinationEncryptionAlgorithm: string(out.DestinationEncryptionAlgorithm),
		SourceKeyMaterialId:            out.SourceKeyMaterialID,
		DestinationKeyMaterialId:       out.DestinationKeyMaterialID,
	}, nil
}

func (s *cryptoService) GenerateMac(ctx context.Context, r *kmsv1.GenerateMacRequest) (*kmsv1.GenerateMacResponse, error) {
	out, err := s.keys.GenerateMac(ctx, callerOf(ctx), keyops.GenerateMacInput{
		KeyID:        r.GetKeyId(),
		Message:      r.GetMessage(),
		MacAlgorithm: keyops.Algorithm(r.GetMacAlgorithm()),
		DryRun:       r.GetDryRun(),
		GrantTokens:  r.GetGrantTokens(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.GenerateMacResponse{Mac: out.Mac, KeyId: out.KeyID, MacAlgorithm: string(out.MacAlgorithm)}, nil
}

func (s *cryptoService) VerifyMac(ctx context.Context, r *kmsv1.VerifyMacRequest) (*kmsv1.VerifyMacResponse, error) {
	out, err := s.keys.VerifyMac(ctx, callerOf(ctx), keyops.VerifyMacInput{
		KeyID:        r.GetKeyId(),
		Message:      r.GetMessage(),
		Mac:          r.GetMac(),
		MacAlgorithm: keyops.Algorithm(r.GetMacAlgorithm()),
		DryRun:       r.GetDryRun(),
		GrantTokens:  r.GetGrantTokens(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.VerifyMacResponse{MacValid: out.MacValid, KeyId: out.KeyID, MacAlgorithm: string(out.MacAlgorithm)}, nil
}

func (s *cryptoService) Sign(ctx context.Context, r *kmsv1.SignRequest) (*kmsv1.SignResponse, error) {
	out, err := s.keys.Sign(ctx, callerOf(ctx), keyops.SignInput{
		KeyID:            r.GetKeyId(),
		Message:          r.GetMessage(),
		MessageType:      keyops.MessageType(r.GetMessageType()),
		SigningAlgorithm: keyops.Algorithm(r.GetSigningAlgorithm()),
		DryRun:           r.GetDryRun(),
		GrantTokens:      r.GetGrantTokens(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.SignResponse{Signature: out.Signature, KeyId: out.KeyID, SigningAlgorithm: string(out.SigningAlgorithm)}, nil
}

func (s *cryptoService) Verify(ctx context.Context, r *kmsv1.VerifyRequest) (*kmsv1.VerifyResponse, error) {
	out, err := s.keys.Verify(ctx, callerOf(ctx), keyops.VerifyInput{
		KeyID:            r.GetKeyId(),
		Message:          r.GetMessage(),
		MessageType:      keyops.MessageType(r.GetMessageType()),
		Signature:        r.GetSignature(),
		SigningAlgorithm: keyops.Algorithm(r.GetSigningAlgorithm()),
		DryRun:           r.GetDryRun(),
		GrantTokens:      r.GetGrantTokens(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.VerifyResponse{SignatureValid: out.SignatureValid, KeyId: out.KeyID, SigningAlgorithm: string(out.SigningAlgorithm)}, nil
}

func (s *cryptoService) GetPublicKey(ctx context.Context, r *kmsv1.GetPublicKeyRequest) (*kmsv1.GetPublicKeyResponse, error) {
	out, err := s.keys.GetPublicKey(ctx, callerOf(ctx), keyops.GetPublicKeyInput{KeyID: r.GetKeyId(), GrantTokens: r.GetGrantTokens()})
	if err != nil {
		return nil, err
	}
	return &kmsv1.GetPublicKeyResponse{
		PublicKey:              out.PublicKey,
		KeyId:                  out.KeyID,
		KeySpec:                string(out.KeySpec),
		KeyUsage:               string(out.KeyUsage),
		SigningAlgorithms:      toStrings(out.SigningAlgorithms),
		EncryptionAlgorithms:   toStrings(out.EncryptionAlgorithms),
		KeyAgreementAlgorithms: toStrings(out.KeyAgreementAlgorithms),
	}, nil
}

func (s *cryptoService) DeriveSharedSecret(ctx context.Context, r *kmsv1.DeriveSharedSecretRequest) (*kmsv1.DeriveSharedSecretResponse, error) {
	out, err := s.keys.DeriveSharedSecret(ctx, callerOf(ctx), keyops.DeriveSharedSecretInput{
		KeyID:                 r.GetKeyId(),
		KeyAgreementAlgorithm: keyops.Algorithm(r.GetKeyAgreementAlgorithm()),
		PublicKey:             r.GetPublicKey(),
		DryRun:                r.GetDryRun(),
		GrantTokens:           r.GetGrantTokens(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.DeriveSharedSecretResponse{
		SharedSecret:          out.SharedSecret,
		KeyId:                 out.KeyID,
		KeyAgreementAlgorithm: string(out.KeyAgreementAlgorithm),
		KeyOrigin:             string(out.KeyOrigin),
	}, nil
}

func (s *cryptoService) GenerateRandom(ctx context.Context, r *kmsv1.GenerateRandomRequest) (*kmsv1.GenerateRandomResponse, error) {
	out, err := s.keys.GenerateRandom(ctx, callerOf(ctx), keyops.GenerateRandomInput{NumberOfBytes: int(r.GetNumberOfBytes())})
	if err != nil {
		return nil, err
	}
	return &kmsv1.GenerateRandomResponse{Plaintext: out.Plaintext}, nil
}
