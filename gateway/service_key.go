package gateway

import (
	"context"

	"github.com/keyferry/keyferry/keyops"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// keyService answers KeyService out of keyops.
type keyService struct {
	kmsv1.UnimplementedKeyServiceServer
	keys        keyops.Operations
	replication Replication
}

func (s *keyService) CreateKey(ctx context.Context, r *kmsv1.CreateKeyRequest) (*kmsv1.CreateKeyResponse, error) {
	out, err := s.keys.CreateKey(ctx, callerOf(ctx), keyops.CreateKeyInput{
		Description:                    r.GetDescription(),
		KeySpec:                        keyops.KeySpec(r.GetKeySpec()),
		KeyUsage:                       keyops.KeyUsage(r.GetKeyUsage()),
		Origin:                         keyops.Origin(r.GetOrigin()),
		Policy:                         r.GetPolicy(),
		BypassPolicyLockoutSafetyCheck: r.GetBypassPolicyLockoutSafetyCheck(),
		Tags:                           fromTags(r.GetTags()),
		MultiRegion:                    r.GetMultiRegion(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.CreateKeyResponse{KeyMetadata: toMetadata(out.KeyMetadata), Warnings: out.Warnings}, nil
}

func (s *keyService) DescribeKey(ctx context.Context, r *kmsv1.DescribeKeyRequest) (*kmsv1.DescribeKeyResponse, error) {
	out, err := s.keys.DescribeKey(ctx, callerOf(ctx), keyops.DescribeKeyInput{KeyID: r.GetKeyId(), GrantTokens: r.GetGrantTokens()})
	if err != nil {
		return nil, err
	}
	metadata := toMetadata(out.KeyMetadata)
	s.synchronized(out.KeyMetadata, metadata.GetMultiRegionConfiguration())
	return &kmsv1.DescribeKeyResponse{KeyMetadata: metadata}, nil
}

func (s *keyService) ListKeys(ctx context.Context, r *kmsv1.ListKeysRequest) (*kmsv1.ListKeysResponse, error) {
	out, err := s.keys.ListKeys(ctx, callerOf(ctx), keyops.ListKeysInput{Limit: int(r.GetLimit()), Marker: r.GetMarker()})
	if err != nil {
		return nil, err
	}
	resp := &kmsv1.ListKeysResponse{NextMarker: out.NextMarker, Truncated: out.Truncated}
	for _, k := range out.Keys {
		resp.Keys = append(resp.Keys, &kmsv1.KeyListEntry{KeyId: string(k.KeyID), KeyArn: k.KeyARN})
	}
	return resp, nil
}

func (s *keyService) EnableKey(ctx context.Context, r *kmsv1.EnableKeyRequest) (*kmsv1.EnableKeyResponse, error) {
	if _, err := s.keys.EnableKey(ctx, callerOf(ctx), keyops.EnableKeyInput{KeyID: r.GetKeyId()}); err != nil {
		return nil, err
	}
	return &kmsv1.EnableKeyResponse{}, nil
}

func (s *keyService) DisableKey(ctx context.Context, r *kmsv1.DisableKeyRequest) (*kmsv1.DisableKeyResponse, error) {
	if _, err := s.keys.DisableKey(ctx, callerOf(ctx), keyops.DisableKeyInput{KeyID: r.GetKeyId()}); err != nil {
		return nil, err
	}
	return &kmsv1.DisableKeyResponse{}, nil
}

func (s *keyService) ReplicateKey(ctx context.Context, r *kmsv1.ReplicateKeyRequest) (*kmsv1.ReplicateKeyResponse, error) {
	out, err := s.keys.ReplicateKey(ctx, callerOf(ctx), keyops.ReplicateKeyInput{
		KeyID:                          r.GetKeyId(),
		ReplicaRegion:                  r.GetReplicaRegion(),
		Policy:                         r.GetPolicy(),
		BypassPolicyLockoutSafetyCheck: r.GetBypassPolicyLockoutSafetyCheck(),
		Description:                    r.GetDescription(),
		Tags:                           fromTags(r.GetTags()),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.ReplicateKeyResponse{
		ReplicaKeyMetadata: toMetadata(out.ReplicaKeyMetadata),
		ReplicaPolicy:      out.ReplicaPolicy,
		ReplicaTags:        toTags(out.ReplicaTags),
	}, nil
}

func (s *keyService) UpdatePrimaryRegion(ctx context.Context, r *kmsv1.UpdatePrimaryRegionRequest) (*kmsv1.UpdatePrimaryRegionResponse, error) {
	_, err := s.keys.UpdatePrimaryRegion(ctx, callerOf(ctx), keyops.UpdatePrimaryRegionInput{
		KeyID: r.GetKeyId(), PrimaryRegion: r.GetPrimaryRegion(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.UpdatePrimaryRegionResponse{}, nil
}

func (s *keyService) CreateAlias(ctx context.Context, r *kmsv1.CreateAliasRequest) (*kmsv1.CreateAliasResponse, error) {
	_, err := s.keys.CreateAlias(ctx, callerOf(ctx), keyops.CreateAliasInput{AliasName: r.GetAliasName(), TargetKeyID: r.GetTargetKeyId()})
	if err != nil {
		return nil, err
	}
	return &kmsv1.CreateAliasResponse{}, nil
}

func (s *keyService) UpdateAlias(ctx context.Context, r *kmsv1.UpdateAliasRequest) (*kmsv1.UpdateAliasResponse, error) {
	_, err := s.keys.UpdateAlias(ctx, callerOf(ctx), keyops.UpdateAliasInput{AliasName: r.GetAliasName(), TargetKeyID: r.GetTargetKeyId()})
	if err != nil {
		return nil, err
	}
	return &kmsv1.UpdateAliasResponse{}, nil
}

func (s *keyService) DeleteAlias(ctx context.Context, r *kmsv1.DeleteAliasRequest) (*kmsv1.DeleteAliasResponse, error) {
	if _, err := s.keys.DeleteAlias(ctx, callerOf(ctx), keyops.DeleteAliasInput{AliasName: r.GetAliasName()}); err != nil {
		return nil, err
	}
	return &kmsv1.DeleteAliasResponse{}, nil
}

func (s *keyService) ListAliases(ctx context.Context, r *kmsv1.ListAliasesRequest) (*kmsv1.ListAliasesResponse, error) {
	out, err := s.keys.ListAliases(ctx, callerOf(ctx), keyops.ListAliasesInput{
		KeyID: r.GetKeyId(), Limit: int(r.GetLimit()), Marker: r.GetMarker(),
	})
	if err != nil {
		return nil, err
	}
	resp := &kmsv1.ListAliasesResponse{NextMarker: out.NextMarker, Truncated: out.Truncated}
	for _, a := range out.Aliases {
		resp.Aliases = append(resp.Aliases, &kmsv1.AliasListEntry{
			AliasName:       a.AliasName,
			AliasArn:        a.AliasARN,
			TargetKeyId:     string(a.TargetKeyID),
			CreationDate:    toTime(a.CreationDate),
			LastUpdatedDate: toTime(a.LastUpdatedDate),
		})
	}
	return resp, nil
}
