package gateway

import (
	"context"

	"github.com/keyferry/keyferry/keyops"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (s *keyService) EnableKeyRotation(ctx context.Context, r *kmsv1.EnableKeyRotationRequest) (*kmsv1.EnableKeyRotationResponse, error) {
	_, err := s.keys.EnableKeyRotation(ctx, callerOf(ctx), keyops.EnableKeyRotationInput{
		KeyID: r.GetKeyId(), RotationPeriodInDays: int(r.GetRotationPeriodInDays()),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.EnableKeyRotationResponse{}, nil
}

func (s *keyService) DisableKeyRotation(ctx context.Context, r *kmsv1.DisableKeyRotationRequest) (*kmsv1.DisableKeyRotationResponse, error) {
	if _, err := s.keys.DisableKeyRotation(ctx, callerOf(ctx), keyops.DisableKeyRotationInput{KeyID: r.GetKeyId()}); err != nil {
		return nil, err
	}
	return &kmsv1.DisableKeyRotationResponse{}, nil
}

func (s *keyService) GetKeyRotationStatus(ctx context.Context, r *kmsv1.GetKeyRotationStatusRequest) (*kmsv1.GetKeyRotationStatusResponse, error) {
	out, err := s.keys.GetKeyRotationStatus(ctx, callerOf(ctx), keyops.GetKeyRotationStatusInput{KeyID: r.GetKeyId()})
	if err != nil {
		return nil, err
	}
	resp := &kmsv1.GetKeyRotationStatusResponse{
		KeyRotationEnabled:        out.KeyRotationEnabled,
		KeyId:                     out.KeyID,
		RotationPeriodInDays:      uint32(out.RotationPeriodInDays),
		NextRotationDate:          toTime(out.NextRotationDate),
		OnDemandRotationStartDate: toTime(out.OnDemandRotationStartDate),
		OnDemandRotationsLeft:     uint32(out.OnDemandRotationsLeft),
	}
	if p := out.Progress; p != nil {
		resp.Progress = &kmsv1.RotationProgress{
			KeyMaterialId:  p.KeyMaterialID,
			RotationType:   string(p.Type),
			StartedDate:    toTime(p.Started),
			HoldingRegions: p.Holding,
			AwaitedRegions: p.Awaited,
			OutRegions:     p.Out,
			Alone:          p.Alone,
		}
	}
	return resp, nil
}

func (s *keyService) RotateKeyOnDemand(ctx context.Context, r *kmsv1.RotateKeyOnDemandRequest) (*kmsv1.RotateKeyOnDemandResponse, error) {
	out, err := s.keys.RotateKeyOnDemand(ctx, callerOf(ctx), keyops.RotateKeyOnDemandInput{KeyID: r.GetKeyId(), AcceptAlone: r.GetAcceptAlone()})
	if err != nil {
		return nil, err
	}
	return &kmsv1.RotateKeyOnDemandResponse{KeyId: out.KeyID}, nil
}

func (s *keyService) ListKeyRotations(ctx context.Context, r *kmsv1.ListKeyRotationsRequest) (*kmsv1.ListKeyRotationsResponse, error) {
	out, err := s.keys.ListKeyRotations(ctx, callerOf(ctx), keyops.ListKeyRotationsInput{
		KeyID:              r.GetKeyId(),
		IncludeKeyMaterial: keyops.IncludeKeyMaterial(r.GetIncludeKeyMaterial()),
		Limit:              int(r.GetLimit()),
		Marker:             r.GetMarker(),
	})
	if err != nil {
		return nil, err
	}
	resp := &kmsv1.ListKeyRotationsResponse{NextMarker: out.NextMarker, Truncated: out.Truncated}
	for _, e := range out.Rotations {
		resp.Rotations = append(resp.Rotations, &kmsv1.RotationsListEntry{
			KeyId:                  e.KeyID,
			KeyMaterialId:          e.KeyMaterialID,
			KeyMaterialDescription: e.KeyMaterialDescription,
			ImportState:            string(e.ImportState),
			KeyMaterialState:       string(e.KeyMaterialState),
			ExpirationModel:        string(e.ExpirationModel),
			ValidTo:                toTime(e.ValidTo),
			RotationDate:           toTime(e.RotationDate),
			RotationType:           string(e.RotationType),
			Holders:                uint32(e.Holders),
			WrittenOff:             e.WrittenOff,
		})
	}
	return resp, nil
}
