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
}

// operations has one row for every operation; the name is that of the method, of the audit
// event and of the action, kms:<name>. An operation without a row is refused.
var operations = map[string]operation{
	"CreateKey":    {scope: onAccount, mutates: true},
	"DescribeKey":  {scope: onKey, aliases: true, foreign: true},
	"ListKeys":     {scope: onAccount},
	"EnableKey":    {scope: onKey, mutates: true},
	"DisableKey":   {scope: onKey, mutates: true},
	"GetKeyPolicy": {scope: onKey},
	"ReplicateKey": {scope: onKey, mutates: true},

	"UpdatePrimaryRegion": {scope: onKey, mutates: true},
	"PromoteKey":          {scope: onKey, mutates: true},
	"SuspendReplica":      {scope: onKey, mutates: true},
	"EvictReplica":        {scope: onKey, mutates: true},
	"WriteOffKeyMaterial": {scope: onKey, mutates: true},

	"CreateSynchronization":     {scope: onAccount, mutates: true},
	"AssociateReplicaInstance":  {scope: onAccount, mutates: true},
	"UpdateSynchronization":     {scope: onAccount, mutates: true},
	"GetSynchronization":        {scope: onAccount},
	"ListSynchronizations":      {scope: onAccount},
	"ListSynchronizedResources": {scope: onAccount},
	"ListReplicaResources":      {scope: onAccount},

	"ScheduleKeyDeletion":  {scope: onKey, mutates: true},
	"CancelKeyDeletion":    {scope: onKey, mutates: true},
	"EnableKeyRotation":    {scope: onKey, mutates: true},
	"DisableKeyRotation":   {scope: onKey, mutates: true},
	"GetKeyRotationStatus": {scope: onKey, foreign: true},
	"RotateKeyOnDemand":    {scope: onKey, mutates: true},
	"ListKeyRotations":     {scope: onKey},
	"GetKeyLastUsage":      {scope: onKey},

	"PutKeyPolicy":    {scope: onKey, mutates: true},
	"ListKeyPolicies": {scope: onKey},
	"ExplainAccess":   {scope: anyone, aliases: true}, // explain.go decides who hears what

	"CreateGrant":         {scope: onKey, mutates: true, foreign: true},
	"ListGrants":          {scope: onKey, foreign: true},
	"ListRetirableGrants": {scope: onAccount},
	"RetireGrant":         {scope: onKey, mutates: true, foreign: true},
	"RevokeGrant":         {scope: onKey, mutates: true, foreign: true},

	"TagResource":          {scope: onKey, mutates: true},
	"UntagResource":        {scope: onKey, mutates: true},
	"ListResourceTags":     {scope: onKey},
	"UpdateKeyDescription": {scope: onKey, mutates: true},

	"GetParametersForImport":    {scope: onKey, mutates: true},
	"ImportKeyMaterial":         {scope: onKey, mutates: true},
	"DeleteImportedKeyMaterial": {scope: onKey, mutates: true},

	"CreateAlias": {scope: onKey, mutates: true},
	"UpdateAlias": {scope: onKey, mutates: true},
	"DeleteAlias": {scope: onKey, mutates: true, aliases: true},
	"ListAliases": {scope: onAccount},

	"Encrypt":         {scope: onKey, crypto: true, aliases: true, foreign: true},
	"Decrypt":         {scope: onKey, crypto: true, aliases: true, foreign: true},
	"ReEncrypt":       {scope: onKey, crypto: true, aliases: true, foreign: true}, // two keys, two actions: reencrypt.go
	"GenerateDataKey": {scope: onKey, crypto: true, aliases: true, foreign: true},
	"GenerateMac":     {scope: onKey, crypto: true, aliases: true, foreign: true},
	"VerifyMac":       {scope: onKey, crypto: true, aliases: true, foreign: true},
	"Sign":            {scope: onKey, crypto: true, aliases: true, foreign: true},
	"Verify":          {scope: onKey, crypto: true, aliases: true, foreign: true},
	"GetPublicKey":    {scope: onKey, crypto: true, aliases: true, foreign: true},
	"GenerateRandom":  {scope: onAccount, crypto: true},

	"GenerateDataKeyWithoutPlaintext":     {scope: onKey, crypto: true, aliases: true, foreign: true},
	"GenerateDataKeyPair":                 {scope: onKey, crypto: true, aliases: true, foreign: true},
	"GenerateDataKeyPairWithoutPlaintext": {scope: onKey, crypto: true, aliases: true, foreign: true},
	"DeriveSharedSecret":                  {scope: onKey, crypto: true, aliases: true, foreign: true},

	"GetCallerIdentity": {scope: anyone},
	"DescribeRegion":    {scope: onAccount},
}
