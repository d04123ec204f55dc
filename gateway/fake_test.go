package gateway_test

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

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

	change func(out any) // changes answers, which it gets pointers to; nil: none
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

// reply takes a call and answers it.
func reply[Output any](ctx context.Context, f *fakeKeys, operation string, c keyops.Caller, in any, out Output) (Output, error) {
	err := f.take(ctx, operation, c, in)
	if f.change != nil {
		f.change(&out)
	}
	return out, err
}

func (f *fakeKeys) metadata() keyops.KeyMetadata {
	return keyops.KeyMetadata{
		KeyID: keyID, ARN: keyARN, KeyState: "Enabled", Enabled: true, MultiRegion: true,
		KeySpec: keyops.SymmetricDefault, Exportability: keyops.ExportTransportOnly,
		MultiRegionConfiguration: &keyops.MultiRegionConfiguration{
			MultiRegionKeyType: keyops.Primary,
			PrimaryKey:         keyops.MultiRegionKey{ARN: keyARN, Region: "eu-paris-1", Member: "ACTIVE"},
			ReplicaKeys: []keyops.MultiRegionKey{{
				ARN: "arn:aws:kms:us-east-1:111122223333:key/" + keyID, Region: "us-east-1", Member: "REJOINING",
				DeletionDate: time.Date(2026, 1, 9, 0, 0, 0, 0, time.UTC),
			}},
		},
	}
}

func (f *fakeKeys) CreateKey(ctx context.Context, c keyops.Caller, in keyops.CreateKeyInput) (keyops.CreateKeyOutput, error) {
	return reply(ctx, f, "CreateKey", c, in, keyops.CreateKeyOutput{KeyMetadata: f.metadata()})
}

func (f *fakeKeys) DescribeKey(ctx context.Context, c keyops.Caller, in keyops.DescribeKeyInput) (keyops.DescribeKeyOutput, error) {
	return reply(ctx, f, "DescribeKey", c, in, keyops.DescribeKeyOutput{KeyMetadata: f.metadata()})
}

func (f *fakeKeys) ListKeys(ctx context.Context, c keyops.Caller, in keyops.ListKeysInput) (keyops.ListKeysOutput, error) {
	return reply(ctx, f, "ListKeys", c, in, keyops.ListKeysOutput{Keys: []keyops.KeyListEntry{{KeyID: keyID, KeyARN: keyARN}}})
}

func (f *fakeKeys) EnableKey(ctx context.Context, c keyops.Caller, in keyops.EnableKeyInput) (keyops.EnableKeyOutput, error) {
	return reply(ctx, f, "EnableKey", c, in, keyops.EnableKeyOutput{})
}

func (f *fakeKeys) DisableKey(ctx context.Context, c keyops.Caller, in keyops.DisableKeyInput) (keyops.DisableKeyOutput, error) {
	return reply(ctx, f, "DisableKey", c, in, keyops.DisableKeyOutput{})
}

func (f *fakeKeys) GetKeyPolicy(ctx context.Context, c keyops.Caller, in keyops.GetKeyPolicyInput) (keyops.GetKeyPolicyOutput, error) {
	return reply(ctx, f, "GetKeyPolicy", c, in, keyops.GetKeyPolicyOutput{Policy: "{}", PolicyName: "default"})
}

func (f *fakeKeys) ScheduleKeyDeletion(ctx context.Context, c keyops.Caller, in keyops.ScheduleKeyDeletionInput) (keyops.ScheduleKeyDeletionOutput, error) {
	return reply(ctx, f, "ScheduleKeyDeletion", c, in, keyops.ScheduleKeyDeletionOutput{KeyID: keyARN})
}

func (f *fakeKeys) CancelKeyDeletion(ctx context.Context, c keyops.Caller, in keyops.CancelKeyDeletionInput) (keyops.CancelKeyDeletionOutput, error) {
	return reply(ctx, f, "CancelKeyDeletion", c, in, keyops.CancelKeyDeletionOutput{KeyID: keyARN})
}

