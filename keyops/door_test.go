package keyops_test

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/policy"
)

// TestEveryOperationHasARow finds every method of Service that takes a Caller, and demands
// a row of the operation table, an action that policies know, and a place in Operations.
func TestEveryOperationHasARow(t *testing.T) {
	rows := keyops.OperationRows()
	declared := reflect.TypeFor[keyops.Operations]()
	service := reflect.TypeFor[*keyops.Service]()
	actions := policy.Actions()
	caller := reflect.TypeFor[keyops.Caller]()
	found := 0
	for i := range service.NumMethod() {
		m := service.Method(i)
		takesCaller := false
		for j := 1; j < m.Type.NumIn(); j++ {
			takesCaller = takesCaller || m.Type.In(j) == caller
		}
		if !takesCaller {
			continue
		}
		found++
		if !rows[m.Name] {
			t.Errorf("%s has no row in the table of operations", m.Name)
		}
		delete(rows, m.Name)
		if _, ok := declared.MethodByName(m.Name); !ok {
			t.Errorf("%s is not in Operations", m.Name)
		}
		// Needing no permission, or that of another operation.
		if m.Name != "GetCallerIdentity" && m.Name != "ExplainAccess" && !slices.Contains(actions, actionOf(m.Name)) {
			t.Errorf("no policy can name kms:%s", m.Name)
		}
	}
	if found < 20 || len(rows) != 0 {
		t.Errorf("%d operations found; rows without a method: %v", found, rows)
	}
}

// attempt calls one operation on a key, however it is named.
type attempt struct {
	name string
	call func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error
}

var x = []byte("x")

