package keyops

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/ciphertext"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/store"
)

// refuse returns an error whose text is for the caller.
func refuse(r Reason, format string, args ...any) *Error {
	return &Error{Reason: r, Message: fmt.Sprintf(format, args...)}
}

// invalid says that a field is outside its bounds, in AWS's words.
func invalid(field, constraint string, args ...any) *Error {
	return refuse(ErrValidation, "1 validation error detected: Value at '%s' failed to satisfy constraint: Member must %s", field, fmt.Sprintf(constraint, args...))
}

// internal hides a fault of ours from the caller and keeps it for the log.
func internal(err error) *Error {
	return &Error{Reason: ErrInternal, Message: "internal error; the daemon's log has the details under this request ID", cause: err}
}

// answers maps what packages underneath report to what a caller is told. The first row that
// matches decides. What matches none is internal.
var answers = []struct {
	is      error
	reason  Reason
	message string
}{
	{context.Canceled, ErrDependencyTimeout, "the call was cancelled"},
	{context.DeadlineExceeded, ErrDependencyTimeout, "the call took longer than it may; it can be repeated"},
	{hsm.ErrUnavailable, ErrKeyUnavailable, "the token is not reachable now; the call can be repeated"},
	{hsm.ErrSessionDead, ErrKeyUnavailable, "the token lost the session; the call can be repeated"},
	{hsm.ErrNotFound, ErrKeyUnavailable, "the key material is not in this Region's token now; the call can be repeated"},
	{hsm.ErrTokenFull, ErrLimitExceeded, "the token has no room for another key"},
	{hsm.ErrNotSupported, ErrUnsupportedOperation, "this Region's token cannot do that"},
	{store.ErrFull, ErrLimitExceeded, "this Region's store is full; the call can be repeated once its operator has made room"},
	{store.ErrLeaseLost, ErrInternal, "this daemon is not the Region's writer any more; another one serves, or will"},
	{audit.ErrUnavailable, ErrInternal, "the audit log takes no records now, so the call is refused; it can be repeated once the operator has made room for the log"},
	{ErrNotFound, ErrNotFound, "the key was deleted meanwhile"},
	{ErrPeerUnreachable, ErrDependencyTimeout, "the other Region did not answer; the call can be repeated"},
}

// answer turns any error into the *Error that the caller gets.
func answer(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	for _, row := range answers {
		if errors.Is(err, row.is) {
			return &Error{Reason: row.reason, Message: row.message, cause: err}
		}
	}
	return internal(err)
}

// carried maps what the token says of a material on its way to what package replication,
// which never sees a token, can tell apart.
var carried = []struct{ is, as error }{
	{hsm.ErrDataInvalid, ErrMaterialMismatch},
	{hsm.ErrTokenFull, ErrTokenFull},
	{hsm.ErrNotSupported, ErrUnsupportedOperation},
}

func fromToken(err error) error {
	for _, row := range carried {
		if errors.Is(err, row.is) {
			return fmt.Errorf("%w: %w", row.as, err)
		}
	}
	return err
}

// fromState turns a refusal by the table of key states into an answer.
func fromState(err error, arn string) error {
	var e *keystate.Error
	if errors.As(err, &e) {
		return &Error{Reason: Reason(e.Reason), Message: e.Message(arn), cause: err}
	}
	return err
}

// fromBlob gives every fault of a ciphertext the one answer that it has. A fault of the
// encryption context in a request to encrypt is the caller's own and may be named.
func fromBlob(err error) error {
	return &Error{Reason: ErrInvalidCiphertext, cause: err}
}

func fromContext(err error) error {
	if errors.Is(err, ciphertext.ErrContext) {
		return &Error{Reason: ErrValidation, Message: err.Error(), cause: err}
	}
	return err
}
