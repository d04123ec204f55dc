package keyops

import (
	"time"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/region"
)

// GetKeyPolicyInput names a key by key ID or key ARN.
type GetKeyPolicyInput struct {
	KeyID      string
	PolicyName string // default, the only one there is
}

// GetKeyPolicyOutput is the key policy as it was written.
type GetKeyPolicyOutput struct {
	Policy     string
	PolicyName string
}

// PutKeyPolicyInput is a key's new policy.
type PutKeyPolicyInput struct {
	KeyID                          string // key ID or key ARN
	PolicyName                     string // default, the only one there is
	Policy                         string // at most 32 KiB
	BypassPolicyLockoutSafetyCheck bool
}

// PutKeyPolicyOutput is empty.
type PutKeyPolicyOutput struct{}

// ListKeyPoliciesInput names a key by key ID or key ARN.
type ListKeyPoliciesInput struct {
	KeyID  string
	Limit  int // 1 to 1000; 0 = 100
	Marker string
}

// ListKeyPoliciesOutput is always one name: default.
type ListKeyPoliciesOutput struct{ PolicyNames []string }

// GrantConstraints bind the operations of a grant that have an encryption context. At most
// one of the two is set.
type GrantConstraints struct {
	EncryptionContextSubset map[string]string // the context has all of these pairs
	EncryptionContextEquals map[string]string // the context is these pairs
}

// CreateGrantInput says whom to allow what on a key.
type CreateGrantInput struct {
	KeyID             string   // key ID or key ARN
	GranteePrincipal  string   // ARN
	RetiringPrincipal string   // ARN, or empty
	Operations        []string // such as Decrypt; see policy.GrantableOperations
	Constraints       GrantConstraints
	GrantTokens       []string
	Name              string // a request like that of an existing grant, name and all, returns that grant
	DryRun            bool
}

// CreateGrantOutput names the grant.
type CreateGrantOutput struct {
	GrantID    string // 64 hexadecimal digits
	GrantToken string // no secret; names the grant, to its grantee's and retiring principal's calls
}

// ListGrantsInput asks for a page of a key's grants.
type ListGrantsInput struct {
	KeyID            string // key ID or key ARN
	GrantID          string // optional: this one only
	GranteePrincipal string // optional: those to this principal only
	Limit            int    // 1 to 100; 0 = 50
	Marker           string
}

// GrantListEntry is one grant of a list.
type GrantListEntry struct {
	KeyID             string // ARN of the key
	GrantID           string
	Name              string
	CreationDate      time.Time
	GranteePrincipal  string
	RetiringPrincipal string
	IssuingAccount    arn.Account
	Operations        []string
	Constraints       GrantConstraints
}

// ListGrantsOutput is a page of grants, ordered by grant ID.
type ListGrantsOutput struct {
	Grants     []GrantListEntry
	NextMarker string
	Truncated  bool
}

// ListRetirableGrantsInput asks for a page of the grants that a principal may retire.
type ListRetirableGrantsInput struct {
	RetiringPrincipal string // ARN, of the caller's account
	Limit             int    // 1 to 100; 0 = 50
	Marker            string
}

// ListRetirableGrantsOutput is a page of grants, ordered by key ID and grant ID.
type ListRetirableGrantsOutput struct {
	Grants     []GrantListEntry
	NextMarker string
	Truncated  bool
}

// RetireGrantInput names a grant by its token, or by key and grant ID.
type RetireGrantInput struct {
	GrantToken string
	KeyID      string // key ID or key ARN
	GrantID    string
	DryRun     bool
}

// RetireGrantOutput is empty.
type RetireGrantOutput struct{}

// RevokeGrantInput names a grant.
type RevokeGrantInput struct {
	KeyID   string // key ID or key ARN
	GrantID string
	DryRun  bool
}

// RevokeGrantOutput is empty.
type RevokeGrantOutput struct{}

// TagResourceInput is tags for a key, which has at most 50 afterwards.
type TagResourceInput struct {
	KeyID string // key ID or key ARN
	Tags  []Tag
}

// TagResourceOutput is empty.
type TagResourceOutput struct{}

// UntagResourceInput names tags of a key. Those that it does not have are no error.
type UntagResourceInput struct {
	KeyID   string // key ID or key ARN
	TagKeys []string
}

// UntagResourceOutput is empty.
type UntagResourceOutput struct{}

// ListResourceTagsInput asks for a page of a key's tags.
type ListResourceTagsInput struct {
	KeyID  string // key ID or key ARN
	Limit  int    // 1 to 50; 0 = 50
	Marker string
}

// ListResourceTagsOutput is a page of tags, ordered by name.
type ListResourceTagsOutput struct {
	Tags       []Tag
	NextMarker string
	Truncated  bool
}

// UpdateKeyDescriptionInput is a key's new description.
type UpdateKeyDescriptionInput struct {
	KeyID       string // key ID or key ARN
	Description string // at most 8192 characters
}

// UpdateKeyDescriptionOutput is empty.
type UpdateKeyDescriptionOutput struct{}

// ExplainAccessInput is one question: may this principal take this action?
type ExplainAccessInput struct {
	Principal         string // ARN; default: the caller
	Action            string // such as kms:Decrypt
	KeyID             string // key ID, key ARN, alias name or alias ARN; for actions on a key
	AliasName         string // for actions on an alias
	EncryptionContext map[string]string
	ReplicaRegion     string              // for kms:ReplicateKey
	Conditions        map[string][]string // other condition keys that the request would have
	Policy            string              // decide as if this were the key policy
}

// ExplainAccessOutput is the answer.
type ExplainAccessOutput struct {
	Allowed   bool // by every decision
	Decisions []AccessDecision
}

// AccessDecision is one decision of those that a call needs.
type AccessDecision struct {
	Region             region.Name // that decides
	policy.Explanation             // Allowed alone, if the caller may not know more
}
