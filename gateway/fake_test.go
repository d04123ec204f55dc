package gateway_test

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/policy"
)

const (
	keyID  = "mrk-0123456789abcdef0123456789abcdef"
	keyARN = "arn:aws:kms:eu-paris-1:111122223333:key/" + keyID
)

// taken is one call that reached the fake.
type taken struct {
	Operation string
	Caller    keyops.Caller
	Input     any
}

// fakeKeys takes the place of keyops: it records what reaches it, asserts what the gateway
// promises of every call, and fails as it is told.
type fakeKeys struct {
	keyops.Operations // nil: an operation that the fake does not have yet fails its test
	t                 *testing.T

	mu    sync.Mutex
	calls []taken                                           // guarded by mu
	fail  func(ctx context.Context, operation string) error // guarded by mu; nil: nothing fails
}

// failWith decides how the calls from now on end.
func (f *fakeKeys) failWith(fail func(ctx context.Context, operation string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

var _ keyops.Operations = (*fakeKeys)(nil)

func (f *fakeKeys) last() taken {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) == 0 {
		return taken{}
	}
	return f.calls[len(f.calls)-1]
}

func (f *fakeKeys) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

func (f *fakeKeys) take(ctx context.Context, operation string, c keyops.Caller, in any) error {
	if c.Principal.Name == "" || c.RequestID == "" || c.CorrelationID == "" || c.SourceIP == "" {
		f.t.Errorf("%s reached keys with an incomplete caller %+v", operation, c)
	}
	if _, ok := ctx.Deadline(); !ok {
		f.t.Errorf("%s reached keys without a deadline", operation)
	}
	f.mu.Lock()
	f.calls = append(f.calls, taken{operation, c, in})
	fail := f.fail
	f.mu.Unlock()
	if fail == nil {
		return nil
	}
	return fail(ctx, operation)
}

func (f *fakeKeys) metadata() keyops.KeyMetadata {
	return keyops.KeyMetadata{
		KeyID: keyID, ARN: keyARN, KeyState: "Enabled", Enabled: true, MultiRegion: true,
		KeySpec: keyops.SymmetricDefault, Exportability: keyops.ExportTransportOnly,
		MultiRegionConfiguration: &keyops.MultiRegionConfiguration{
			MultiRegionKeyType: keyops.Primary,
			PrimaryKey:         keyops.MultiRegionKey{ARN: keyARN, Region: "eu-paris-1"},
			ReplicaKeys:        []keyops.MultiRegionKey{{ARN: "arn:aws:kms:us-east-1:111122223333:key/" + keyID, Region: "us-east-1"}},
		},
	}
}

func (f *fakeKeys) CreateKey(ctx context.Context, c keyops.Caller, in keyops.CreateKeyInput) (keyops.CreateKeyOutput, error) {
	return keyops.CreateKeyOutput{KeyMetadata: f.metadata()}, f.take(ctx, "CreateKey", c, in)
}

func (f *fakeKeys) DescribeKey(ctx context.Context, c keyops.Caller, in keyops.DescribeKeyInput) (keyops.DescribeKeyOutput, error) {
	return keyops.DescribeKeyOutput{KeyMetadata: f.metadata()}, f.take(ctx, "DescribeKey", c, in)
}

func (f *fakeKeys) ListKeys(ctx context.Context, c keyops.Caller, in keyops.ListKeysInput) (keyops.ListKeysOutput, error) {
	return keyops.ListKeysOutput{Keys: []keyops.KeyListEntry{{KeyID: keyID, KeyARN: keyARN}}}, f.take(ctx, "ListKeys", c, in)
}

func (f *fakeKeys) EnableKey(ctx context.Context, c keyops.Caller, in keyops.EnableKeyInput) (keyops.EnableKeyOutput, error) {
	return keyops.EnableKeyOutput{}, f.take(ctx, "EnableKey", c, in)
}

func (f *fakeKeys) DisableKey(ctx context.Context, c keyops.Caller, in keyops.DisableKeyInput) (keyops.DisableKeyOutput, error) {
	return keyops.DisableKeyOutput{}, f.take(ctx, "DisableKey", c, in)
}

func (f *fakeKeys) GetKeyPolicy(ctx context.Context, c keyops.Caller, in keyops.GetKeyPolicyInput) (keyops.GetKeyPolicyOutput, error) {
	return keyops.GetKeyPolicyOutput{Policy: "{}", PolicyName: "default"}, f.take(ctx, "GetKeyPolicy", c, in)
}

func (f *fakeKeys) ReplicateKey(ctx context.Context, c keyops.Caller, in keyops.ReplicateKeyInput) (keyops.ReplicateKeyOutput, error) {
	return keyops.ReplicateKeyOutput{ReplicaKeyMetadata: f.metadata(), ReplicaTags: in.Tags}, f.take(ctx, "ReplicateKey", c, in)
}

func (f *fakeKeys) PutKeyPolicy(ctx context.Context, c keyops.Caller, in keyops.PutKeyPolicyInput) (keyops.PutKeyPolicyOutput, error) {
	return keyops.PutKeyPolicyOutput{}, f.take(ctx, "PutKeyPolicy", c, in)
}

func (f *fakeKeys) ListKeyPolicies(ctx context.Context, c keyops.Caller, in keyops.ListKeyPoliciesInput) (keyops.ListKeyPoliciesOutput, error) {
	return keyops.ListKeyPoliciesOutput{PolicyNames: []string{"default"}}, f.take(ctx, "ListKeyPolicies", c, in)
}

func (f *fakeKeys) ExplainAccess(ctx context.Context, c keyops.Caller, in keyops.ExplainAccessInput) (keyops.ExplainAccessOutput, error) {
	return keyops.ExplainAccessOutput{Allowed: true, Decisions: []keyops.AccessDecision{{Region: "eu-paris-1", Explanation: policy.Explanation{Action: in.Action, Allowed: true}}}}, f.take(ctx, "ExplainAccess", c, in)
}

func (f *fakeKeys) CreateGrant(ctx context.Context, c keyops.Caller, in keyops.CreateGrantInput) (keyops.CreateGrantOutput, error) {
	return keyops.CreateGrantOutput{GrantID: "1", GrantToken: "t"}, f.take(ctx, "CreateGrant", c, in)
}

func (f *fakeKeys) ListGrants(ctx context.Context, c keyops.Caller, in keyops.ListGrantsInput) (keyops.ListGrantsOutput, error) {
	return keyops.ListGrantsOutput{Grants: []keyops.GrantListEntry{{KeyID: keyARN, GrantID: "1", Constraints: keyops.GrantConstraints{EncryptionContextSubset: map[string]string{"env": "prod"}}}}}, f.take(ctx, "ListGrants", c, in)
}

func (f *fakeKeys) ListRetirableGrants(ctx context.Context, c keyops.Caller, in keyops.ListRetirableGrantsInput) (keyops.ListRetirableGrantsOutput, error) {
	return keyops.ListRetirableGrantsOutput{Grants: []keyops.GrantListEntry{{KeyID: keyARN, GrantID: "1", RetiringPrincipal: in.RetiringPrincipal}}}, f.take(ctx, "ListRetirableGrants", c, in)
}

func (f *fakeKeys) RetireGrant(ctx context.Context, c keyops.Caller, in keyops.RetireGrantInput) (keyops.RetireGrantOutput, error) {
	return keyops.RetireGrantOutput{}, f.take(ctx, "RetireGrant", c, in)
}

func (f *fakeKeys) RevokeGrant(ctx context.Context, c keyops.Caller, in keyops.RevokeGrantInput) (keyops.RevokeGrantOutput, error) {
	return keyops.RevokeGrantOutput{}, f.take(ctx, "RevokeGrant", c, in)
}

func (f *fakeKeys) TagResource(ctx context.Context, c keyops.Caller, in keyops.TagResourceInput) (keyops.TagResourceOutput, error) {
	return keyops.TagResourceOutput{}, f.take(ctx, "TagResource", c, in)
}

func (f *fakeKeys) UntagResource(ctx context.Context, c keyops.Caller, in keyops.UntagResourceInput) (keyops.UntagResourceOutput, error) {
	return keyops.UntagResourceOutput{}, f.take(ctx, "UntagResource", c, in)
}

func (f *fakeKeys) ListResourceTags(ctx context.Context, c keyops.Caller, in keyops.ListResourceTagsInput) (keyops.ListResourceTagsOutput, error) {
	return keyops.ListResourceTagsOutput{Tags: []keyops.Tag{{Key: "team", Value: "pay"}}}, f.take(ctx, "ListResourceTags", c, in)
}

func (f *fakeKeys) UpdateKeyDescription(ctx context.Context, c keyops.Caller, in keyops.UpdateKeyDescriptionInput) (keyops.UpdateKeyDescriptionOutput, error) {
	return keyops.UpdateKeyDescriptionOutput{}, f.take(ctx, "UpdateKeyDescription", c, in)
}

func (f *fakeKeys) CreateAlias(ctx context.Context, c keyops.Caller, in keyops.CreateAliasInput) (keyops.CreateAliasOutput, error) {
	return keyops.CreateAliasOutput{}, f.take(ctx, "CreateAlias", c, in)
}

func (f *fakeKeys) UpdateAlias(ctx context.Context, c keyops.Caller, in keyops.UpdateAliasInput) (keyops.UpdateAliasOutput, error) {
	return keyops.UpdateAliasOutput{}, f.take(ctx, "UpdateAlias", c, in)
}

func (f *fakeKeys) DeleteAlias(ctx context.Context, c keyops.Caller, in keyops.DeleteAliasInput) (keyops.DeleteAliasOutput, error) {
	return keyops.DeleteAliasOutput{}, f.take(ctx, "DeleteAlias", c, in)
}

func (f *fakeKeys) ListAliases(ctx context.Context, c keyops.Caller, in keyops.ListAliasesInput) (keyops.ListAliasesOutput, error) {
	return keyops.ListAliasesOutput{Aliases: []keyops.AliasListEntry{{AliasName: "alias/payroll", TargetKeyID: keyID}}}, f.take(ctx, "ListAliases", c, in)
}

// Encrypt and Decrypt are inverse, so that a test sees bytes survive both ways.
func (f *fakeKeys) Encrypt(ctx context.Context, c keyops.Caller, in keyops.EncryptInput) (keyops.EncryptOutput, error) {
	return keyops.EncryptOutput{CiphertextBlob: append([]byte("sealed:"), in.Plaintext...), KeyID: keyARN}, f.take(ctx, "Encrypt", c, in)
}

func (f *fakeKeys) Decrypt(ctx context.Context, c keyops.Caller, in keyops.DecryptInput) (keyops.DecryptOutput, error) {
	return keyops.DecryptOutput{Plaintext: bytes.TrimPrefix(in.CiphertextBlob, []byte("sealed:")), KeyID: keyARN}, f.take(ctx, "Decrypt", c, in)
}

func (f *fakeKeys) GenerateDataKey(ctx context.Context, c keyops.Caller, in keyops.GenerateDataKeyInput) (keyops.GenerateDataKeyOutput, error) {
	return keyops.GenerateDataKeyOutput{Plaintext: make([]byte, in.NumberOfBytes), KeyID: keyARN}, f.take(ctx, "GenerateDataKey", c, in)
}

func (f *fakeKeys) GenerateMac(ctx context.Context, c keyops.Caller, in keyops.GenerateMacInput) (keyops.GenerateMacOutput, error) {
	return keyops.GenerateMacOutput{Mac: []byte{1}, KeyID: keyARN, MacAlgorithm: in.MacAlgorithm}, f.take(ctx, "GenerateMac", c, in)
}

func (f *fakeKeys) VerifyMac(ctx context.Context, c keyops.Caller, in keyops.VerifyMacInput) (keyops.VerifyMacOutput, error) {
	return keyops.VerifyMacOutput{MacValid: true, KeyID: keyARN, MacAlgorithm: in.MacAlgorithm}, f.take(ctx, "VerifyMac", c, in)
}

func (f *fakeKeys) Sign(ctx context.Context, c keyops.Caller, in keyops.SignInput) (keyops.SignOutput, error) {
	return keyops.SignOutput{Signature: []byte{1}, KeyID: keyARN, SigningAlgorithm: in.SigningAlgorithm}, f.take(ctx, "Sign", c, in)
}

func (f *fakeKeys) Verify(ctx context.Context, c keyops.Caller, in keyops.VerifyInput) (keyops.VerifyOutput, error) {
	return keyops.VerifyOutput{SignatureValid: true, KeyID: keyARN, SigningAlgorithm: in.SigningAlgorithm}, f.take(ctx, "Verify", c, in)
}

func (f *fakeKeys) GetPublicKey(ctx context.Context, c keyops.Caller, in keyops.GetPublicKeyInput) (keyops.GetPublicKeyOutput, error) {
	return keyops.GetPublicKeyOutput{PublicKey: []byte{48}, KeyID: keyARN}, f.take(ctx, "GetPublicKey", c, in)
}

func (f *fakeKeys) GenerateRandom(ctx context.Context, c keyops.Caller, in keyops.GenerateRandomInput) (keyops.GenerateRandomOutput, error) {
	return keyops.GenerateRandomOutput{Plaintext: make([]byte, in.NumberOfBytes)}, f.take(ctx, "GenerateRandom", c, in)
}

func (f *fakeKeys) GetCallerIdentity(ctx context.Context, c keyops.Caller, in keyops.GetCallerIdentityInput) (keyops.GetCallerIdentityOutput, error) {
	return keyops.GetCallerIdentityOutput{ARN: c.Principal.String(), Account: c.Principal.Account}, f.take(ctx, "GetCallerIdentity", c, in)
}

func (f *fakeKeys) DescribeRegion(ctx context.Context, c keyops.Caller, in keyops.DescribeRegionInput) (keyops.DescribeRegionOutput, error) {
	return keyops.DescribeRegionOutput{Region: "eu-paris-1", Boundary: "api-only", KeyQuota: 100000}, f.take(ctx, "DescribeRegion", c, in)
}
