package keystate

import (
	"fmt"
	"slices"
	"strings"
)

// Operation is the name of an operation on an existing key, as in AWS KMS.
type Operation string

// Reason is the name of the error that a refused caller gets, as in AWS KMS.
type Reason string

// Reasons of refusals.
const (
	ReasonDisabled     Reason = "DisabledException"
	ReasonInvalidState Reason = "KMSInvalidStateException"
	ReasonUnsupported  Reason = "UnsupportedOperationException"
)

// Facts are what decides beside the state.
type Facts struct {
	External  bool // the key's origin is EXTERNAL: its material is imported, and it can take imports
	OldTarget bool // UpdateAlias only: the key is the one that the alias pointed to
}

// Error says why a key's state, or its origin, refuses an operation.
type Error struct {
	Op     Operation
	State  State
	Reason Reason
	text   string
}

// Error names the operation and the reason, but not the key, which the caller knows.
func (e *Error) Error() string {
	return fmt.Sprintf("%s: key %s", e.Op, strings.TrimSuffix(e.text, "."))
}

// Message returns what the caller is told, in AWS's words, such as "<ARN> is disabled.".
func (e *Error) Message(keyARN string) string { return keyARN + " " + e.text }

// outcome is what one cell of the table says for one origin.
type outcome byte

const (
	allowed     outcome = iota
	disabled            // Disabled: "is disabled."
	wrongState          // KMSInvalidState: "is pending deletion.", "is creating.", ...
	notPending          // KMSInvalidState: "is not pending deletion."
	unsupported         // UnsupportedOperation: "origin is ... which is not valid for this operation."
)

// cell is an outcome for keys made here and one for keys of origin EXTERNAL.
type cell struct{ made, external outcome }

func both(o outcome) cell { return cell{o, o} }

var (
	yes         = both(allowed)
	isDisabled  = both(disabled)
	isBusy      = both(wrongState)
	onlyMade    = cell{allowed, unsupported} // automatic rotation
	onlyImports = cell{unsupported, allowed}
)

// row says what a class of operations does in each state.
type row struct {
	enabled, disabled, pendingDeletion, pendingImport, unavailable, creating, updating cell
}

// The classes. Where AWS documents two possible refusals, UnsupportedOperation comes before
// all that a change of state would lift, and a pending deletion is KMSInvalidState for every
// class.
var (
	// Reading, and what must work while a key is on its way out.
	always = row{yes, yes, yes, yes, yes, yes, yes}
	// Names and words of a key that is to stay.
	describe = row{yes, yes, isBusy, yes, yes, yes, yes}
	// Cryptography. It works through Updating: a hand-over interrupts nobody.
	use = row{yes, isDisabled, isBusy, isBusy, isBusy, isBusy, yes}
	// Grants may be prepared for a key that is unavailable just now.
	grant    = row{yes, isDisabled, isBusy, isBusy, yes, isBusy, yes}
	onOff    = row{yes, yes, isBusy, isBusy, yes, isBusy, isBusy}
	cancel   = row{both(notPending), both(notPending), yes, both(notPending), both(notPending), both(notPending), both(notPending)}
	schedule = row{yes, yes, isBusy, yes, yes, yes, isBusy}
	// The switch of automatic rotation is a setting, and is handed over with the role.
	setRotation = row{
		enabled:         onlyMade,
		disabled:        cell{disabled, unsupported},
		pendingDeletion: cell{wrongState, unsupported},
		pendingImport:   both(unsupported),
		unavailable:     cell{wrongState, unsupported},
		creating:        isBusy,
		updating:        onlyMade,
	}
	getRotation = row{onlyMade, onlyMade, onlyMade, both(unsupported), onlyMade, onlyMade, onlyMade}
	// Rotating now needs the acting primary key, so it waits for a hand-over to end.
	rotate = row{yes, isDisabled, isBusy, isBusy, isBusy, isBusy, isBusy}
	// Related keys are made from, and handed over by, a key in order only.
	replicate = row{yes, isDisabled, isBusy, isBusy, isBusy, isBusy, isBusy}
	// A second hand-over is refused by the first one's certificate, not by the state.
	handOver = row{yes, isDisabled, isBusy, isBusy, isBusy, isBusy, yes}
	// What operators decide about members and materials is the acting primary Region's to
	// write down, whatever its own key is used for. During a hand-over nobody acts.
	membership = row{yes, yes, yes, yes, yes, isBusy, isBusy}

	// Keys made here never take an import, in any state. Keys of origin EXTERNAL are never
	// Unavailable, but PendingImport.
	busyImport    = cell{unsupported, wrongState}
	prepareImport = row{onlyImports, onlyImports, busyImport, onlyImports, busyImport, isBusy, isBusy}
	importing     = row{onlyImports, onlyImports, busyImport, onlyImports, busyImport, isBusy, onlyImports}
	deleteImport  = row{onlyImports, onlyImports, onlyImports, onlyImports, busyImport, isBusy, isBusy}
)