func (f *fakeKeys) GetKeyLastUsage(ctx context.Context, c keyops.Caller, in keyops.GetKeyLastUsageInput) (keyops.GetKeyLastUsageOutput, error) {
	return reply(ctx, f, "GetKeyLastUsage", c, in, keyops.GetKeyLastUsageOutput{KeyID: keyARN})
}

func (f *fakeKeys) EnableKeyRotation(ctx context.Context, c keyops.Caller, in keyops.EnableKeyRotationInput) (keyops.EnableKeyRotationOutput, error) {
	return reply(ctx, f, "EnableKeyRotation", c, in, keyops.EnableKeyRotationOutput{})
}

func (f *fakeKeys) DisableKeyRotation(ctx context.Context, c keyops.Caller, in keyops.DisableKeyRotationInput) (keyops.DisableKeyRotationOutput, error) {
	return reply(ctx, f, "DisableKeyRotation", c, in, keyops.DisableKeyRotationOutput{})
}

func (f *fakeKeys) GetKeyRotationStatus(ctx context.Context, c keyops.Caller, in keyops.GetKeyRotationStatusInput) (keyops.GetKeyRotationStatusOutput, error) {
	return reply(ctx, f, "GetKeyRotationStatus", c, in, keyops.GetKeyRotationStatusOutput{KeyID: keyARN})
}

func (f *fakeKeys) RotateKeyOnDemand(ctx context.Context, c keyops.Caller, in keyops.RotateKeyOnDemandInput) (keyops.RotateKeyOnDemandOutput, error) {
	return reply(ctx, f, "RotateKeyOnDemand", c, in, keyops.RotateKeyOnDemandOutput{KeyID: keyARN})
}

func (f *fakeKeys) ListKeyRotations(ctx context.Context, c keyops.Caller, in keyops.ListKeyRotationsInput) (keyops.ListKeyRotationsOutput, error) {
	return reply(ctx, f, "ListKeyRotations", c, in, keyops.ListKeyRotationsOutput{})
}

func (f *fakeKeys) GetParametersForImport(ctx context.Context, c keyops.Caller, in keyops.GetParametersForImportInput) (keyops.GetParametersForImportOutput, error) {
	return reply(ctx, f, "GetParametersForImport", c, in, keyops.GetParametersForImportOutput{KeyID: keyARN})
}

func (f *fakeKeys) ImportKeyMaterial(ctx context.Context, c keyops.Caller, in keyops.ImportKeyMaterialInput) (keyops.ImportKeyMaterialOutput, error) {
	return reply(ctx, f, "ImportKeyMaterial", c, in, keyops.ImportKeyMaterialOutput{KeyID: keyARN})
}

func (f *fakeKeys) DeleteImportedKeyMaterial(ctx context.Context, c keyops.Caller, in keyops.DeleteImportedKeyMaterialInput) (keyops.DeleteImportedKeyMaterialOutput, error) {
	return reply(ctx, f, "DeleteImportedKeyMaterial", c, in, keyops.DeleteImportedKeyMaterialOutput{KeyID: keyARN})
}

func (f *fakeKeys) ReplicateKey(ctx context.Context, c keyops.Caller, in keyops.ReplicateKeyInput) (keyops.ReplicateKeyOutput, error) {
	return reply(ctx, f, "ReplicateKey", c, in, keyops.ReplicateKeyOutput{ReplicaKeyMetadata: f.metadata(), ReplicaTags: in.Tags})
}

func (f *fakeKeys) PromoteKey(ctx context.Context, c keyops.Caller, in keyops.PromoteKeyInput) (keyops.PromoteKeyOutput, error) {
	return reply(ctx, f, "PromoteKey", c, in, keyops.PromoteKeyOutput{KeyID: keyARN, Generation: 3})
}

