package keyops

import (
	"context"
	"time"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/region"
)

// Caller is who calls and how the call is named in logs. The gateway has authenticated it.
type Caller struct {
	Principal     arn.Principal
	SourceIP      string
	RequestID     string
	CorrelationID string // the same in every Region that one replicate, rotate or promote touches; empty = RequestID
}

// Operations is every operation of the service, named and shaped as AWS KMS names and
// shapes them. Each returns an *Error, whose Reason is AWS's error name, and no other error.
type Operations interface {
	CreateKey(context.Context, Caller, CreateKeyInput) (CreateKeyOutput, error)
	DescribeKey(context.Context, Caller, DescribeKeyInput) (DescribeKeyOutput, error)
	ListKeys(context.Context, Caller, ListKeysInput) (ListKeysOutput, error)
	EnableKey(context.Context, Caller, EnableKeyInput) (EnableKeyOutput, error)
	DisableKey(context.Context, Caller, DisableKeyInput) (DisableKeyOutput, error)
	ReplicateKey(context.Context, Caller, ReplicateKeyInput) (ReplicateKeyOutput, error)
	UpdatePrimaryRegion(context.Context, Caller, UpdatePrimaryRegionInput) (UpdatePrimaryRegionOutput, error)
	PromoteKey(context.Context, Caller, PromoteKeyInput) (PromoteKeyOutput, error)
	SuspendReplica(context.Context, Caller, SuspendReplicaInput) (SuspendReplicaOutput, error)
	EvictReplica(context.Context, Caller, EvictReplicaInput) (EvictReplicaOutput, error)
	WriteOffKeyMaterial(context.Context, Caller, WriteOffKeyMaterialInput) (WriteOffKeyMaterialOutput, error)
	UpdateKeyDescription(context.Context, Caller, UpdateKeyDescriptionInput) (UpdateKeyDescriptionOutput, error)

	ScheduleKeyDeletion(context.Context, Caller, ScheduleKeyDeletionInput) (ScheduleKeyDeletionOutput, error)
	CancelKeyDeletion(context.Context, Caller, CancelKeyDeletionInput) (CancelKeyDeletionOutput, error)
	EnableKeyRotation(context.Context, Caller, EnableKeyRotationInput) (EnableKeyRotationOutput, error)
	DisableKeyRotation(context.Context, Caller, DisableKeyRotationInput) (DisableKeyRotationOutput, error)
	GetKeyRotationStatus(context.Context, Caller, GetKeyRotationStatusInput) (GetKeyRotationStatusOutput, error)
	RotateKeyOnDemand(context.Context, Caller, RotateKeyOnDemandInput) (RotateKeyOnDemandOutput, error)
	ListKeyRotations(context.Context, Caller, ListKeyRotationsInput) (ListKeyRotationsOutput, error)
	GetKeyLastUsage(context.Context, Caller, GetKeyLastUsageInput) (GetKeyLastUsageOutput, error)

	TagResource(context.Context, Caller, TagResourceInput) (TagResourceOutput, error)
	UntagResource(context.Context, Caller, UntagResourceInput) (UntagResourceOutput, error)
	ListResourceTags(context.Context, Caller, ListResourceTagsInput) (ListResourceTagsOutput, error)

	GetKeyPolicy(context.Context, Caller, GetKeyPolicyInput) (GetKeyPolicyOutput, error)
	PutKeyPolicy(context.Context, Caller, PutKeyPolicyInput) (PutKeyPolicyOutput, error)
	ListKeyPolicies(context.Context, Caller, ListKeyPoliciesInput) (ListKeyPoliciesOutput, error)
	ExplainAccess(context.Context, Caller, ExplainAccessInput) (ExplainAccessOutput, error)

	CreateGrant(context.Context, Caller, CreateGrantInput) (CreateGrantOutput, error)
	ListGrants(context.Context, Caller, ListGrantsInput) (ListGrantsOutput, error)
	ListRetirableGrants(context.Context, Caller, ListRetirableGrantsInput) (ListRetirableGrantsOutput, error)
	RetireGrant(context.Context, Caller, RetireGrantInput) (RetireGrantOutput, error)
	RevokeGrant(context.Context, Caller, RevokeGrantInput) (RevokeGrantOutput, error)

	GetParametersForImport(context.Context, Caller, GetParametersForImportInput) (GetParametersForImportOutput, error)
	ImportKeyMaterial(context.Context, Caller, ImportKeyMaterialInput) (ImportKeyMaterialOutput, error)
	DeleteImportedKeyMaterial(context.Context, Caller, DeleteImportedKeyMaterialInput) (DeleteImportedKeyMaterialOutput, error)

	CreateAlias(context.Context, Caller, CreateAliasInput) (CreateAliasOutput, error)
	UpdateAlias(context.Context, Caller, UpdateAliasInput) (UpdateAliasOutput, error)
	DeleteAlias(context.Context, Caller, DeleteAliasInput) (DeleteAliasOutput, error)
	ListAliases(context.Context, Caller, ListAliasesInput) (ListAliasesOutput, error)

	Encrypt(context.Context, Caller, EncryptInput) (EncryptOutput, error)
	Decrypt(context.Context, Caller, DecryptInput) (DecryptOutput, error)
	ReEncrypt(context.Context, Caller, ReEncryptInput) (ReEncryptOutput, error)
	GenerateDataKey(context.Context, Caller, GenerateDataKeyInput) (GenerateDataKeyOutput, error)
	GenerateDataKeyWithoutPlaintext(context.Context, Caller, GenerateDataKeyWithoutPlaintextInput) (GenerateDataKeyWithoutPlaintextOutput, error)
	GenerateDataKeyPair(context.Context, Caller, GenerateDataKeyPairInput) (GenerateDataKeyPairOutput, error)
	GenerateDataKeyPairWithoutPlaintext(context.Context, Caller, GenerateDataKeyPairWithoutPlaintextInput) (GenerateDataKeyPairWithoutPlaintextOutput, error)
	GenerateMac(context.Context, Caller, GenerateMacInput) (GenerateMacOutput, error)
	VerifyMac(context.Context, Caller, VerifyMacInput) (VerifyMacOutput, error)
	Sign(context.Context, Caller, SignInput) (SignOutput, error)
	Verify(context.Context, Caller, VerifyInput) (VerifyOutput, error)
	GetPublicKey(context.Context, Caller, GetPublicKeyInput) (GetPublicKeyOutput, error)
	DeriveSharedSecret(context.Context, Caller, DeriveSharedSecretInput) (DeriveSharedSecretOutput, error)
	GenerateRandom(context.Context, Caller, GenerateRandomInput) (GenerateRandomOutput, error)

	CreateSynchronization(context.Context, Caller, CreateSynchronizationInput) (CreateSynchronizationOutput, error)
	AssociateReplicaInstance(context.Context, Caller, AssociateReplicaInstanceInput) (AssociateReplicaInstanceOutput, error)
	DisassociateReplicaInstance(context.Context, Caller, DisassociateReplicaInstanceInput) (DisassociateReplicaInstanceOutput, error)
	UpdateSynchronization(context.Context, Caller, UpdateSynchronizationInput) (UpdateSynchronizationOutput, error)
	GetSynchronization(context.Context, Caller, GetSynchronizationInput) (GetSynchronizationOutput, error)
	ListSynchronizations(context.Context, Caller, ListSynchronizationsInput) (ListSynchronizationsOutput, error)
	ListSynchronizedResources(context.Context, Caller, ListSynchronizedResourcesInput) (ListSynchronizedResourcesOutput, error)
	ListReplicaResources(context.Context, Caller, ListReplicaResourcesInput) (ListReplicaResourcesOutput, error)

	GetCallerIdentity(context.Context, Caller, GetCallerIdentityInput) (GetCallerIdentityOutput, error)
	DescribeRegion(context.Context, Caller, DescribeRegionInput) (DescribeRegionOutput, error)
}

