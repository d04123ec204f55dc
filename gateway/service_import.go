package gateway

import (
	"context"

	"github.com/keyferry/keyferry/keyops"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (s *keyService) GetParametersForImport(ctx context.Context, r *kmsv1.GetParametersForImportRequest) (*kmsv1.GetParametersForImportResponse, error) {
	out, err := s.keys.GetParametersForImport(ctx, callerOf(ctx), keyops.GetParametersForImportInput{
		KeyID:             r.GetKeyId(),
		WrappingAlgorithm: keyops.WrappingAlgorithm(r.GetWrappingAlgorithm()),
		WrappingKeySpec:   keyops.WrappingKeySpec(r.GetWrappingKeySpec()),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.GetParametersForImportResponse{
		KeyId:             out.KeyID,
		ImportToken:       out.ImportToken,
		PublicKey:         out.PublicKey,
		ParametersValidTo: toTime(out.ParametersValidTo),
	}, nil
}

func (s *keyService) ImportKeyMaterial(ctx context.Context, r *kmsv1.ImportKeyMaterialRequest) (*kmsv1.ImportKeyMaterialResponse, error) {
	validTo, err := fromTime(r.GetValidTo(), "validTo")
	if err != nil {
		return nil, err
	}
	out, err := s.keys.ImportKeyMaterial(ctx, callerOf(ctx), keyops.ImportKeyMaterialInput{
		KeyID:                  r.GetKeyId(),
		ImportToken:            r.GetImportToken(),
		EncryptedKeyMaterial:   r.GetEncryptedKeyMaterial(),
		ValidTo:                validTo,
		ExpirationModel:        keyops.ExpirationModel(r.GetExpirationModel()),
		ImportType:             keyops.ImportType(r.GetImportType()),
		KeyMaterialDescription: r.GetKeyMaterialDescription(),
		KeyMaterialID:          r.GetKeyMaterialId(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.ImportKeyMaterialResponse{KeyId: out.KeyID, KeyMaterialId: out.KeyMaterialID}, nil
}

func (s *keyService) DeleteImportedKeyMaterial(ctx context.Context, r *kmsv1.DeleteImportedKeyMaterialRequest) (*kmsv1.DeleteImportedKeyMaterialResponse, error) {
	out, err := s.keys.DeleteImportedKeyMaterial(ctx, callerOf(ctx), keyops.DeleteImportedKeyMaterialInput{
		KeyID: r.GetKeyId(), KeyMaterialID: r.GetKeyMaterialId(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.DeleteImportedKeyMaterialResponse{KeyId: out.KeyID, KeyMaterialId: out.KeyMaterialID}, nil
}
