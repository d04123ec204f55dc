package keyops

// scope says what an operation is on, and so which policies decide.
type scope int

const (
	onKey     scope = iota // one key, named by a reference: its key policy and the caller's identity policies
	onAccount              // no existing key: the caller's identity policies alone
	anyone                 // the caller itself, or what every caller may know
)

// operation is what is true of every call of one method of the Service.
type operation struct {
	scope   scope
	crypto  bool // audited in the queue, not before the answer
	mutates bool // audited before it begins, too, so that no change is without a trace
	aliases bool // the key may be named by an alias
	foreign bool // the key may be another account's, if both sides' policies allow it
	frozen  whenFrozen
}

// operations has one row for every operation; the name is that of the method, of the audit
// event and of the action, kms:<name>. An operation without a row is refused.
var operations = map[string]operation{
	"CreateKey":    {scope: onAccount, mutates: true, frozen: closed},
	"DescribeKey":  {scope: onKey, aliases: true, foreign: true, frozen: goesOn},
	"ListKeys":     {scope: onAccount, frozen: goesOn},
	"EnableKey":    {scope: onKey, mutates: true, frozen: keepsKeys},
	"DisableKey":   {scope: onKey, mutates: true, frozen: keepsKeys},
	"GetKeyPolicy": {scope: onKey, frozen: goesOn},
	"ReplicateKey": {scope: onKey, mutates: true, frozen: keepsKeys},

	"UpdatePrimaryRegion": {scope: onKey, mutates: true, frozen: keepsKeys},
	"PromoteKey":          {scope: onKey, mutates: true, frozen: keepsKeys},
	"SuspendReplica":      {scope: onKey, mutates: true, frozen: keepsKeys},
	"EvictReplica":        {scope: onKey, mutates: true, frozen: keepsKeys},
	"WriteOffKeyMaterial": {scope: onKey, mutates: true, frozen: keepsKeys},

	"CreateSynchronization":       {scope: onAccount, mutates: true, frozen: closed},
	"AssociateReplicaInstance":    {scope: onAccount, mutates: true, frozen: closed},
	"UpdateSynchronization":       {scope: onAccount, mutates: true, frozen: closed},
	"DisassociateReplicaInstance": {scope: onAccount, mutates: true, frozen: closed},
	"GetSynchronization":          {scope: onAccount, frozen: goesOn},
	"ListSynchronizations":        {scope: onAccount, frozen: goesOn},
	"ListSynchronizedResources":   {scope: onAccount, frozen: goesOn},
	"ListReplicaResources":        {scope: onAccount, frozen: goesOn},

	"ScheduleKeyDeletion":  {scope: onKey, mutates: true, frozen: keepsKeys},
	"CancelKeyDeletion":    {scope: onKey, mutates: true, frozen: keepsKeys},
	"EnableKeyRotation":    {scope: onKey, mutates: true, frozen: keepsKeys},
	"DisableKeyRotation":   {scope: onKey, mutates: true, frozen: keepsKeys},
	"GetKeyRotationStatus": {scope: onKey, foreign: true, frozen: goesOn},
	"RotateKeyOnDemand":    {scope: onKey, mutates: true, frozen: keepsKeys},
	"ListKeyRotations":     {scope: onKey, frozen: goesOn},
	"GetKeyLastUsage":      {scope: onKey, frozen: goesOn},

	"PutKeyPolicy":    {scope: onKey, mutates: true, frozen: keepsKeys},
	"ListKeyPolicies": {scope: onKey, frozen: goesOn},
	"ExplainAccess":   {scope: anyone, aliases: true, frozen: goesOn}, // explain.go decides who hears what

	"CreateGrant":         {scope: onKey, mutates: true, foreign: true, frozen: keepsKeys},
	"ListGrants":          {scope: onKey, foreign: true, frozen: goesOn},
	"ListRetirableGrants": {scope: onAccount, frozen: goesOn},
	"RetireGrant":         {scope: onKey, mutates: true, foreign: true, frozen: keepsKeys},
	"RevokeGrant":         {scope: onKey, mutates: true, foreign: true, frozen: keepsKeys},

	"TagResource":          {scope: onKey, mutates: true, frozen: keepsKeys},
	"UntagResource":        {scope: onKey, mutates: true, frozen: keepsKeys},
	"ListResourceTags":     {scope: onKey, frozen: goesOn},
	"UpdateKeyDescription": {scope: onKey, mutates: true, frozen: keepsKeys},

	"GetParametersForImport":    {scope: onKey, mutates: true, frozen: keepsKeys},
	"ImportKeyMaterial":         {scope: onKey, mutates: true, frozen: keepsKeys},
	"DeleteImportedKeyMaterial": {scope: onKey, mutates: true, frozen: keepsKeys},

	"CreateAlias": {scope: onKey, mutates: true, frozen: keepsKeys},
	"UpdateAlias": {scope: onKey, mutates: true, frozen: keepsKeys},
	"DeleteAlias": {scope: onKey, mutates: true, aliases: true, frozen: keepsKeys},
	"ListAliases": {scope: onAccount, frozen: goesOn},

	"Encrypt":         {scope: onKey, crypto: true, aliases: true, foreign: true, frozen: goesOn},
	"Decrypt":         {scope: onKey, crypto: true, aliases: true, foreign: true, frozen: goesOn},
	"ReEncrypt":       {scope: onKey, crypto: true, aliases: true, foreign: true, frozen: goesOn}, // two keys, two actions: reencrypt.go
	"GenerateDataKey": {scope: onKey, crypto: true, aliases: true, foreign: true, frozen: goesOn},
	"GenerateMac":     {scope: onKey, crypto: true, aliases: true, foreign: true, frozen: goesOn},
	"VerifyMac":       {scope: onKey, crypto: true, aliases: true, foreign: true, frozen: goesOn},
	"Sign":            {scope: onKey, crypto: true, aliases: true, foreign: true, frozen: goesOn},
	"Verify":          {scope: onKey, crypto: true, aliases: true, foreign: true, frozen: goesOn},
	"GetPublicKey":    {scope: onKey, crypto: true, aliases: true, foreign: true, frozen: goesOn},
	"GenerateRandom":  {scope: onAccount, crypto: true, frozen: goesOn},

	"GenerateDataKeyWithoutPlaintext":     {scope: onKey, crypto: true, aliases: true, foreign: true, frozen: goesOn},
	"GenerateDataKeyPair":                 {scope: onKey, crypto: true, aliases: true, foreign: true, frozen: goesOn},
	"GenerateDataKeyPairWithoutPlaintext": {scope: onKey, crypto: true, aliases: true, foreign: true, frozen: goesOn},
	"DeriveSharedSecret":                  {scope: onKey, crypto: true, aliases: true, foreign: true, frozen: goesOn},

	"GetCallerIdentity": {scope: anyone, frozen: goesOn},
	"DescribeRegion":    {scope: onAccount, frozen: goesOn},
}