// Tag is one tag of a key. Keys are 1 to 128 characters, values 0 to 256.
type Tag struct {
	Key   string
	Value string
}

// KeyMetadata is what DescribeKey, CreateKey and ReplicateKey say of a key.
type KeyMetadata struct {
	AccountID                   arn.Account
	KeyID                       arn.KeyID
	ARN                         string
	CreationDate                time.Time
	Description                 string
	Enabled                     bool   // true in state Enabled only
	KeyState                    string // as package keystate names it
	KeySpec                     KeySpec
	KeyUsage                    KeyUsage
	Origin                      Origin
	EncryptionAlgorithms        []Algorithm
	SigningAlgorithms           []Algorithm
	MacAlgorithms               []Algorithm
	KeyAgreementAlgorithms      []Algorithm
	RotationDue                 bool   // the current material has encrypted 2^31 times, over all Regions; at 2^32 it refuses
	CurrentKeyMaterialID        string // 64 hexadecimal digits; empty while there is none, and for key pairs and HMAC keys
	Exportability               Exportability
	MultiRegion                 bool
	MultiRegionConfiguration    *MultiRegionConfiguration // nil unless MultiRegion
	DeletionDate                time.Time                 // zero unless PendingDeletion
	PendingDeletionWindowInDays int                       // in state PendingReplicaDeletion only; else 0
	ExpectedDeletionDate        time.Time                 // the earliest, in state PendingReplicaDeletion; zero while a replica key is not scheduled
	ExpirationModel             ExpirationModel           // of the current material; empty unless it was imported
	ValidTo                     time.Time                 // when the current material expires; zero if it does not
}

