package keyops

import "errors"

// Reason is the name that AWS gives to a class of errors. It is itself an error, so that
// errors.Is(err, ErrNotFound) asks for the class.
type Reason string

// Error returns the name.
func (r Reason) Error() string { return string(r) }

// Reasons. Each says what the caller can do about it.
const (
	// ErrNotFound: there is no such key or alias, and the caller may know that.
	ErrNotFound Reason = "NotFoundException"
	// ErrDisabled: the key is disabled; enable it first.
	ErrDisabled Reason = "DisabledException"
	// ErrInvalidState: the key's state does not allow this operation now.
	ErrInvalidState Reason = "KMSInvalidStateException"
	// ErrInvalidKeyUsage: the key's usage or spec does not have this operation or algorithm.
	ErrInvalidKeyUsage Reason = "InvalidKeyUsageException"
	// ErrInvalidCiphertext: the ciphertext, its context or its key do not fit. It never
	// says which.
	ErrInvalidCiphertext Reason = "InvalidCiphertextException"
	// ErrIncorrectKey: the ciphertext was made by another key than the one named.
	ErrIncorrectKey Reason = "IncorrectKeyException"
	// ErrAccessDenied: no policy allows the call, or one denies it.
	ErrAccessDenied Reason = "AccessDeniedException"
	// ErrAlreadyExists: the alias or the replica exists.
	ErrAlreadyExists Reason = "AlreadyExistsException"
	// ErrInvalidAliasName: the alias name is malformed or reserved.
	ErrInvalidAliasName Reason = "InvalidAliasNameException"
	// ErrConflict: the key is being rotated, or soon will be; the call may be repeated.
	ErrConflict Reason = "ConflictException"
	// ErrLimitExceeded: a quota is used up.
	ErrLimitExceeded Reason = "LimitExceededException"
	// ErrInvalidMac: the MAC is not that of the message.
	ErrInvalidMac Reason = "KMSInvalidMacException"
	// ErrInvalidSignature: the signature is not that of the message.
	ErrInvalidSignature Reason = "KMSInvalidSignatureException"
	// ErrKeyUnavailable: the material is not usable here now; the call may be repeated.
	ErrKeyUnavailable Reason = "KeyUnavailableException"
	// ErrDependencyTimeout: the token or another Region did not answer in time; the call
	// may be repeated.
	ErrDependencyTimeout Reason = "DependencyTimeoutException"
	// ErrUnsupportedOperation: this key, or this token, can never do that.
	ErrUnsupportedOperation Reason = "UnsupportedOperationException"
	// ErrInvalidArn: the ARN or Region name is malformed or unknown.
	ErrInvalidArn Reason = "InvalidArnException"
	// ErrInvalidGrantToken: a grant token names no grant that is in force for the caller on
	// the key, in this Region.
	ErrInvalidGrantToken Reason = "InvalidGrantTokenException"
	// ErrInvalidGrantID: the grant ID is malformed.
	ErrInvalidGrantID Reason = "InvalidGrantIdException"
	// ErrIncorrectKeyMaterial: the material is not the one that the key had, or has it already.
	ErrIncorrectKeyMaterial Reason = "IncorrectKeyMaterialException"
	// ErrExpiredImportToken: the import token is more than a day old; fetch new parameters.
	ErrExpiredImportToken Reason = "ExpiredImportTokenException"
	// ErrInvalidImportToken: the import token is spent, or of another key; fetch new parameters.
	ErrInvalidImportToken Reason = "InvalidImportTokenException"
	// ErrInvalidMarker: the marker is not one that this operation returned.
	ErrInvalidMarker Reason = "InvalidMarkerException"
	// ErrMalformedPolicyDocument: the policy is refused, with the place and what to do.
	ErrMalformedPolicyDocument Reason = "MalformedPolicyDocumentException"
	// ErrTag: a tag is refused.
	ErrTag Reason = "TagException"
	// ErrValidation: a field is missing, too long or out of its range.
	ErrValidation Reason = "ValidationException"
	// ErrDryRun: the call would have succeeded, but DryRun was set.
	ErrDryRun Reason = "DryRunOperationException"
	// ErrThrottling: too many calls; repeat later.
	ErrThrottling Reason = "ThrottlingException"
	// ErrInternal: something is wrong here. The message has no detail; the log has it.
	ErrInternal Reason = "KMSInternalException"
)

// Reasons lists every reason, for those who must map each of them.
var Reasons = []Reason{
	ErrNotFound, ErrDisabled, ErrInvalidState, ErrInvalidKeyUsage, ErrInvalidCiphertext, ErrIncorrectKey,
	ErrAccessDenied, ErrAlreadyExists, ErrInvalidAliasName, ErrConflict, ErrLimitExceeded, ErrInvalidMac,
	ErrInvalidSignature, ErrInvalidGrantToken, ErrInvalidGrantID, ErrKeyUnavailable, ErrDependencyTimeout, ErrUnsupportedOperation, ErrInvalidArn,
	ErrInvalidMarker, ErrMalformedPolicyDocument, ErrTag, ErrValidation, ErrDryRun, ErrThrottling, ErrInternal,
	ErrIncorrectKeyMaterial, ErrExpiredImportToken, ErrInvalidImportToken,
}

// Error is what every operation returns. Its text is for the caller; the cause is for the
// log only, and Error() does not print it.
type Error struct {
	Reason  Reason
	Message string // empty where AWS sends none
	cause   error
}

// Error returns the reason and the message.
func (e *Error) Error() string {
	if e.Message == "" {
		return string(e.Reason)
	}
	return string(e.Reason) + ": " + e.Message
}

// Unwrap lets errors.Is find the reason and the cause.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.Reason}
	}
	return []error{e.Reason, e.cause}
}

// Cause returns what went wrong underneath, for the log. It is nil if nothing did.
func (e *Error) Cause() error { return e.cause }

// Errors of the replication door, which are not answers to clients.
var (
	// ErrUnchanged is returned by the function given to UpdateShared when there is nothing
	// to write.
	ErrUnchanged = errors.New("nothing changed")
	// ErrMaterialMismatch means that an unwrapped material is not the one that its ID
	// promised. The object was destroyed.
	ErrMaterialMismatch = errors.New("material does not have the promised ID")
	// ErrNotHeld means that this Region does not hold the material that it was asked to wrap.
	ErrNotHeld = errors.New("material not held here")
	// ErrNoTransportKey means that no transport key towards that Region, or from it, is
	// established.
	ErrNoTransportKey = errors.New("no transport key")
	// ErrTokenFull means that this Region's token has no room for the material.
	ErrTokenFull = errors.New("token full")
	// ErrReplicaFrozen means that an instance was disassociated, and changes nothing any more.
	ErrReplicaFrozen = errors.New("replica instance frozen")
	// ErrPeerUnreachable means that the other Region did not answer.
	ErrPeerUnreachable = errors.New("peer unreachable")
)
