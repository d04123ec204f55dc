package gateway

import (
	"context"

	"github.com/keyferry/keyferry/keyops"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (s *keyService) CreateGrant(ctx context.Context, r *kmsv1.CreateGrantRequest) (*kmsv1.CreateGrantResponse, error) {
	out, err := s.keys.CreateGrant(ctx, callerOf(ctx), keyops.CreateGrantInput{
		KeyID:             r.GetKeyId(),
		GranteePrincipal:  r.GetGranteePrincipal(),
		RetiringPrincipal: r.GetRetiringPrincipal(),
		Operations:        r.GetOperations(),
		Constraints: keyops.GrantConstraints{
			EncryptionContextSubset: r.GetConstraints().GetEncryptionContextSubset(),
			EncryptionContextEquals: r.GetConstraints().GetEncryptionContextEquals(),
		},
		GrantTokens: r.GetGrantTokens(),
		Name:        r.GetName(),
		DryRun:      r.GetDryRun(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.CreateGrantResponse{GrantId: out.GrantID, GrantToken: out.GrantToken}, nil
}

func (s *keyService) ListGrants(ctx context.Context, r *kmsv1.ListGrantsRequest) (*kmsv1.ListGrantsResponse, error) {
	out, err := s.keys.ListGrants(ctx, callerOf(ctx), keyops.ListGrantsInput{
		KeyID:            r.GetKeyId(),
		GrantID:          r.GetGrantId(),
		GranteePrincipal: r.GetGranteePrincipal(),
		Limit:            int(r.GetLimit()),
		Marker:           r.GetMarker(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.ListGrantsResponse{Grants: toGrants(out.Grants), NextMarker: out.NextMarker, Truncated: out.Truncated}, nil
}

func (s *keyService) ListRetirableGrants(ctx context.Context, r *kmsv1.ListRetirableGrantsRequest) (*kmsv1.ListRetirableGrantsResponse, error) {
	out, err := s.keys.ListRetirableGrants(ctx, callerOf(ctx), keyops.ListRetirableGrantsInput{
		RetiringPrincipal: r.GetRetiringPrincipal(), Limit: int(r.GetLimit()), Marker: r.GetMarker(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.ListRetirableGrantsResponse{Grants: toGrants(out.Grants), NextMarker: out.NextMarker, Truncated: out.Truncated}, nil
}

func (s *keyService) RetireGrant(ctx context.Context, r *kmsv1.RetireGrantRequest) (*kmsv1.RetireGrantResponse, error) {
	_, err := s.keys.RetireGrant(ctx, callerOf(ctx), keyops.RetireGrantInput{
		GrantToken: r.GetGrantToken(), KeyID: r.GetKeyId(), GrantID: r.GetGrantId(), DryRun: r.GetDryRun(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.RetireGrantResponse{}, nil
}

func (s *keyService) RevokeGrant(ctx context.Context, r *kmsv1.RevokeGrantRequest) (*kmsv1.RevokeGrantResponse, error) {
	_, err := s.keys.RevokeGrant(ctx, callerOf(ctx), keyops.RevokeGrantInput{
		KeyID: r.GetKeyId(), GrantID: r.GetGrantId(), DryRun: r.GetDryRun(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.RevokeGrantResponse{}, nil
}

func toGrants(grants []keyops.GrantListEntry) []*kmsv1.GrantListEntry {
	var out []*kmsv1.GrantListEntry
	for _, g := range grants {
		entry := &kmsv1.GrantListEntry{
			KeyId:             g.KeyID,
			GrantId:           g.GrantID,
			Name:              g.Name,
			CreationDate:      toTime(g.CreationDate),
			GranteePrincipal:  g.GranteePrincipal,
			RetiringPrincipal: g.RetiringPrincipal,
			IssuingAccount:    string(g.IssuingAccount),
			Operations:        g.Operations,
		}
		if c := g.Constraints; len(c.EncryptionContextSubset)+len(c.EncryptionContextEquals) > 0 {
			entry.Constraints = &kmsv1.GrantConstraints{
				EncryptionContextSubset: c.EncryptionContextSubset, EncryptionContextEquals: c.EncryptionContextEquals,
			}
		}
		out = append(out, entry)
	}
	return out
}
