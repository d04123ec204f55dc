package cli

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Exit codes, documented in docs/reference/cli.md. Scripts branch on them.
const (
	ExitOK       = 0
	ExitFailed   = 1
	ExitUsage    = 2
	ExitDenied   = 3
	ExitNotFound = 4
	ExitInvalid  = 5 // ciphertext, signature or MAC does not hold
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

// exitCode maps an error to the process's exit code.
func exitCode(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &usage):
		return ExitUsage
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

// report prints an error in one line: the server's words, and its name for what went wrong.
func report(w io.Writer, err error) {
	s, ok := status.FromError(err)
	if !ok {
		fmt.Fprintf(w, "keyferry: %v\n", err)
		return
	}
	if r := reason(err); r != "" {
		fmt.Fprintf(w, "keyferry: %s: %s\n", r, s.Message())
		return
	}
	fmt.Fprintf(w, "keyferry: %s: %s\n", s.Code(), s.Message())
}