func (f *fakeKeys) SuspendReplica(ctx context.Context, c keyops.Caller, in keyops.SuspendReplicaInput) (keyops.SuspendReplicaOutput, error) {
	return reply(ctx, f, "SuspendReplica", c, in, keyops.SuspendReplicaOutput{ApprovalRequest: []byte("{}")})
}

func (f *fakeKeys) EvictReplica(ctx context.Context, c keyops.Caller, in keyops.EvictReplicaInput) (keyops.EvictReplicaOutput, error) {
	return reply(ctx, f, "EvictReplica", c, in, keyops.EvictReplicaOutput{ApprovalRequest: []byte("{}")})
}

func (f *fakeKeys) WriteOffKeyMaterial(ctx context.Context, c keyops.Caller, in keyops.WriteOffKeyMaterialInput) (keyops.WriteOffKeyMaterialOutput, error) {
	return reply(ctx, f, "WriteOffKeyMaterial", c, in, keyops.WriteOffKeyMaterialOutput{ApprovalRequest: []byte("{}")})
}

func (f *fakeKeys) UpdatePrimaryRegion(ctx context.Context, c keyops.Caller, in keyops.UpdatePrimaryRegionInput) (keyops.UpdatePrimaryRegionOutput, error) {
	return reply(ctx, f, "UpdatePrimaryRegion", c, in, keyops.UpdatePrimaryRegionOutput{})
}

func (f *fakeKeys) PutKeyPolicy(ctx context.Context, c keyops.Caller, in keyops.PutKeyPolicyInput) (keyops.PutKeyPolicyOutput, error) {
	return reply(ctx, f, "PutKeyPolicy", c, in, keyops.PutKeyPolicyOutput{})
}

func (f *fakeKeys) ListKeyPolicies(ctx context.Context, c keyops.Caller, in keyops.ListKeyPoliciesInput) (keyops.ListKeyPoliciesOutput, error) {
	return reply(ctx, f, "ListKeyPolicies", c, in, keyops.ListKeyPoliciesOutput{PolicyNames: []string{"default"}})
}

func (f *fakeKeys) ExplainAccess(ctx context.Context, c keyops.Caller, in keyops.ExplainAccessInput) (keyops.ExplainAccessOutput, error) {
	return reply(ctx, f, "ExplainAccess", c, in, keyops.ExplainAccessOutput{Allowed: true, Decisions: []keyops.AccessDecision{{Region: "eu-paris-1", Explanation: policy.Explanation{Action: in.Action, Allowed: true}}}})
}

func (f *fakeKeys) CreateGrant(ctx context.Context, c keyops.Caller, in keyops.CreateGrantInput) (keyops.CreateGrantOutput, error) {
	return reply(ctx, f, "CreateGrant", c, in, keyops.CreateGrantOutput{GrantID: "1", GrantToken: "t"})
}

func (f *fakeKeys) ListGrants(ctx context.Context, c keyops.Caller, in keyops.ListGrantsInput) (keyops.ListGrantsOutput, error) {
	return reply(ctx, f, "ListGrants", c, in, keyops.ListGrantsOutput{Grants: []keyops.GrantListEntry{{KeyID: keyARN, GrantID: "1", Constraints: keyops.GrantConstraints{EncryptionContextSubset: map[string]string{"env": "prod"}}}}})
}

func (f *fakeKeys) ListRetirableGrants(ctx context.Context, c keyops.Caller, in keyops.ListRetirableGrantsInput) (keyops.ListRetirableGrantsOutput, error) {
	return reply(ctx, f, "ListRetirableGrants", c, in, keyops.ListRetirableGrantsOutput{Grants: []keyops.GrantListEntry{{KeyID: keyARN, GrantID: "1", RetiringPrincipal: in.RetiringPrincipal}}})
}

func (f *fakeKeys) RetireGrant(ctx context.Context, c keyops.Caller, in keyops.RetireGrantInput) (keyops.RetireGrantOutput, error) {
	return reply(ctx, f, "RetireGrant", c, in, keyops.RetireGrantOutput{})
}