// onAKey are the operations that name a key or an alias.
var onAKey = []attempt{
	{"DescribeKey", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.DescribeKey(ctx, c, keyops.DescribeKeyInput{KeyID: key}))
	}},
	{"EnableKey", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.EnableKey(ctx, c, keyops.EnableKeyInput{KeyID: key}))
	}},
	{"DisableKey", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.DisableKey(ctx, c, keyops.DisableKeyInput{KeyID: key}))
	}},
	{"ScheduleKeyDeletion", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.ScheduleKeyDeletion(ctx, c, keyops.ScheduleKeyDeletionInput{KeyID: key, PendingWindowInDays: 7}))
	}},
	{"CancelKeyDeletion", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.CancelKeyDeletion(ctx, c, keyops.CancelKeyDeletionInput{KeyID: key}))
	}},
	{"EnableKeyRotation", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.EnableKeyRotation(ctx, c, keyops.EnableKeyRotationInput{KeyID: key, RotationPeriodInDays: 90}))
	}},
	{"DisableKeyRotation", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.DisableKeyRotation(ctx, c, keyops.DisableKeyRotationInput{KeyID: key}))
	}},
	{"GetKeyRotationStatus", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.GetKeyRotationStatus(ctx, c, keyops.GetKeyRotationStatusInput{KeyID: key}))
	}},
	{"RotateKeyOnDemand", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.RotateKeyOnDemand(ctx, c, keyops.RotateKeyOnDemandInput{KeyID: key}))
	}},
	{"ListKeyRotations", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.ListKeyRotations(ctx, c, keyops.ListKeyRotationsInput{KeyID: key}))
	}},
	{"GetKeyLastUsage", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.GetKeyLastUsage(ctx, c, keyops.GetKeyLastUsageInput{KeyID: key}))
	}},
	{"GetKeyPolicy", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.GetKeyPolicy(ctx, c, keyops.GetKeyPolicyInput{KeyID: key}))
	}},
	{"UpdatePrimaryRegion", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		_, err := r.UpdatePrimaryRegion(ctx, c, keyops.UpdatePrimaryRegionInput{KeyID: key, PrimaryRegion: "us-east-1"})
		return err
	}},
	{"PromoteKey", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.PromoteKey(ctx, c, keyops.PromoteKeyInput{KeyID: key}))
	}},
	{"SuspendReplica", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.SuspendReplica(ctx, c, keyops.SuspendReplicaInput{KeyID: key, ReplicaRegion: "us-east-1"}))
	}},
	{"EvictReplica", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.EvictReplica(ctx, c, keyops.EvictReplicaInput{KeyID: key, ReplicaRegion: "us-east-1"}))
	}},
	{"WriteOffKeyMaterial", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.WriteOffKeyMaterial(ctx, c, keyops.WriteOffKeyMaterialInput{KeyID: key, KeyMaterialID: strings.Repeat("0", 64)}))
	}},
	{"ReplicateKey", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.ReplicateKey(ctx, c, keyops.ReplicateKeyInput{KeyID: key, ReplicaRegion: "us-east-1"}))
	}},
	{"GetParametersForImport", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.GetParametersForImport(ctx, c, keyops.GetParametersForImportInput{
			KeyID: key, WrappingAlgorithm: keyops.WrapOAEPSHA1, WrappingKeySpec: keyops.WrappingRSA2048,
		}))
	}},
	{"ImportKeyMaterial", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.ImportKeyMaterial(ctx, c, keyops.ImportKeyMaterialInput{
			KeyID: key, ImportToken: x, EncryptedKeyMaterial: x, ExpirationModel: keyops.MaterialDoesNotExpire,
		}))
	}},
	{"DeleteImportedKeyMaterial", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.DeleteImportedKeyMaterial(ctx, c, keyops.DeleteImportedKeyMaterialInput{KeyID: key}))
	}},
	{"CreateAlias", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.CreateAlias(ctx, c, keyops.CreateAliasInput{AliasName: "alias/new", TargetKeyID: key}))
	}},
	{"UpdateAlias", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.UpdateAlias(ctx, c, keyops.UpdateAliasInput{AliasName: "alias/new", TargetKeyID: key}))
	}},
	{"Encrypt", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.Encrypt(ctx, c, keyops.EncryptInput{KeyID: key, Plaintext: x}))
	}},
	{"Decrypt", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.Decrypt(ctx, c, keyops.DecryptInput{KeyID: key, CiphertextBlob: x}))
	}},
	{"GenerateDataKey", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.GenerateDataKey(ctx, c, keyops.GenerateDataKeyInput{KeyID: key, NumberOfBytes: 1}))
	}},
	{"GenerateDataKeyWithoutPlaintext", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.GenerateDataKeyWithoutPlaintext(ctx, c, keyops.GenerateDataKeyWithoutPlaintextInput{KeyID: key, NumberOfBytes: 1}))
	}},
	{"GenerateDataKeyPair", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.GenerateDataKeyPair(ctx, c, keyops.GenerateDataKeyPairInput{KeyID: key, KeyPairSpec: "ECC_NIST_P256"}))
	}},
	{"GenerateDataKeyPairWithoutPlaintext", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.GenerateDataKeyPairWithoutPlaintext(ctx, c, keyops.GenerateDataKeyPairWithoutPlaintextInput{KeyID: key, KeyPairSpec: "ECC_NIST_P256"}))
	}},
	{"ReEncrypt", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.ReEncrypt(ctx, c, keyops.ReEncryptInput{SourceKeyID: key, DestinationKeyID: key, CiphertextBlob: x}))
	}},
	{"DeriveSharedSecret", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.DeriveSharedSecret(ctx, c, keyops.DeriveSharedSecretInput{KeyID: key, KeyAgreementAlgorithm: keyops.AlgorithmECDH, PublicKey: x}))
	}},
	{"GenerateMac", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.GenerateMac(ctx, c, keyops.GenerateMacInput{KeyID: key, Message: x, MacAlgorithm: keyops.AlgorithmHMACSHA256}))
	}},
	{"VerifyMac", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.VerifyMac(ctx, c, keyops.VerifyMacInput{KeyID: key, Message: x, Mac: x, MacAlgorithm: keyops.AlgorithmHMACSHA256}))
	}},
	{"Sign", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.Sign(ctx, c, keyops.SignInput{KeyID: key, Message: x, SigningAlgorithm: keyops.AlgorithmECDSASHA256}))
	}},
	{"Verify", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.Verify(ctx, c, keyops.VerifyInput{KeyID: key, Message: x, Signature: x, SigningAlgorithm: keyops.AlgorithmECDSASHA256}))
	}},
	{"GetPublicKey", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.GetPublicKey(ctx, c, keyops.GetPublicKeyInput{KeyID: key}))
	}},
	{"PutKeyPolicy", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.PutKeyPolicy(ctx, c, keyops.PutKeyPolicyInput{KeyID: key, Policy: string(policy.DefaultKeyPolicy("aws", string(keyopstest.Account)))}))
	}},
	{"ListKeyPolicies", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.ListKeyPolicies(ctx, c, keyops.ListKeyPoliciesInput{KeyID: key}))
	}},
	{"CreateGrant", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.CreateGrant(ctx, c, keyops.CreateGrantInput{KeyID: key, GranteePrincipal: "arn:aws:iam::111122223333:role/app", Operations: []string{"DescribeKey"}}))
	}},
	{"ListGrants", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.ListGrants(ctx, c, keyops.ListGrantsInput{KeyID: key}))
	}},
	{"RetireGrant", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.RetireGrant(ctx, c, keyops.RetireGrantInput{KeyID: key, GrantID: noGrant}))
	}},
	{"RevokeGrant", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.RevokeGrant(ctx, c, keyops.RevokeGrantInput{KeyID: key, GrantID: noGrant}))
	}},
	{"TagResource", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.TagResource(ctx, c, keyops.TagResourceInput{KeyID: key, Tags: []keyops.Tag{{Key: "a", Value: "b"}}}))
	}},
	{"UntagResource", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.UntagResource(ctx, c, keyops.UntagResourceInput{KeyID: key, TagKeys: []string{"a"}}))
	}},
	{"ListResourceTags", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.ListResourceTags(ctx, c, keyops.ListResourceTagsInput{KeyID: key}))
	}},
	{"UpdateKeyDescription", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.UpdateKeyDescription(ctx, c, keyops.UpdateKeyDescriptionInput{KeyID: key, Description: "new"}))
	}},
}

