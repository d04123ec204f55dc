package gateway

import (
	"context"

	"github.com/keyferry/keyferry/keyops"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (s *keyService) GetKeyPolicy(ctx context.Context, r *kmsv1.GetKeyPolicyRequest) (*kmsv1.GetKeyPolicyResponse, error) {
	out, err := s.keys.GetKeyPolicy(ctx, callerOf(ctx), keyops.GetKeyPolicyInput{KeyID: r.GetKeyId(), PolicyName: r.GetPolicyName()})
	if err != nil {
		return nil, err
	}
	return &kmsv1.GetKeyPolicyResponse{Policy: out.Policy, PolicyName: out.PolicyName}, nil
}

func (s *keyService) PutKeyPolicy(ctx context.Context, r *kmsv1.PutKeyPolicyRequest) (*kmsv1.PutKeyPolicyResponse, error) {
	_, err := s.keys.PutKeyPolicy(ctx, callerOf(ctx), keyops.PutKeyPolicyInput{
		KeyID:                          r.GetKeyId(),
		PolicyName:                     r.GetPolicyName(),
		Policy:                         r.GetPolicy(),
		BypassPolicyLockoutSafetyCheck: r.GetBypassPolicyLockoutSafetyCheck(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.PutKeyPolicyResponse{}, nil
}

func (s *keyService) ListKeyPolicies(ctx context.Context, r *kmsv1.ListKeyPoliciesRequest) (*kmsv1.ListKeyPoliciesResponse, error) {
	out, err := s.keys.ListKeyPolicies(ctx, callerOf(ctx), keyops.ListKeyPoliciesInput{
		KeyID: r.GetKeyId(), Limit: int(r.GetLimit()), Marker: r.GetMarker(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.ListKeyPoliciesResponse{PolicyNames: out.PolicyNames}, nil
}

func (s *keyService) ExplainAccess(ctx context.Context, r *kmsv1.ExplainAccessRequest) (*kmsv1.ExplainAccessResponse, error) {
	var conditions map[string][]string
	for _, c := range r.GetConditions() {
		if conditions == nil {
			conditions = map[string][]string{}
		}
		conditions[c.GetKey()] = append(conditions[c.GetKey()], c.GetValues()...)
	}
	out, err := s.keys.ExplainAccess(ctx, callerOf(ctx), keyops.ExplainAccessInput{
		Principal:         r.GetPrincipal(),
		Action:            r.GetAction(),
		KeyID:             r.GetKeyId(),
		AliasName:         r.GetAliasName(),
		EncryptionContext: r.GetEncryptionContext(),
		ReplicaRegion:     r.GetReplicaRegion(),
		Conditions:        conditions,
		Policy:            r.GetPolicy(),
	})
	if err != nil {
		return nil, err
	}
	resp := &kmsv1.ExplainAccessResponse{Allowed: out.Allowed}
	for _, d := range out.Decisions {
		resp.Decisions = append(resp.Decisions, toDecision(d))
	}
	return resp, nil
}

func toDecision(d keyops.AccessDecision) *kmsv1.AccessDecision {
	out := &kmsv1.AccessDecision{
		Region:    string(d.Region),
		Principal: d.Principal,
		Action:    d.Action,
		Resource:  d.Resource,
		Allowed:   d.Allowed,
		Reason:    d.Reason,
		Statement: d.Statement,
		Advice:    d.Advice,
	}
	for _, c := range d.Considered {
		considered := &kmsv1.ConsideredStatement{Statement: c.Statement, Effect: string(c.Effect), Applies: c.Applies}
		for _, e := range c.Elements {
			considered.Elements = append(considered.Elements, &kmsv1.StatementElement{Name: e.Name, Matches: e.Matches, Why: e.Why})
		}
		out.Considered = append(out.Considered, considered)
	}
	return out
}