func (f *fakeKeys) RevokeGrant(ctx context.Context, c keyops.Caller, in keyops.RevokeGrantInput) (keyops.RevokeGrantOutput, error) {
	return reply(ctx, f, "RevokeGrant", c, in, keyops.RevokeGrantOutput{})
}

func (f *fakeKeys) TagResource(ctx context.Context, c keyops.Caller, in keyops.TagResourceInput) (keyops.TagResourceOutput, error) {
	return reply(ctx, f, "TagResource", c, in, keyops.TagResourceOutput{})
}

func (f *fakeKeys) UntagResource(ctx context.Context, c keyops.Caller, in keyops.UntagResourceInput) (keyops.UntagResourceOutput, error) {
	return reply(ctx, f, "UntagResource", c, in, keyops.UntagResourceOutput{})
}

func (f *fakeKeys) ListResourceTags(ctx context.Context, c keyops.Caller, in keyops.ListResourceTagsInput) (keyops.ListResourceTagsOutput, error) {
	return reply(ctx, f, "ListResourceTags", c, in, keyops.ListResourceTagsOutput{Tags: []keyops.Tag{{Key: "team", Value: "pay"}}})
}

func (f *fakeKeys) UpdateKeyDescription(ctx context.Context, c keyops.Caller, in keyops.UpdateKeyDescriptionInput) (keyops.UpdateKeyDescriptionOutput, error) {
	return reply(ctx, f, "UpdateKeyDescription", c, in, keyops.UpdateKeyDescriptionOutput{})
}

func (f *fakeKeys) CreateAlias(ctx context.Context, c keyops.Caller, in keyops.CreateAliasInput) (keyops.CreateAliasOutput, error) {
	return reply(ctx, f, "CreateAlias", c, in, keyops.CreateAliasOutput{})
}

func (f *fakeKeys) UpdateAlias(ctx context.Context, c keyops.Caller, in keyops.UpdateAliasInput) (keyops.UpdateAliasOutput, error) {
	return reply(ctx, f, "UpdateAlias", c, in, keyops.UpdateAliasOutput{})
}

func (f *fakeKeys) DeleteAlias(ctx context.Context, c keyops.Caller, in keyops.DeleteAliasInput) (keyops.DeleteAliasOutput, error) {
	return reply(ctx, f, "DeleteAlias", c, in, keyops.DeleteAliasOutput{})
}

func (f *fakeKeys) ListAliases(ctx context.Context, c keyops.Caller, in keyops.ListAliasesInput) (keyops.ListAliasesOutput, error) {
	return reply(ctx, f, "ListAliases", c, in, keyops.ListAliasesOutput{Aliases: []keyops.AliasListEntry{{AliasName: "alias/payroll", TargetKeyID: keyID}}})
}

// Encrypt and Decrypt are inverse, so that a test sees bytes survive both ways.
func (f *fakeKeys) Encrypt(ctx context.Context, c keyops.Caller, in keyops.EncryptInput) (keyops.EncryptOutput, error) {
	return reply(ctx, f, "Encrypt", c, in, keyops.EncryptOutput{CiphertextBlob: append([]byte("sealed:"), in.Plaintext...), KeyID: keyARN})
}

func (f *fakeKeys) Decrypt(ctx context.Context, c keyops.Caller, in keyops.DecryptInput) (keyops.DecryptOutput, error) {
	return reply(ctx, f, "Decrypt", c, in, keyops.DecryptOutput{Plaintext: bytes.TrimPrefix(in.CiphertextBlob, []byte("sealed:")), KeyID: keyARN})
}

func (f *fakeKeys) GenerateDataKey(ctx context.Context, c keyops.Caller, in keyops.GenerateDataKeyInput) (keyops.GenerateDataKeyOutput, error) {
	return reply(ctx, f, "GenerateDataKey", c, in, keyops.GenerateDataKeyOutput{Plaintext: make([]byte, in.NumberOfBytes), KeyID: keyARN})
}