// noGrant is the ID of a grant that does not exist.
var noGrant = strings.Repeat("0", 64)

// noSync is the ID of a synchronization that does not exist.
const noSync = "sync-000000000000"

// byAlias are the operations on a key that take an alias for it; the others manage.
const byAlias = "DescribeKey Encrypt Decrypt ReEncrypt GenerateDataKey GenerateDataKeyWithoutPlaintext GenerateDataKeyPair GenerateDataKeyPairWithoutPlaintext GenerateMac VerifyMac Sign Verify GetPublicKey DeriveSharedSecret"

// changes are the operations that change something.
const changes = "GetParametersForImport ImportKeyMaterial DeleteImportedKeyMaterial CreateKey ScheduleKeyDeletion CancelKeyDeletion EnableKeyRotation DisableKeyRotation RotateKeyOnDemand EnableKey DisableKey ReplicateKey UpdatePrimaryRegion PromoteKey SuspendReplica EvictReplica WriteOffKeyMaterial CreateAlias UpdateAlias DeleteAlias PutKeyPolicy CreateGrant RetireGrant RevokeGrant TagResource UntagResource UpdateKeyDescription CreateSynchronization AssociateReplicaInstance DisassociateReplicaInstance UpdateSynchronization"

func among(names, name string) bool { return slices.Contains(strings.Fields(names), name) }

// actionOf is the action that the first decision on an operation is about.
func actionOf(operation string) string {
	if operation == "ReEncrypt" {
		return "kms:ReEncryptFrom"
	}
	return "kms:" + operation
}

