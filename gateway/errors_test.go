package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keyferry/keyferry/gateway"
	"github.com/keyferry/keyferry/keyops"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// wantStatus demands a gRPC status with an ErrorInfo of ours, and returns its message.
func wantStatus(t *testing.T, err error, code codes.Code, reason string) string {
	t.Helper()
	st := status.Convert(err)
	var info *errdetails.ErrorInfo
	for _, d := range st.Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			info = i
		}
	}
	if st.Code() != code || info.GetReason() != reason || info.GetDomain() != "keyferry" {
		t.Fatalf("got %v %q with %v, want %v with reason %s", st.Code(), st.Message(), info, code, reason)
	}
	if info.GetMetadata()["requestId"] == "" {
		t.Errorf("%s names no request", reason)
	}
	return st.Message()
}

// declared returns the values of the text constants in a source file that belong, by their
// type or the beginning of their name.
func declared(t *testing.T, path, kind string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	must(t, err)
	var out []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		typed, _ := spec.Type.(*ast.Ident)
		text, isText := spec.Values[0].(*ast.BasicLit)
		if isText && (typed != nil && typed.Name == kind || typed == nil && strings.HasPrefix(spec.Names[0].Name, kind)) {
			out = append(out, strings.Trim(text.Value, `"`))
		}
		return true
	})
	if len(out) < 5 {
		t.Fatalf("%s declares only %v", path, out)
	}
	return out
}

func TestEveryCauseAndStatusHasAnEnumValue(t *testing.T) {
	for _, cause := range declared(t, "../keyops/mrk/errors.go", "Cause") {
		if kmsv1.FailureCause_value["FAILURE_CAUSE_"+cause] == 0 {
			t.Errorf("clients cannot be told of %s", cause)
		}
	}
	for _, status := range declared(t, "../replication/status.go", "Status") {
		if kmsv1.ReplicationStatus_value["REPLICATION_STATUS_"+status] == 0 {
			t.Errorf("clients cannot be told of %s", status)
		}
	}
}

func TestEveryReasonIsMapped(t *testing.T) {
	var listed []string
	for _, r := range keyops.Reasons {
		listed = append(listed, string(r))
	}
	found := declared(t, "../keyops/errors.go", "Reason")
	slices.Sort(found)
	slices.Sort(listed)
	if !slices.Equal(found, listed) {
		t.Errorf("keyops declares %v and lists %v", found, listed)
	}

	s := start(t, nil)
	client := kmsv1.NewCryptoServiceClient(s.grpc)
	if len(gateway.ReasonCodes()) != len(found) {
		t.Errorf("%d reasons are mapped, %d exist", len(gateway.ReasonCodes()), len(found))
	}
	for _, reason := range keyops.Reasons {
		t.Run(string(reason), func(t *testing.T) {
			code, ok := gateway.ReasonCodes()[reason]
			if !ok || code == codes.OK || code == codes.Unknown {
				t.Fatalf("mapped to %v", code)
			}
			s.keys.failWith(func(context.Context, string) error { return &keyops.Error{Reason: reason, Message: "why"} })
			_, err := client.Encrypt(context.Background(), &kmsv1.EncryptRequest{})
			if message := wantStatus(t, err, code, string(reason)); !strings.HasPrefix(message, "why") {
				t.Errorf("message %q", message)
			}
			resp := s.post("/v1/encrypt", `{}`)
			if resp.reason() != string(reason) || resp.code < 400 {
				t.Errorf("REST answered %d %s", resp.code, resp.body)
			}
		})
	}
}

func TestWhatClientsSeeOfErrors(t *testing.T) {
	const secret = "pin 4711 of slot 3"
	s := start(t, nil)
	for _, test := range []struct {
		name   string
		err    error
		code   codes.Code
		http   int
		reason string
		text   string
	}{
		{"reason without words", &keyops.Error{Reason: keyops.ErrInvalidCiphertext}, codes.InvalidArgument, 400, "InvalidCiphertextException", "InvalidCiphertextException"},
		{"not found", &keyops.Error{Reason: keyops.ErrNotFound, Message: "Key 'x' does not exist"}, codes.NotFound, 404, "NotFoundException", "Key 'x' does not exist"},
		{"denied", &keyops.Error{Reason: keyops.ErrAccessDenied, Message: "no"}, codes.PermissionDenied, 403, "AccessDeniedException", "no"},
		{"exists", &keyops.Error{Reason: keyops.ErrAlreadyExists, Message: "no"}, codes.AlreadyExists, 409, "AlreadyExistsException", "no"},
		{"retryable", &keyops.Error{Reason: keyops.ErrKeyUnavailable, Message: "later"}, codes.Unavailable, 503, "KeyUnavailableException", "later"},
		{"wrapped", fmt.Errorf("opening: %w", &keyops.Error{Reason: keyops.ErrDisabled, Message: "is disabled."}), codes.FailedPrecondition, 400, "DisabledException", "is disabled."},
		{"unknown", errors.New(secret), codes.Internal, 500, "KMSInternalException", "internal error, request ID "},
		{"unknown reason", &keyops.Error{Reason: "NewException", Message: secret}, codes.Internal, 500, "KMSInternalException", "internal error, request ID "},
		{"sentinel of replication", keyops.ErrMaterialMismatch, codes.Internal, 500, "KMSInternalException", "internal error, request ID "},
		{"deadline", context.DeadlineExceeded, codes.DeadlineExceeded, 504, "DependencyTimeoutException", "the deadline has passed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.keys.failWith(func(context.Context, string) error { return test.err })
			_, err := kmsv1.NewCryptoServiceClient(s.grpc).Decrypt(context.Background(), &kmsv1.DecryptRequest{})
			message := wantStatus(t, err, test.code, test.reason)
			resp := s.post("/v1/decrypt", `{}`)
			if resp.code != test.http || resp.reason() != test.reason {
				t.Errorf("REST answered %d %s, want %d", resp.code, resp.body, test.http)
			}
			for _, said := range []string{message, resp.message()} {
				if !strings.HasPrefix(said, test.text) || strings.Contains(said, secret) {
					t.Errorf("clients hear %q, want %q", said, test.text)
				}
			}
		})
	}
}

func TestRequestIDIsTheSameEverywhere(t *testing.T) {
	s := start(t, nil)
	if ids := s.post("/v1/encrypt", `{}`).header.Values("X-Request-Id"); len(ids) != 1 || ids[0] != s.keys.last().Caller.RequestID {
		t.Errorf("an answer has request IDs %v", ids)
	}
	s.keys.failWith(func(context.Context, string) error { return errors.New("broken") })
	resp := s.post("/v1/encrypt", `{}`)
	id := resp.header.Get("X-Request-Id")
	if resp.code != http.StatusInternalServerError || id == "" || len(resp.header.Values("X-Request-Id")) != 1 {
		t.Fatalf("got %d with %v", resp.code, resp.header)
	}
	if !strings.Contains(resp.message(), id) || s.keys.last().Caller.RequestID != id {
		t.Errorf("header %s, message %q, keys %s", id, resp.message(), s.keys.last().Caller.RequestID)
	}
	logged := false
	for _, e := range s.logs.AllEntries() {
		logged = logged || e.Data["request_id"] == id
	}
	if !logged {
		t.Error("the log does not name it")
	}
}
