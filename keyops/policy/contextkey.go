package policy

import "strings"

// valueType says what the values of a condition key are, as a set of bits, so that an
// operator can say for which it is.
type valueType byte

const (
	stringType valueType = 1 << iota
	arnType
	boolType
	numericType
	dateType
	ipType

	anyType = stringType | arnType | boolType | numericType | dateType | ipType
)

func (t valueType) String() string {
	switch t {
	case stringType:
		return "String"
	case arnType:
		return "ARN"
	case boolType:
		return "Bool"
	case numericType:
		return "Numeric"
	case dateType:
		return "Date"
	case ipType:
		return "IP address"
	}
	return "any type"
}

// Condition keys whose values callers put into Request.Context, spelt as there. Each is one
// value, except where it says "a list". What the request or the key does not have is left
// out: an absent key and a key with an empty value are not the same.
const (
	RequestedRegion = "aws:RequestedRegion" // every request: the serving Region
	SourceIP        = "aws:SourceIp"        // every request: the client's address, without a port
	CurrentTime     = "aws:CurrentTime"     // every request: RFC 3339
	SecureTransport = "aws:SecureTransport" // every request: true, or false where TLS does not reach the client

	MultiRegion        = "kms:MultiRegion"        // on a key and CreateKey: true or false
	MultiRegionKeyType = "kms:MultiRegionKeyType" // the same, multi-Region keys only: PRIMARY or REPLICA; REPLICA when ReplicateKey asks for CreateKey
	KeySpec            = "kms:KeySpec"            // on a key and CreateKey, defaults filled in
	KeyUsage           = "kms:KeyUsage"           // the same
	KeyOrigin          = "kms:KeyOrigin"          // the same
	ResourceAliases    = "kms:ResourceAliases"    // on a key: a list, every alias/<name> of the key
	RequestAlias       = "kms:RequestAlias"       // the alias/<name> by which the request names the key

	PrimaryRegion = "kms:PrimaryRegion" // UpdatePrimaryRegion: the new primary key's Region
	ReplicaRegion = "kms:ReplicaRegion" // ReplicateKey: the replica's Region

	EncryptionAlgorithm   = "kms:EncryptionAlgorithm"   // defaults filled in, as for all that follow
	SigningAlgorithm      = "kms:SigningAlgorithm"      // Sign, Verify
	MacAlgorithm          = "kms:MacAlgorithm"          // GenerateMac, VerifyMac
	KeyAgreementAlgorithm = "kms:KeyAgreementAlgorithm" // DeriveSharedSecret
	MessageType           = "kms:MessageType"           // Sign, Verify
	DataKeyPairSpec       = "kms:DataKeyPairSpec"       // GenerateDataKeyPair and its other form
	ReEncryptOnSameKey    = "kms:ReEncryptOnSameKey"    // ReEncryptFrom, ReEncryptTo: true or false

	GrantOperations     = "kms:GrantOperations"     // CreateGrant: a list, such as Decrypt; also bounds what a grantee passes on
	GrantConstraintType = "kms:GrantConstraintType" // CreateGrant, RetireGrant: EncryptionContextEquals or EncryptionContextSubset
	GranteePrincipal    = "kms:GranteePrincipal"    // CreateGrant
	RetiringPrincipal   = "kms:RetiringPrincipal"   // CreateGrant

	WrappingAlgorithm = "kms:WrappingAlgorithm" // GetParametersForImport
	WrappingKeySpec   = "kms:WrappingKeySpec"   // GetParametersForImport
	ExpirationModel   = "kms:ExpirationModel"   // ImportKeyMaterial
	ValidTo           = "kms:ValidTo"           // ImportKeyMaterial: RFC 3339

	BypassPolicyLockoutSafetyCheck         = "kms:BypassPolicyLockoutSafetyCheck"         // CreateKey, PutKeyPolicy: true or false
	ScheduleKeyDeletionPendingWindowInDays = "kms:ScheduleKeyDeletionPendingWindowInDays" // ScheduleKeyDeletion
	RotationPeriodInDays                   = "kms:RotationPeriodInDays"                   // EnableKeyRotation
)

// source says where the values of a condition key come from.
type source byte

const (
	fromContext source = iota
	fromPrincipalARN
	fromPrincipalAccount
	fromEncryptionContext     // one pair of Request.EncryptionContext, by the name after the last colon
	fromEncryptionContextKeys // the names of all pairs
)

// conditionKey is one row of the table of condition keys.
type conditionKey struct {
	name   string
	typ    valueType
	multi  bool      // a request has any number of values
	on     actionSet // the actions that carry it
	source source
	values []string // all that there are, where the set is closed
}

var (
	everyCall  = actionsOf("*")
	everyKey   = actionsOn(onKey)
	keyOrNew   = with(everyKey, "kms:CreateKey")
	encrypting = actionsOf("kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*")
	inContext  = with(encrypting, "kms:CreateGrant", "kms:RetireGrant")
	byAlias    = with(encrypting, "kms:Sign", "kms:Verify", "kms:*Mac", "kms:DeriveSharedSecret", "kms:DescribeKey", "kms:GetPublicKey")
)

func actionsOn(kind resourceKind) (s actionSet) {
	for i, a := range actions {
		if a.on&kind != 0 {
			s.add(i)
		}
	}
	return s
}

func with(s actionSet, patterns ...string) actionSet {
	more := actionsOf(patterns...)
	return actionSet{s[0] | more[0], s[1] | more[1]}
}