// operations is the table. An operation that is not in it is refused.
var operations = map[Operation]row{
	"CancelKeyDeletion":                   cancel,
	"CreateAlias":                         describe,
	"CreateGrant":                         grant,
	"Decrypt":                             use,
	"DeleteAlias":                         always,
	"DeleteImportedKeyMaterial":           deleteImport,
	"DeriveSharedSecret":                  use,
	"DescribeKey":                         always,
	"DisableKey":                          onOff,
	"DisableKeyRotation":                  setRotation,
	"EnableKey":                           onOff,
	"EnableKeyRotation":                   setRotation,
	"Encrypt":                             use,
	"EvictReplica":                        membership,
	"GenerateDataKey":                     use,
	"GenerateDataKeyPair":                 use,
	"GenerateDataKeyPairWithoutPlaintext": use,
	"GenerateDataKeyWithoutPlaintext":     use,
	"GenerateMac":                         use,
	"GetKeyLastUsage":                     always,
	"GetKeyPolicy":                        always,
	"GetKeyRotationStatus":                getRotation,
	"GetParametersForImport":              prepareImport,
	"GetPublicKey":                        use,
	"ImportKeyMaterial":                   importing,
	"ListAliases":                         always,
	"ListGrants":                          always,
	"ListKeyPolicies":                     always,
	"ListKeyRotations":                    always,
	"ListResourceTags":                    always,
	"PromoteKey":                          handOver,
	"PutKeyPolicy":                        always,
	"ReEncrypt":                           use,
	"ReplicateKey":                        replicate,
	"RetireGrant":                         always,
	"RevokeGrant":                         always,
	"RotateKeyOnDemand":                   rotate,
	"ScheduleKeyDeletion":                 schedule,
	"Sign":                                use,
	"SuspendReplica":                      membership,
	"TagResource":                         describe,
	"UntagResource":                       describe,
	"UpdateAlias":                         describe,
	"UpdateKeyDescription":                describe,
	"UpdatePrimaryRegion":                 handOver,
	"Verify":                              use,
	"VerifyMac":                           use,
	"WriteOffKeyMaterial":                 membership,
}

// Operations returns every operation of the table, sorted.
func Operations() []Operation {
	ops := make([]Operation, 0, len(operations))
	for op := range operations {
		ops = append(ops, op)
	}
	slices.Sort(ops)
	return ops
}

// texts end the sentence that begins with a key's ARN.
var texts = map[State]string{
	Disabled:               "is disabled.",
	PendingDeletion:        "is pending deletion.",
	PendingReplicaDeletion: "is pending replica deletion.",
	PendingImport:          "is pending import.",
	Unavailable:            "is unavailable.",
	Creating:               "is creating.",
	Updating:               "is updating.",
}

// Check returns nil if a key in the given state allows the operation, or else an *Error.
// An operation or a state that no table knows is refused.
func Check(state State, op Operation, facts Facts) error {
	r, ok := operations[op]
	if !ok {
		return fmt.Errorf("operation %q has no row in the table of key states", op)
	}
	var c cell
	switch state {
	case Enabled:
		c = r.enabled
	case Disabled:
		c = r.disabled
	case PendingDeletion, PendingReplicaDeletion:
		c = r.pendingDeletion
		if op == "UpdateAlias" && facts.OldTarget {
			c = yes // or no alias could leave a key that is about to go
		}
	case PendingImport:
		c = r.pendingImport
	case Unavailable:
		c = r.unavailable
	case Creating:
		c = r.creating
	case Updating:
		c = r.updating
	default:
		return fmt.Errorf("%s: key state %q unknown", op, state)
	}
	o := c.made
	if facts.External {
		o = c.external
	}
	switch o {
	case allowed:
		return nil
	case disabled:
		return &Error{op, state, ReasonDisabled, texts[state]}
	case notPending:
		return &Error{op, state, ReasonInvalidState, "is not pending deletion."}
	case unsupported:
		origin := "AWS_KMS"
		if facts.External {
			origin = "EXTERNAL"
		}
		return &Error{op, state, ReasonUnsupported, "origin is " + origin + " which is not valid for this operation."}
	default:
		return &Error{op, state, ReasonInvalidState, texts[state]}
	}
}
