package cli

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keyferry/keyferry/cmd/internal/envelope"
)

// Exit codes, documented in docs/reference/cli.md. Scripts branch on them.
const (
	ExitOK       = 0
	ExitFailed   = 1
	ExitUsage    = 2
	ExitDenied   = 3
	ExitNotFound = 4
	ExitInvalid  = 5 // ciphertext, envelope, signature or MAC does not hold
	ExitDrift    = 6 // related keys differ between Regions
	ExitUnwell   = 7 // a Region has a problem
)

// usageError is a mistake in how the command was called.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// reason returns the AWS error name that the server attached, or "".
func reason(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// dryRun is the error with which a call succeeds that was only a question.
const dryRun = "DryRunOperationException"

// exitCode maps an error to the process's exit code.
func exitCode(err error) int {
	var usage usageError
	switch {
	case err == nil || reason(err) == dryRun:
		return ExitOK
	case errors.As(err, &usage):
		return ExitUsage
	case errors.Is(err, errDrift):
		return ExitDrift
	case errors.Is(err, errUnwell):
		return ExitUnwell
	case errors.Is(err, envelope.ErrInvalid):
		return ExitInvalid
	}
	switch reason(err) {
	case "InvalidCiphertextException", "KMSInvalidSignatureException", "KMSInvalidMacException", "IncorrectKeyException":
		return ExitInvalid
	}
	switch status.Code(err) {
	case codes.PermissionDenied, codes.Unauthenticated:
		return ExitDenied
	case codes.NotFound:
		return ExitNotFound
	}
	return ExitFailed
}

// terse says in words what the errors mean that the API leaves without any, as AWS does.
var terse = map[string]string{
	"InvalidCiphertextException":   "the ciphertext does not hold: it was changed, or was made with another encryption context, or by a key that is not here",
	"KMSInvalidSignatureException": "the signature is not that of this message under this key",
	dryRun:                         "the request would have succeeded; nothing was done",
	"KMSInvalidMacException":       "the MAC is not that of this message under this key",
}

// report prints an error in one line: its name, and the server's words for what went wrong.
func report(w io.Writer, err error) {
	s, ok := status.FromError(err)
	if !ok {
		fmt.Fprintf(w, "keyferry: %v\n", err)
		return
	}
	name := reason(err)
	if name == "" {
		name = s.Code().String()
	}
	fmt.Fprintf(w, "keyferry: %s: %s\n", name, words(err))
}

// words returns what the server says of an error, without its code.
func words(err error) string {
	s, ok := status.FromError(err)
	if !ok {
		return err.Error()
	}
	if m := s.Message(); m != "" && m != reason(err) {
		return m
	}
	return terse[reason(err)]
}