// The table of condition keys: every one that a policy may name. Which actions carry which
// is AWS's table; see docs/policy.md for those that are left out.
var conditionKeys = []conditionKey{
	{name: CurrentTime, typ: dateType, on: everyCall},
	{name: "aws:PrincipalAccount", typ: stringType, on: everyCall, source: fromPrincipalAccount},
	{name: "aws:PrincipalArn", typ: arnType, on: everyCall, source: fromPrincipalARN},
	{name: RequestedRegion, typ: stringType, on: everyCall},
	{name: SecureTransport, typ: boolType, on: everyCall},
	{name: SourceIP, typ: ipType, on: everyCall},
	{name: BypassPolicyLockoutSafetyCheck, typ: boolType, on: actionsOf("kms:CreateKey", "kms:PutKeyPolicy")},
	{name: "kms:CallerAccount", typ: stringType, on: everyCall, source: fromPrincipalAccount},
	{name: DataKeyPairSpec, typ: stringType, on: actionsOf("kms:GenerateDataKeyPair*")},
	{name: EncryptionAlgorithm, typ: stringType, on: encrypting},
	{name: "kms:EncryptionContext:", typ: stringType, on: inContext, source: fromEncryptionContext},
	{name: "kms:EncryptionContextKeys", typ: stringType, multi: true, on: inContext, source: fromEncryptionContextKeys},
	{name: ExpirationModel, typ: stringType, on: actionsOf("kms:ImportKeyMaterial"), values: []string{"KEY_MATERIAL_EXPIRES", "KEY_MATERIAL_DOES_NOT_EXPIRE"}},
	{name: GrantConstraintType, typ: stringType, on: actionsOf("kms:CreateGrant", "kms:RetireGrant"), values: []string{"EncryptionContextEquals", "EncryptionContextSubset"}},
	{name: GranteePrincipal, typ: arnType, on: actionsOf("kms:CreateGrant")},
	{name: GrantOperations, typ: stringType, multi: true, on: actionsOf("kms:CreateGrant"), values: GrantableOperations()},
	{name: KeyAgreementAlgorithm, typ: stringType, on: actionsOf("kms:DeriveSharedSecret"), values: []string{"ECDH"}},
	{name: KeyOrigin, typ: stringType, on: keyOrNew, values: []string{"AWS_KMS", "EXTERNAL"}},
	{name: KeySpec, typ: stringType, on: keyOrNew},
	{name: KeyUsage, typ: stringType, on: keyOrNew, values: []string{"ENCRYPT_DECRYPT", "SIGN_VERIFY", "GENERATE_VERIFY_MAC", "KEY_AGREEMENT"}},
	{name: MacAlgorithm, typ: stringType, on: actionsOf("kms:GenerateMac", "kms:VerifyMac")},
	{name: MessageType, typ: stringType, on: actionsOf("kms:Sign", "kms:Verify"), values: []string{"RAW", "DIGEST"}},
	{name: MultiRegion, typ: boolType, on: keyOrNew},
	{name: MultiRegionKeyType, typ: stringType, on: keyOrNew, values: []string{"PRIMARY", "REPLICA"}},
	{name: PrimaryRegion, typ: stringType, on: actionsOf("kms:UpdatePrimaryRegion")},
	{name: ReEncryptOnSameKey, typ: boolType, on: actionsOf("kms:ReEncrypt*")},
	{name: ReplicaRegion, typ: stringType, on: actionsOf("kms:ReplicateKey")},
	{name: RequestAlias, typ: stringType, on: byAlias},
	{name: ResourceAliases, typ: stringType, multi: true, on: everyKey},
	{name: RetiringPrincipal, typ: arnType, on: actionsOf("kms:CreateGrant")},
	{name: RotationPeriodInDays, typ: numericType, on: actionsOf("kms:EnableKeyRotation")},
	{name: ScheduleKeyDeletionPendingWindowInDays, typ: numericType, on: actionsOf("kms:ScheduleKeyDeletion")},
	{name: SigningAlgorithm, typ: stringType, on: actionsOf("kms:Sign", "kms:Verify")},
	{name: ValidTo, typ: dateType, on: actionsOf("kms:ImportKeyMaterial")},
	{name: WrappingAlgorithm, typ: stringType, on: actionsOf("kms:GetParametersForImport")},
	{name: WrappingKeySpec, typ: stringType, on: actionsOf("kms:GetParametersForImport")},
}

// findConditionKey returns the row of a condition key, and what follows it in
// kms:EncryptionContext:<name>. As in AWS, letter case does not count.
func findConditionKey(text string) (row *conditionKey, name string, ok bool) {
	for i := range conditionKeys {
		row := &conditionKeys[i]
		if row.source == fromEncryptionContext {
			if n := len(row.name); len(text) > n && strings.EqualFold(text[:n], row.name) {
				return row, text[n:], true
			}
		} else if strings.EqualFold(text, row.name) {
			return row, "", true
		}
	}
	return nil, "", false
}

// nearestConditionKey returns the condition key that a misspelt name most resembles.
func nearestConditionKey(text string) string {
	best, bestDistance := "", 4
	for i := range conditionKeys {
		if d := distance(strings.ToLower(text), strings.ToLower(conditionKeys[i].name)); d < bestDistance {
			best, bestDistance = conditionKeys[i].name, d
		}
	}
	return best
}

// each calls do for every value that the request has for a condition key. An action that
// does not carry the key has none, whatever the caller filled in.
func (q *query) each(row *conditionKey, name string, do func(value string)) {
	if !row.on.has(q.action) {
		return
	}
	switch row.source {
	case fromPrincipalARN:
		do(q.who.arn)
	case fromPrincipalAccount:
		do(q.who.account)
	case fromEncryptionContext:
		for key, value := range q.encryption {
			if strings.EqualFold(key, name) {
				do(value)
			}
		}
	case fromEncryptionContextKeys:
		for key := range q.encryption {
			do(key)
		}
	default:
		for _, value := range q.context[row.name] {
			do(value)
		}
	}
}