// Exportability says whether material can leave its token, as the token's attributes say.
type Exportability string

// Values of Exportability.
const (
	ExportNever         Exportability = "NEVER"
	ExportTransportOnly Exportability = "TRANSPORT_ONLY" // wrapped under a transport key, to an established peer
	ExportUnknown       Exportability = "UNKNOWN"        // no material of the key is in this token now
)

// MultiRegionKeyType is a key's role in its set.
type MultiRegionKeyType string

// Values of MultiRegionKeyType.
const (
	Primary MultiRegionKeyType = "PRIMARY"
	Replica MultiRegionKeyType = "REPLICA"
)

// MultiRegionConfiguration is the set as this Region knows it.
type MultiRegionConfiguration struct {
	MultiRegionKeyType MultiRegionKeyType
	PrimaryKey         MultiRegionKey
	ReplicaKeys        []MultiRegionKey // ordered by Region; the key itself is in its own slot
	Epoch              KeyEpoch
	Certificate        string // newest certificate known here: 64 hexadecimal digits
}

// KeyEpoch says how often a multi-Region key has changed its primary Region, and how.
type KeyEpoch struct {
	Generation uint64 // forced promotions; 0 = none ever
	Number     uint64 // of the epoch in its line, which a creation or a forced promotion begins
}

// MultiRegionKey is one member of a set.
type MultiRegionKey struct {
	ARN    string
	Region region.Name
	Member string // what the primary Region says of it, such as ACTIVE or SUSPENDED, as mrk.Status has it
	// DeletionDate is when the key is deleted in its Region, as that has last said; zero if it is not.
	DeletionDate time.Time
}

// CreateKeyInput asks for a new key.
type CreateKeyInput struct {
	Description                    string   // at most 8192 characters
	KeySpec                        KeySpec  // default SYMMETRIC_DEFAULT
	KeyUsage                       KeyUsage // default ENCRYPT_DECRYPT for SYMMETRIC_DEFAULT, else required
	Origin                         Origin   // default AWS_KMS
	Policy                         string   // at most 32 KiB; default: the account root may everything
	BypassPolicyLockoutSafetyCheck bool
	Tags                           []Tag // at most 50
	MultiRegion                    bool
}

// CreateKeyOutput describes the new key.
type CreateKeyOutput struct {
	KeyMetadata KeyMetadata
	Warnings    []string // what its maker should know of it; mostly none
}

// DescribeKeyInput names a key by key ID, key ARN, alias name or alias ARN.
type DescribeKeyInput struct {
	KeyID       string
	GrantTokens []string // at most 10, each of a grant to the caller on this key
}

// DescribeKeyOutput describes the key.
type DescribeKeyOutput struct{ KeyMetadata KeyMetadata }

// ListKeysInput asks for a page of the account's keys.
type ListKeysInput struct {
	Limit  int    // 1 to 1000; 0 = 100
	Marker string // NextMarker of the page before
}

// KeyListEntry is one key of a list.
type KeyListEntry struct {
	KeyID  arn.KeyID
	KeyARN string
}

// ListKeysOutput is a page of keys, ordered by key ID.
type ListKeysOutput struct {
	Keys       []KeyListEntry
	NextMarker string // set if Truncated
	Truncated  bool
}