// onNoKey are the operations that identity policies decide alone.
var onNoKey = []attempt{
	{"CreateKey", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, _ string) error {
		return second(r.CreateKey(ctx, c, keyops.CreateKeyInput{}))
	}},
	{"ListKeys", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, _ string) error {
		return second(r.ListKeys(ctx, c, keyops.ListKeysInput{}))
	}},
	{"ListAliases", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, _ string) error {
		return second(r.ListAliases(ctx, c, keyops.ListAliasesInput{}))
	}},
	{"ListRetirableGrants", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, _ string) error {
		return second(r.ListRetirableGrants(ctx, c, keyops.ListRetirableGrantsInput{RetiringPrincipal: c.Principal.String()}))
	}},
	{"GenerateRandom", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, _ string) error {
		return second(r.GenerateRandom(ctx, c, keyops.GenerateRandomInput{NumberOfBytes: 1}))
	}},
	{"DescribeRegion", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, _ string) error {
		return second(r.DescribeRegion(ctx, c, keyops.DescribeRegionInput{}))
	}},
	{"CreateSynchronization", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, _ string) error {
		return second(r.CreateSynchronization(ctx, c, keyops.CreateSynchronizationInput{}))
	}},
	{"AssociateReplicaInstance", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, _ string) error {
		return second(r.AssociateReplicaInstance(ctx, c, keyops.AssociateReplicaInstanceInput{SynchronizationID: noSync, ReplicaInstance: "us-east-1"}))
	}},
	{"DisassociateReplicaInstance", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, _ string) error {
		return second(r.DisassociateReplicaInstance(ctx, c, keyops.DisassociateReplicaInstanceInput{SynchronizationID: noSync, ReplicaInstance: "us-east-1"}))
	}},
	{"UpdateSynchronization", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, _ string) error {
		return second(r.UpdateSynchronization(ctx, c, keyops.UpdateSynchronizationInput{SynchronizationID: noSync, ReplicaInstance: "us-east-1"}))
	}},
	{"GetSynchronization", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, _ string) error {
		return second(r.GetSynchronization(ctx, c, keyops.GetSynchronizationInput{SynchronizationID: noSync}))
	}},
	{"ListSynchronizations", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, _ string) error {
		return second(r.ListSynchronizations(ctx, c, keyops.ListSynchronizationsInput{}))
	}},
	{"ListSynchronizedResources", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, _ string) error {
		return second(r.ListSynchronizedResources(ctx, c, keyops.ListSynchronizedResourcesInput{SynchronizationID: noSync}))
	}},
	{"ListReplicaResources", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, _ string) error {
		return second(r.ListReplicaResources(ctx, c, keyops.ListReplicaResourcesInput{SynchronizationID: noSync, ReplicaInstance: "us-east-1"}))
	}},
}

// TestRefusalsAreAlike refuses every operation to a principal without permissions, on a key
// that exists and on one that does not: the answers differ in the name alone.
func TestRefusalsAreAlike(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{MultiRegion: true})
	if _, err := r.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: "alias/old", TargetKeyID: k.ARN}); err != nil {
		t.Fatal(err)
	}
	mallory := keyopstest.User("mallory")
	arnOf := func(id string) string { return "arn:aws:kms:eu-paris-1:111122223333:" + id }
	missingID := string(arn.NewKeyID(true))
	before := r.Fake.Calls()
	for _, op := range onAKey {
		t.Run(op.name, func(t *testing.T) {
			named := map[string]string{string(k.KeyID): missingID, k.ARN: arnOf("key/" + missingID)}
			if among(byAlias, op.name) {
				named["alias/old"] = "alias/gone"
				named[arnOf("alias/old")] = arnOf("alias/gone")
			}
			for there, missing := range named {
				a := op.call(t.Context(), r, mallory, there)
				b := op.call(t.Context(), r, mallory, missing)
				want(t, a, keyops.ErrAccessDenied, "User: arn:aws:iam::111122223333:user/mallory is not authorized to perform: "+actionOf(op.name)+" on resource: ")
				if !strings.Contains(a.Error(), mallory.RequestID) || !strings.Contains(a.Error(), "policy explain") {
					t.Errorf("%v: want the request ID and what explains it", a)
				}
				clean := strings.NewReplacer(string(k.KeyID), "ID", missingID, "ID", "alias/old", "ALIAS", "alias/gone", "ALIAS")
				if got, other := clean.Replace(a.Error()), clean.Replace(b.Error()); got != other {
					t.Errorf("an existing key is told from a missing one:\n%s\n%s", got, other)
				}
				if strings.HasPrefix(there, "alias") && strings.Contains(a.Error(), string(k.KeyID)) {
					t.Errorf("%v: tells where the alias points", a)
				}
			}
		})
	}
	for _, op := range onNoKey {
		t.Run(op.name, func(t *testing.T) {
			want(t, op.call(t.Context(), r, mallory, ""), keyops.ErrAccessDenied, "kms:"+op.name)
		})
	}
	t.Run("Decrypt without a key", func(t *testing.T) {
		enc, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: k.ARN, Plaintext: x})
		if err != nil {
			t.Fatal(err)
		}
		_, a := r.Decrypt(t.Context(), mallory, keyops.DecryptInput{CiphertextBlob: enc.CiphertextBlob})
		other := slices.Clone(enc.CiphertextBlob)
		other[7] ^= 1
		_, b := r.Decrypt(t.Context(), mallory, keyops.DecryptInput{CiphertextBlob: other})
		want(t, a, keyops.ErrAccessDenied, "kms:Decrypt")
		want(t, b, keyops.ErrAccessDenied, "kms:Decrypt")
		if len(a.Error()) != len(b.Error()) {
			t.Errorf("an existing key is told from a missing one:\n%v\n%v", a, b)
		}
	})
	if before["C_GenerateKey"] != r.Fake.Calls()["C_GenerateKey"] {
		t.Error("a refused call made a key")
	}
}

