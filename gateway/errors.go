package gateway

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyferry/keyferry/gateway/bearer"
	"github.com/keyferry/keyferry/keyops"
)

// errorDomain is the domain of every ErrorInfo.
const errorDomain = "keyferry"

// reasonCodes maps every reason of keyops to a gRPC code; HTTP statuses follow from the
// codes. docs/reference/errors.md is written from it.
var reasonCodes = map[keyops.Reason]codes.Code{
	keyops.ErrNotFound:                codes.NotFound,
	keyops.ErrDisabled:                codes.FailedPrecondition,
	keyops.ErrInvalidState:            codes.FailedPrecondition,
	keyops.ErrInvalidKeyUsage:         codes.FailedPrecondition,
	keyops.ErrInvalidCiphertext:       codes.InvalidArgument,
	keyops.ErrIncorrectKey:            codes.InvalidArgument,
	keyops.ErrAccessDenied:            codes.PermissionDenied,
	keyops.ErrAlreadyExists:           codes.AlreadyExists,
	keyops.ErrInvalidAliasName:        codes.InvalidArgument,
	keyops.ErrConflict:                codes.Aborted,
	keyops.ErrLimitExceeded:           codes.ResourceExhausted,
	keyops.ErrInvalidMac:              codes.InvalidArgument,
	keyops.ErrInvalidSignature:        codes.InvalidArgument,
	keyops.ErrKeyUnavailable:          codes.Unavailable,
	keyops.ErrDependencyTimeout:       codes.DeadlineExceeded,
	keyops.ErrUnsupportedOperation:    codes.FailedPrecondition,
	keyops.ErrInvalidArn:              codes.InvalidArgument,
	keyops.ErrInvalidGrantToken:       codes.InvalidArgument,
	keyops.ErrInvalidGrantID:          codes.InvalidArgument,
	keyops.ErrIncorrectKeyMaterial:    codes.InvalidArgument,
	keyops.ErrExpiredImportToken:      codes.FailedPrecondition,
	keyops.ErrInvalidImportToken:      codes.InvalidArgument,
	keyops.ErrInvalidMarker:           codes.InvalidArgument,
	keyops.ErrMalformedPolicyDocument: codes.InvalidArgument,
	keyops.ErrTag:                     codes.InvalidArgument,
	keyops.ErrValidation:              codes.InvalidArgument,
	keyops.ErrDryRun:                  codes.FailedPrecondition,
	keyops.ErrThrottling:              codes.ResourceExhausted,
	keyops.ErrInternal:                codes.Internal,
}

// refusal is an error of the gateway's own, with the name that AWS gives to it.
type refusal struct {
	code    codes.Code
	reason  string
	message string
	http    int           // HTTP status, where the code's is not the one; else 0
	retry   time.Duration // after which the call may be repeated; 0 if that would not help
	limit   string        // whose limit it was; empty if it was none
}

// Whose limit refused a call.
const (
	limitPrincipal = "principal"
	limitAccount   = "account"
	limitServer    = "server"
)

// Error returns the message.
func (r *refusal) Error() string { return r.message }

// Reasons of the gateway's own refusals, by AWS's names where AWS has one. Each stands in
// docs/reference/errors.md.
const (
	reasonNoCredential = "MissingAuthenticationTokenException"
	reasonNobody       = "UnrecognizedClientException"
	reasonNoOperation  = "UnknownOperationException"
	reasonForm         = "SerializationException"
	reasonTooLarge     = "RequestEntityTooLargeException"
	reasonMediaType    = "UnsupportedMediaTypeException"
	reasonUnavailable  = "ServiceUnavailableException"
	reasonCanceled     = "RequestCanceledException"
)

// Refusals of callers whose identity is in doubt. They say nothing of which rules exist.
var (
	errNoCredential   = unauthenticated(reasonNoCredential, "no verified client certificate and no bearer token")
	errNoBearer       = unauthenticated(reasonNoCredential, "this Region takes no bearer tokens: show a client certificate, and no authorization")
	errNoToken        = unauthenticated(reasonNoCredential, "the authorization is not one bearer token")
	errTwoCredentials = unauthenticated(reasonNobody, "a client certificate and a bearer token: show one of them")
	errExpired        = unauthenticated(reasonNobody, "the client certificate has expired")
	errRevoked        = unauthenticated(reasonNobody, "the client certificate is revoked")
	errStaleList      = unauthenticated(reasonNobody, "the revocation list of the client certificate's authority is out of date")
	errDistrusted     = unauthenticated(reasonNobody, "the client certificate's authority is no longer trusted")
	errNoRule         = unauthenticated(reasonNobody, "no principal rule of this Region fits the client certificate or bearer token")
	errForged         = unauthenticated(reasonNobody, "forwarded identity from outside")

	errUnknownMethod = &refusal{code: codes.Unimplemented, reason: reasonNoOperation, message: "this operation is not served here"}
	errNoKeys        = &refusal{code: codes.Unavailable, reason: reasonUnavailable, message: bearer.ErrNoKeys.Error()}
)

func unauthenticated(reason, message string) *refusal {
	return &refusal{code: codes.Unauthenticated, reason: reason, message: message}
}

// statusOf turns any error into what the client sees. Only errors of keyops and of this
// package say more than that there was one.
func statusOf(err error, requestID string) *status.Status {
	var own *refusal
	var known *keyops.Error
	switch {
	case errors.As(err, &own):
		return withRetry(newStatus(own.code, own.reason, own.message, requestID), own.retry)
	case errors.As(err, &known):
		if code, ok := reasonCodes[known.Reason]; ok {
			return newStatus(code, string(known.Reason), messageOf(known, requestID), requestID)
		}
	case errors.Is(err, context.DeadlineExceeded):
		return newStatus(codes.DeadlineExceeded, string(keyops.ErrDependencyTimeout), "the deadline has passed", requestID)
	case errors.Is(err, context.Canceled):
		return newStatus(codes.Canceled, reasonCanceled, "the client has gone", requestID)
	}
	return newStatus(codes.Internal, string(keyops.ErrInternal), "internal error, request ID "+requestID, requestID)
}

// messageOf returns keyops's words for the client. Where AWS has none the reason is repeated;
// where the fault is ours the request ID is what the client has to report.
func messageOf(e *keyops.Error, requestID string) string {
	switch {
	case e.Reason == keyops.ErrInternal:
		return e.Message + " (request ID " + requestID + ")"
	case e.Message == "":
		return string(e.Reason)
	}
	return e.Message
}

// newStatus returns a status that names reason and request.
func newStatus(code codes.Code, reason, message, requestID string) *status.Status {
	s := status.New(code, message)
	detailed, err := s.WithDetails(&errdetails.ErrorInfo{
		Reason:   reason,
		Domain:   errorDomain,
		Metadata: map[string]string{"requestId": requestID},
	})
	if err != nil {
		return s // a message that cannot be marshalled; the code still stands
	}
	return detailed
}

// withRetry adds when the call may be repeated.
func withRetry(s *status.Status, after time.Duration) *status.Status {
	if after == 0 {
		return s
	}
	detailed, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	if err != nil {
		return s // as in newStatus
	}
	return detailed
}