// EnableKeyInput names a key by key ID or key ARN.
type EnableKeyInput struct{ KeyID string }

// EnableKeyOutput is empty.
type EnableKeyOutput struct{}

// DisableKeyInput names a key by key ID or key ARN.
type DisableKeyInput struct{ KeyID string }

// DisableKeyOutput is empty.
type DisableKeyOutput struct{}

// ReplicateKeyInput asks for a replica of a multi-Region primary key. Policy, description
// and tags belong to the replica; nothing is copied from the primary key.
type ReplicateKeyInput struct {
	KeyID                          string // key ID or key ARN
	ReplicaRegion                  string
	Policy                         string
	BypassPolicyLockoutSafetyCheck bool
	Description                    string
	Tags                           []Tag
}

// ReplicateKeyOutput describes the replica, which is Creating.
type ReplicateKeyOutput struct {
	ReplicaKeyMetadata KeyMetadata
	ReplicaPolicy      string
	ReplicaTags        []Tag
}

// CreateAliasInput names a new alias, alias/<name>, and the key ID or ARN that it points to.
type CreateAliasInput struct {
	AliasName   string
	TargetKeyID string
}

// CreateAliasOutput is empty.
type CreateAliasOutput struct{}

// UpdateAliasInput points an alias to another key of the same spec and usage.
type UpdateAliasInput struct {
	AliasName   string
	TargetKeyID string
}

// UpdateAliasOutput is empty.
type UpdateAliasOutput struct{}

// DeleteAliasInput names an alias.
type DeleteAliasInput struct{ AliasName string }

// DeleteAliasOutput is empty.
type DeleteAliasOutput struct{}

// ListAliasesInput asks for a page of the account's aliases, or of one key's.
type ListAliasesInput struct {
	KeyID  string // optional: key ID or key ARN
	Limit  int    // 1 to 100; 0 = 50
	Marker string
}

// AliasListEntry is one alias of a list.
type AliasListEntry struct {
	AliasName       string
	AliasARN        string
	TargetKeyID     arn.KeyID
	CreationDate    time.Time
	LastUpdatedDate time.Time
}

// ListAliasesOutput is a page of aliases, ordered by name.
type ListAliasesOutput struct {
	Aliases    []AliasListEntry
	NextMarker string
	Truncated  bool
}

// EncryptInput is up to 4096 bytes to encrypt.
type EncryptInput struct {
	KeyID               string // key ID, key ARN, alias name or alias ARN
	Plaintext           []byte // 1 to 4096 bytes
	EncryptionContext   map[string]string
	EncryptionAlgorithm Algorithm // default SYMMETRIC_DEFAULT
	DryRun              bool
	GrantTokens         []string
}

// EncryptOutput is a ciphertext. That of a symmetric key names its key and material; that of
// an RSA key is plain RSAES-OAEP, which who has the public key can make as well.
type EncryptOutput struct {
	CiphertextBlob      []byte
	KeyID               string // the key's ARN in this Region
	EncryptionAlgorithm Algorithm
	KeyMaterialID       string // empty for key pairs
}

// DecryptInput is a ciphertext and the context that it was made with.
type DecryptInput struct {
	CiphertextBlob      []byte // at most 6144 bytes
	EncryptionContext   map[string]string
	KeyID               string    // required for RSA keys, else optional; a ciphertext of another key is IncorrectKey
	EncryptionAlgorithm Algorithm // default SYMMETRIC_DEFAULT
	DryRun              bool
	GrantTokens         []string
}

// DecryptOutput is the plaintext.
type DecryptOutput struct {
	Plaintext           []byte
	KeyID               string
	EncryptionAlgorithm Algorithm
	KeyMaterialID       string
}

// GenerateDataKeyInput asks for random bytes, in plain and encrypted. Exactly one of
// KeySpec and NumberOfBytes is set.
type GenerateDataKeyInput struct {
	KeyID             string
	KeySpec           DataKeySpec
	NumberOfBytes     int // 1 to 1024
	EncryptionContext map[string]string
	DryRun            bool
	GrantTokens       []string
}

// GenerateDataKeyOutput is a data key.
type GenerateDataKeyOutput struct {
	CiphertextBlob []byte
	Plaintext      []byte
	KeyID          string
	KeyMaterialID  string
}

