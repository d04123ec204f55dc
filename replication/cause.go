package replication

import (
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/replication/message"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement"
)

// toldError is trouble that the peer has told.
type toldError struct{ message.Trouble }

// Error returns the cause and what the peer said of it.
func (e *toldError) Error() string { return fmt.Sprintf("%s: %s", e.Cause, e.Text) }

func troubleError(t message.Trouble) error { return &toldError{t} }

// causes maps errors to causes. The first row that matches decides; what matches none is
// the token's or the store's fault, which passes.
var causes = []struct {
	is    error
	cause mrk.Cause
}{
	{keyops.ErrReplicaFrozen, mrk.CauseReplicaFrozen},
	{keyops.ErrPeerUnreachable, mrk.CausePeerUnreachable},
	{errStale, mrk.CausePeerUnreachable},
	{keyops.ErrNoTransportKey, mrk.CauseTransportKeyMissing},
	{keyops.ErrMaterialMismatch, mrk.CauseMaterialMismatch},
	{mrk.ErrUnlisted, mrk.CauseMaterialMismatch},
	{mrk.ErrMaterial, mrk.CauseMaterialMismatch},
	{keyops.ErrNotHeld, mrk.CauseMaterialLost},
	{mrk.ErrEpochFork, mrk.CauseEpochFork},
	{mrk.ErrEquivocation, mrk.CauseEquivocation},
	{mrk.ErrCertificate, mrk.CauseSignatureInvalid},
	{mrk.ErrFormer, mrk.CauseSignatureInvalid},
	{mrk.ErrProperties, mrk.CauseEquivocation},
	{statement.ErrSignature, mrk.CauseSignatureInvalid},
	{errMessage, mrk.CauseSignatureInvalid},
	{errNotPinned, mrk.CauseSignatureInvalid},
	{mrk.ErrRequest, mrk.CauseCreateRequestMissing},
	{mrk.ErrGap, mrk.CauseWaitingForConfirmation},
	{mrk.ErrRosterUnknown, mrk.CauseWaitingForConfirmation},
	{mrk.ErrForeign, mrk.CauseWaitingForConfirmation},
	{keyops.ErrAlreadyExists, mrk.CauseAlreadyExists},
	{keyops.ErrTokenFull, mrk.CauseTokenFull},
	{keyops.ErrLimitExceeded, mrk.CauseQuotaExceeded},
	{keyops.ErrUnsupportedOperation, mrk.CauseMechanismUnsupported},
	{errUnsupported, mrk.CauseMechanismUnsupported},
	{keyops.ErrAccessDenied, mrk.CauseAccessDenied},
	{keyops.ErrMalformedPolicyDocument, mrk.CauseAccessDenied},
	{keyops.ErrValidation, mrk.CauseAccessDenied},
	{keyops.ErrTag, mrk.CauseAccessDenied},
}

// causeOf says in the API's terms why something failed.
func causeOf(err error) mrk.Cause {
	var told *toldError
	if errors.As(err, &told) {
		return told.Cause
	}
	for _, row := range causes {
		if errors.Is(err, row.is) {
			return row.cause
		}
	}
	return mrk.CauseTokenUnavailable
}

// tell turns an error into what the other Region may know of it. The text of an answer to a
// client is meant for others; other texts name facts that the peer knows anyway.
func tell(err error) message.Trouble {
	if err == nil {
		return message.Trouble{}
	}
	cause := causeOf(err)
	var e *keyops.Error
	switch {
	case errors.As(err, &e):
		return message.Trouble{Cause: cause, Text: clip(e.Message, message.MaxText)}
	case cause == mrk.CauseTokenUnavailable:
		return message.Trouble{Cause: cause, Text: "the Region's log says why"}
	}
	return message.Trouble{Cause: cause, Text: clip(err.Error(), message.MaxText)}
}