func (f *fakeKeys) ReEncrypt(ctx context.Context, c keyops.Caller, in keyops.ReEncryptInput) (keyops.ReEncryptOutput, error) {
	return reply(ctx, f, "ReEncrypt", c, in, keyops.ReEncryptOutput{CiphertextBlob: in.CiphertextBlob, SourceKeyID: keyARN, KeyID: keyARN})
}

func (f *fakeKeys) GenerateDataKeyWithoutPlaintext(ctx context.Context, c keyops.Caller, in keyops.GenerateDataKeyWithoutPlaintextInput) (keyops.GenerateDataKeyWithoutPlaintextOutput, error) {
	return reply(ctx, f, "GenerateDataKeyWithoutPlaintext", c, in, keyops.GenerateDataKeyWithoutPlaintextOutput{CiphertextBlob: []byte{1}, KeyID: keyARN})
}

func (f *fakeKeys) GenerateDataKeyPair(ctx context.Context, c keyops.Caller, in keyops.GenerateDataKeyPairInput) (keyops.GenerateDataKeyPairOutput, error) {
	return reply(ctx, f, "GenerateDataKeyPair", c, in, keyops.GenerateDataKeyPairOutput{PrivateKeyPlaintext: []byte{48}, KeyID: keyARN, KeyPairSpec: in.KeyPairSpec})
}

func (f *fakeKeys) GenerateDataKeyPairWithoutPlaintext(ctx context.Context, c keyops.Caller, in keyops.GenerateDataKeyPairWithoutPlaintextInput) (keyops.GenerateDataKeyPairWithoutPlaintextOutput, error) {
	return reply(ctx, f, "GenerateDataKeyPairWithoutPlaintext", c, in, keyops.GenerateDataKeyPairWithoutPlaintextOutput{PublicKey: []byte{48}, KeyID: keyARN, KeyPairSpec: in.KeyPairSpec})
}

func (f *fakeKeys) DeriveSharedSecret(ctx context.Context, c keyops.Caller, in keyops.DeriveSharedSecretInput) (keyops.DeriveSharedSecretOutput, error) {
	return reply(ctx, f, "DeriveSharedSecret", c, in, keyops.DeriveSharedSecretOutput{SharedSecret: []byte{1}, KeyID: keyARN, KeyAgreementAlgorithm: in.KeyAgreementAlgorithm})
}

func (f *fakeKeys) GenerateMac(ctx context.Context, c keyops.Caller, in keyops.GenerateMacInput) (keyops.GenerateMacOutput, error) {
	return reply(ctx, f, "GenerateMac", c, in, keyops.GenerateMacOutput{Mac: []byte{1}, KeyID: keyARN, MacAlgorithm: in.MacAlgorithm})
}

func (f *fakeKeys) VerifyMac(ctx context.Context, c keyops.Caller, in keyops.VerifyMacInput) (keyops.VerifyMacOutput, error) {
	return reply(ctx, f, "VerifyMac", c, in, keyops.VerifyMacOutput{MacValid: true, KeyID: keyARN, MacAlgorithm: in.MacAlgorithm})
}

func (f *fakeKeys) Sign(ctx context.Context, c keyops.Caller, in keyops.SignInput) (keyops.SignOutput, error) {
	return reply(ctx, f, "Sign", c, in, keyops.SignOutput{Signature: []byte{1}, KeyID: keyARN, SigningAlgorithm: in.SigningAlgorithm})
}

func (f *fakeKeys) Verify(ctx context.Context, c keyops.Caller, in keyops.VerifyInput) (keyops.VerifyOutput, error) {
	return reply(ctx, f, "Verify", c, in, keyops.VerifyOutput{SignatureValid: true, KeyID: keyARN, SigningAlgorithm: in.SigningAlgorithm})
}