// GenerateMacInput is a message of 1 to 4096 bytes.
type GenerateMacInput struct {
	KeyID        string
	Message      []byte
	MacAlgorithm Algorithm
	DryRun       bool
	GrantTokens  []string
}

// GenerateMacOutput is the MAC.
type GenerateMacOutput struct {
	Mac          []byte
	KeyID        string
	MacAlgorithm Algorithm
}

// VerifyMacInput is a message and the MAC that it is said to have.
type VerifyMacInput struct {
	KeyID        string
	Message      []byte
	Mac          []byte // at most 6144 bytes
	MacAlgorithm Algorithm
	DryRun       bool
	GrantTokens  []string
}

// VerifyMacOutput is returned for a valid MAC only.
type VerifyMacOutput struct {
	MacValid     bool
	KeyID        string
	MacAlgorithm Algorithm
}

// SignInput is a message of 1 to 4096 bytes, or its digest.
type SignInput struct {
	KeyID            string
	Message          []byte
	MessageType      MessageType // default RAW
	SigningAlgorithm Algorithm
	DryRun           bool
	GrantTokens      []string
}

// SignOutput is the signature; ECDSA signatures are DER, RSA ones have the modulus' length.
type SignOutput struct {
	Signature        []byte
	KeyID            string
	SigningAlgorithm Algorithm
}

// VerifyInput is a message and its signature.
type VerifyInput struct {
	KeyID            string
	Message          []byte
	MessageType      MessageType
	Signature        []byte // at most 6144 bytes
	SigningAlgorithm Algorithm
	DryRun           bool
	GrantTokens      []string
}

// VerifyOutput is returned for a valid signature only.
type VerifyOutput struct {
	SignatureValid   bool
	KeyID            string
	SigningAlgorithm Algorithm
}

// GetPublicKeyInput names a key pair.
type GetPublicKeyInput struct {
	KeyID       string
	GrantTokens []string
}

// GetPublicKeyOutput is the public key as DER SubjectPublicKeyInfo.
type GetPublicKeyOutput struct {
	KeyID                  string
	PublicKey              []byte
	KeySpec                KeySpec
	KeyUsage               KeyUsage
	EncryptionAlgorithms   []Algorithm // those of the key's usage; the others are empty
	SigningAlgorithms      []Algorithm
	KeyAgreementAlgorithms []Algorithm
}

// GenerateRandomInput asks the token for 1 to 1024 random bytes.
type GenerateRandomInput struct{ NumberOfBytes int }

// GenerateRandomOutput is random bytes.
type GenerateRandomOutput struct{ Plaintext []byte }

// GetCallerIdentityInput is empty.
type GetCallerIdentityInput struct{}

// GetCallerIdentityOutput says who the service takes the caller for.
type GetCallerIdentityOutput struct {
	ARN     string
	Account arn.Account
}

// DescribeRegionInput is empty.
type DescribeRegionInput struct{}

// DescribeRegionOutput says what this Region is and what its token can do.
type DescribeRegionOutput struct {
	Region      region.Name
	Instance    region.InstanceID
	Partition   string
	Fingerprint string // of the Region's public descriptor
	Boundary    string // token, api-only or none: who enforces that material cannot leave
	Token       TokenDescription
	KeySpecs    []KeySpecSupport
	// WrappingAlgorithms and WrappingKeySpecs are what key material can be imported with.
	WrappingAlgorithms []WrappingAlgorithm
	WrappingKeySpecs   []WrappingKeySpec
	// Roster is the version of the roster of this Region's operators, of whom ApprovalsNeeded
	// have to approve the operations that ApprovedOperations names.
	Roster             uint64
	Operators          int
	ApprovalsNeeded    int
	ApprovedOperations []string
	KeyQuota           int // keys per account
	KeyCount           int // keys of the caller's account
}

// TokenDescription is what the token says of itself.
type TokenDescription struct {
	Label, Serial, Manufacturer, Model, Firmware, Profile string
	Backup                                                string // what brings single-Region keys back: files, clone or none
}

// KeySpecSupport says whether this token can hold keys of a spec.
type KeySpecSupport struct {
	KeySpec     KeySpec
	KeyUsages   []KeyUsage
	Algorithms  []Algorithm
	Supported   bool
	MultiRegion bool   // material can also be wrapped and unwrapped here
	Reason      string // why not
}