// TestMissingKeys: who may list the keys of the account hears what is there.
func TestMissingKeys(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	missing := string(arn.NewKeyID(false))
	for _, op := range onAKey {
		t.Run(op.name, func(t *testing.T) {
			want(t, op.call(t.Context(), r, admin(), missing), keyops.ErrNotFound, "Key 'arn:aws:kms:eu-paris-1:111122223333:key/"+missing+"' does not exist")
			want(t, op.call(t.Context(), r, admin(), "not-a-key"), keyops.ErrNotFound, "Invalid keyId 'not-a-key'")
			want(t, op.call(t.Context(), r, admin(), "arn:aws:kms:us-east-1:111122223333:key/"+missing), keyops.ErrNotFound, "Invalid arn us-east-1")
			want(t, op.call(t.Context(), r, admin(), "arn:aws-cn:kms:eu-paris-1:111122223333:key/"+missing), keyops.ErrNotFound, "Invalid arn aws-cn")
			want(t, op.call(t.Context(), r, admin(), "arn:aws:kms:eu-paris-1"), keyops.ErrInvalidArn, "Invalid arn 'arn:aws:kms:eu-paris-1'")
			want(t, op.call(t.Context(), r, admin(), "arn:aws:kms:eu-paris-1:999999999999:key/"+missing), keyops.ErrAccessDenied, "")
		})
	}
}

// TestAliasesOnlyWhereAWSTakesThem: management names keys by ID or ARN.
func TestAliasesOnlyWhereAWSTakesThem(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{})
	if _, err := r.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: "alias/a", TargetKeyID: k.ARN}); err != nil {
		t.Fatal(err)
	}
	for _, op := range onAKey {
		if !among(byAlias, op.name) {
			want(t, op.call(t.Context(), r, admin(), "alias/a"), keyops.ErrNotFound, "Invalid keyId 'alias/a'")
		}
	}
}

// TestCiphertextsTellOfNoOtherAccount: who may list the own account's keys hears of a
// ciphertext under another account's key what is heard of one under no key at all.
func TestCiphertextsTellOfNoOtherAccount(t *testing.T) {
	const other arn.Account = "444455556666"
	r := keyopstest.New(t, keyopstest.Options{
		Accounts:   []arn.Account{keyopstest.Account, other},
		Identities: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::111122223333:user/admin","arn:aws:iam::444455556666:user/partner"]},"Action":"kms:*","Resource":"*"}]}`,
	})
	out, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: create(t, r, keyops.CreateKeyInput{}).ARN, Plaintext: x})
	if err != nil {
		t.Fatal(explain(err))
	}
	nobodys := bytes.Clone(out.CiphertextBlob)
	nobodys[3] ^= 1 // in the key's UUID
	var answers []string
	for _, blob := range [][]byte{out.CiphertextBlob, nobodys} {
		_, err := r.Decrypt(t.Context(), keyopstest.UserOf(other, "partner"), keyops.DecryptInput{CiphertextBlob: blob})
		want(t, err, keyops.ErrInvalidCiphertext, "")
		answers = append(answers, err.Error())
	}
	if answers[0] != answers[1] {
		t.Errorf("another account's key answers %q, none %q", answers[0], answers[1])
	}
}