func (f *fakeKeys) GetPublicKey(ctx context.Context, c keyops.Caller, in keyops.GetPublicKeyInput) (keyops.GetPublicKeyOutput, error) {
	return reply(ctx, f, "GetPublicKey", c, in, keyops.GetPublicKeyOutput{PublicKey: []byte{48}, KeyID: keyARN})
}

func (f *fakeKeys) GenerateRandom(ctx context.Context, c keyops.Caller, in keyops.GenerateRandomInput) (keyops.GenerateRandomOutput, error) {
	return reply(ctx, f, "GenerateRandom", c, in, keyops.GenerateRandomOutput{Plaintext: make([]byte, in.NumberOfBytes)})
}

func (f *fakeKeys) GetCallerIdentity(ctx context.Context, c keyops.Caller, in keyops.GetCallerIdentityInput) (keyops.GetCallerIdentityOutput, error) {
	return reply(ctx, f, "GetCallerIdentity", c, in, keyops.GetCallerIdentityOutput{ARN: c.Principal.String(), Account: c.Principal.Account})
}

func (f *fakeKeys) DescribeRegion(ctx context.Context, c keyops.Caller, in keyops.DescribeRegionInput) (keyops.DescribeRegionOutput, error) {
	return reply(ctx, f, "DescribeRegion", c, in, keyops.DescribeRegionOutput{Region: "eu-paris-1", Boundary: "api-only", KeyQuota: 100000})
}

func (f *fakeKeys) CreateSynchronization(ctx context.Context, c keyops.Caller, in keyops.CreateSynchronizationInput) (keyops.CreateSynchronizationOutput, error) {
	return reply(ctx, f, "CreateSynchronization", c, in, keyops.CreateSynchronizationOutput{})
}

func (f *fakeKeys) AssociateReplicaInstance(ctx context.Context, c keyops.Caller, in keyops.AssociateReplicaInstanceInput) (keyops.AssociateReplicaInstanceOutput, error) {
	return reply(ctx, f, "AssociateReplicaInstance", c, in, keyops.AssociateReplicaInstanceOutput{})
}

func (f *fakeKeys) DisassociateReplicaInstance(ctx context.Context, c keyops.Caller, in keyops.DisassociateReplicaInstanceInput) (keyops.DisassociateReplicaInstanceOutput, error) {
	return reply(ctx, f, "DisassociateReplicaInstance", c, in, keyops.DisassociateReplicaInstanceOutput{})
}

func (f *fakeKeys) UpdateSynchronization(ctx context.Context, c keyops.Caller, in keyops.UpdateSynchronizationInput) (keyops.UpdateSynchronizationOutput, error) {
	return reply(ctx, f, "UpdateSynchronization", c, in, keyops.UpdateSynchronizationOutput{})
}

func (f *fakeKeys) GetSynchronization(ctx context.Context, c keyops.Caller, in keyops.GetSynchronizationInput) (keyops.GetSynchronizationOutput, error) {
	return reply(ctx, f, "GetSynchronization", c, in, keyops.GetSynchronizationOutput{})
}

func (f *fakeKeys) ListSynchronizations(ctx context.Context, c keyops.Caller, in keyops.ListSynchronizationsInput) (keyops.ListSynchronizationsOutput, error) {
	return reply(ctx, f, "ListSynchronizations", c, in, keyops.ListSynchronizationsOutput{})
}

func (f *fakeKeys) ListReplicaResources(ctx context.Context, c keyops.Caller, in keyops.ListReplicaResourcesInput) (keyops.ListReplicaResourcesOutput, error) {
	return reply(ctx, f, "ListReplicaResources", c, in, keyops.ListReplicaResourcesOutput{})
}

func (f *fakeKeys) ListSynchronizedResources(ctx context.Context, c keyops.Caller, in keyops.ListSynchronizedResourcesInput) (keyops.ListSynchronizedResourcesOutput, error) {
	return reply(ctx, f, "ListSynchronizedResources", c, in, keyops.ListSynchronizedResourcesOutput{})
}
