package keyops

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"

	"github.com/keyferry/keyferry/keyops/policy"
)

// policyName is the name of the one policy that a key has.
const policyName = "default"

func checkPolicyName(name string) error {
	if name != "" && name != policyName {
		return refuse(ErrNotFound, "No such policy exists")
	}
	return nil
}

// GetKeyPolicy returns the key policy, byte for byte as it was written.
func (s *Service) GetKeyPolicy(ctx context.Context, caller Caller, in GetKeyPolicyInput) (GetKeyPolicyOutput, error) {
	return do(ctx, s, caller, "GetKeyPolicy", target{ref: in.KeyID}, func(_ context.Context, c *call) (GetKeyPolicyOutput, error) {
		if err := checkPolicyName(in.PolicyName); err != nil {
			return GetKeyPolicyOutput{}, err
		}
		return GetKeyPolicyOutput{Policy: string(c.key.Policy), PolicyName: policyName}, nil
	})
}

// ListKeyPolicies returns the name of the one policy that a key has.
func (s *Service) ListKeyPolicies(ctx context.Context, caller Caller, in ListKeyPoliciesInput) (ListKeyPoliciesOutput, error) {
	return do(ctx, s, caller, "ListKeyPolicies", target{ref: in.KeyID}, func(_ context.Context, c *call) (ListKeyPoliciesOutput, error) {
		if _, err := limit(in.Limit, 100, 1000); err != nil {
			return ListKeyPoliciesOutput{}, err
		}
		if in.Marker != "" {
			return ListKeyPoliciesOutput{}, refuse(ErrInvalidMarker, "The marker is not one that %s returned.", c.name)
		}
		return ListKeyPoliciesOutput{PolicyNames: []string{policyName}}, nil
	})
}

// PutKeyPolicy replaces the key policy in this Region. It decides from the moment that this
// returns.
func (s *Service) PutKeyPolicy(ctx context.Context, caller Caller, in PutKeyPolicyInput) (PutKeyPolicyOutput, error) {
	sum := sha256.Sum256([]byte(in.Policy))
	t := target{
		ref: in.KeyID, says: []say{bypass(in.BypassPolicyLockoutSafetyCheck)},
		details: map[string]string{"policySha256": hex.EncodeToString(sum[:])},
	}
	return do(ctx, s, caller, "PutKeyPolicy", t, func(ctx context.Context, c *call) (PutKeyPolicyOutput, error) {
		if err := checkPolicyName(in.PolicyName); err != nil {
			return PutKeyPolicyOutput{}, err
		}
		document := []byte(in.Policy)
		parsed, err := parsePolicy(document)
		if err != nil {
			return PutKeyPolicyOutput{}, err
		}
		_, err = s.change(ctx, c.key.ID, func(k *Key) error {
			if err := s.still(c, k); err != nil {
				return err
			}
			if bytes.Equal(k.Policy, document) {
				return ErrUnchanged
			}
			if !in.BypassPolicyLockoutSafetyCheck {
				if err := s.safeToPut(&c.asker, parsed, k.arn, k); err != nil {
					return err
				}
			}
			k.Policy = document
			return nil
		}, nil)
		return PutKeyPolicyOutput{}, err
	})
}

// parsePolicy reads a key policy that a caller gives.
func parsePolicy(document []byte) (*policy.Policy, error) {
	if len(document) == 0 {
		return nil, invalid("policy", "have length greater than or equal to 1")
	}
	if len(document) > maxPolicy {
		return nil, refuse(ErrLimitExceeded, "The key policy is %d bytes long, at most %d are allowed.", len(document), maxPolicy)
	}
	parsed, err := policy.Parse(document, policy.KeyPolicy)
	if err != nil {
		return nil, &Error{Reason: ErrMalformedPolicyDocument, Message: err.Error(), cause: err}
	}
	return parsed, nil
}

// safeToPut refuses a policy by which the asker could not change the policy again. key is nil
// while it is being created.
func (s *Service) safeToPut(a *asker, document *policy.Policy, resource string, key *Key) error {
	err := policy.SafeToPut(document, policy.Request{
		Principal: a.arn, Resource: resource, Context: s.values(a, key),
	}, s.identities().For(a.arn))
	if err != nil {
		return &Error{Reason: ErrMalformedPolicyDocument, Message: "The new key policy will not allow you to update the key policy in the future.", cause: err}
	}
	return nil
}