// TestPolicies decides by key policy, identity policy and account.
func TestPolicies(t *testing.T) {
	const other arn.Account = "444455556666"
	r := keyopstest.New(t, keyopstest.Options{
		Accounts: []arn.Account{keyopstest.Account, other},
		Identities: `{"Version":"2012-10-17","Statement":[
			{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::111122223333:user/admin","arn:aws:iam::444455556666:user/partner"]},"Action":"kms:*","Resource":"*"},
			{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/reader"},"Action":"kms:Decrypt","Resource":"*"}]}`,
	})
	named := create(t, r, keyops.CreateKeyInput{Policy: `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"},
		{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::111122223333:user/app","arn:aws:iam::444455556666:user/partner"]},"Action":["kms:Encrypt","kms:DescribeKey"],"Resource":"*"},
		{"Effect":"Deny","Principal":{"AWS":"arn:aws:iam::111122223333:user/reader"},"Action":"kms:Decrypt","Resource":"*"}]}`})
	plain := create(t, r, keyops.CreateKeyInput{})
	enc := func(k keyops.KeyMetadata) []byte {
		out, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: k.ARN, Plaintext: x})
		if err != nil {
			t.Fatal(explain(err))
		}
		return out.CiphertextBlob
	}
	encrypt := func(c keyops.Caller, ref string) error {
		return second(r.Encrypt(t.Context(), c, keyops.EncryptInput{KeyID: ref, Plaintext: x}))
	}
	decrypt := func(c keyops.Caller, blob []byte) error {
		return second(r.Decrypt(t.Context(), c, keyops.DecryptInput{CiphertextBlob: blob}))
	}
	app, reader, partner := keyopstest.User("app"), keyopstest.User("reader"), keyopstest.UserOf(other, "partner")
	for _, tc := range []struct {
		name   string
		err    error
		reason keyops.Reason
	}{
		{"named by the key policy", encrypt(app, named.ARN), ""},
		{"named for another action", decrypt(app, enc(named)), keyops.ErrAccessDenied},
		{"not named", encrypt(app, plain.ARN), keyops.ErrAccessDenied},
		{"identity policy", decrypt(reader, enc(plain)), ""},
		{"denied by the key policy", decrypt(reader, enc(named)), keyops.ErrAccessDenied},
		{"another account, both agree", encrypt(partner, named.ARN), ""},
		{"another account by bare ID means the own account", encrypt(partner, string(named.KeyID)), keyops.ErrNotFound},
		{"another account, its own word only", encrypt(partner, plain.ARN), keyops.ErrAccessDenied},
		{"another account manages", second(r.DisableKey(t.Context(), partner, keyops.DisableKeyInput{KeyID: named.ARN})), keyops.ErrAccessDenied},
		{"an account that is not served", encrypt(keyopstest.UserOf("999999999999", "admin"), named.ARN), keyops.ErrAccessDenied},
		{"no permission to tag", second(r.CreateKey(t.Context(), reader, keyops.CreateKeyInput{Tags: []keyops.Tag{{Key: "a"}}})), keyops.ErrAccessDenied},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.reason == "" && tc.err != nil {
				t.Error(explain(tc.err))
			} else if tc.reason != "" {
				want(t, tc.err, tc.reason, "")
			}
		})
	}
	lockout := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/app"},"Action":"kms:*","Resource":"*"}]}`
	_, err := r.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{Policy: lockout})
	want(t, err, keyops.ErrMalformedPolicyDocument, "will not allow you to update the key policy")
	if _, err := r.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{Policy: lockout, BypassPolicyLockoutSafetyCheck: true}); err != nil {
		t.Error(explain(err))
	}
	out, err := r.GetKeyPolicy(t.Context(), admin(), keyops.GetKeyPolicyInput{KeyID: plain.ARN})
	if err != nil || out.Policy != string(policy.DefaultKeyPolicy("aws", string(keyopstest.Account))) || out.PolicyName != "default" {
		t.Errorf("default policy: %+v, %v", out, explain(err))
	}
}

func ExampleReason() {
	err := error(&keyops.Error{Reason: keyops.ErrNotFound, Message: "Invalid keyId 'x'"})
	fmt.Println(err)
	// Output: NotFoundException: Invalid keyId 'x'
}
