package cli

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// run runs the command with a configuration that names no reachable Region.
func run(t *testing.T, in string, args ...string) (code int, out, errs string) {
	t.Helper()
	t.Setenv("KEYFERRY_REGION", "")
	t.Setenv("KEYFERRY_CONFIG", t.TempDir()+"/none.yaml")
	var o, e bytes.Buffer
	code = Run(context.Background(), args, Streams{In: strings.NewReader(in), Out: &o, Err: &e})
	return code, o.String(), e.String()
}

func TestUsageErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   string
		args []string
		want string
	}{
		{"no command", "", nil, "needs a command"},
		{"group alone", "", []string{"key"}, "needs a command: create"},
		{"unknown command", "", []string{"frobnicate"}, "frobnicate"},
		{"unknown flag", "", []string{"encrypt", "k", "--frob"}, "--frob"},
		{"missing argument", "", []string{"encrypt"}, "usage: keyferry encrypt KEY"},
		{"context without value", "", []string{"encrypt", "k", "-c", "env"}, "want KEY=VALUE"},
		{"context key twice", "", []string{"encrypt", "k", "-c", "a=1", "-c", "a=2"}, `"a" is given twice`},
		{"plaintext too long", strings.Repeat("x", 4097), []string{"encrypt", "k"}, "envelope seal"},
		{"ciphertext too long", strings.Repeat("x", 6145), []string{"decrypt"}, "longer than 6144 bytes"},
		{"envelope with JSON", "", []string{"envelope", "seal", "k", "--json"}, "no answer to print"},
		{"envelope of nothing", "", []string{"envelope", "seal", "k", "--in", "/nonexistent"}, "opening the input"},
		{"envelope to nowhere", "", []string{"envelope", "open", "--out", "/nonexistent/x"}, "making the output"},
		{"envelope over a file", "", []string{"envelope", "open", "--out", "cli_test.go"}, "cli_test.go exists"},
		{"envelope context", "", []string{"envelope", "open", "-c", "x"}, "want KEY=VALUE"},
		{"digest too long", strings.Repeat("x", 65), []string{"sign", "k", "--digest"}, "without --digest"},
		{"no signature file", "", []string{"verify", "k"}, "signature"},
		{"signature file missing", "", []string{"verify", "k", "--signature", "/nonexistent"}, "reading the signature"},
		{"random not a number", "", []string{"random", "many"}, "want 1 to 1024"},
		{"replicate without destination", "", []string{"key", "replicate", "k"}, "to"},
		{"promote to nowhere", "", []string{"key", "promote", "k"}, "to"},
		{"generation without force", "", []string{"key", "promote", "k", "--to", "r", "--generation", "2"}, "are for --force"},
		{"generation with approvals", "", []string{"key", "promote", "--force", "--request", "r", "--approval", "a", "--generation", "2"}, "give only --request and --approval"},
		{"no configuration", "", []string{"whoami"}, "none.yaml"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, out, errs := run(t, tc.in, tc.args...)
			if code != ExitUsage && tc.name != "no configuration" {
				t.Errorf("exit code %d, want %d", code, ExitUsage)
			}
			if code == ExitOK || out != "" || !strings.Contains(errs, tc.want) {
				t.Errorf("exit code %d, stdout %q, stderr %q; want a refusal with %q", code, out, errs, tc.want)
			}
		})
	}
}

func TestExitCodes(t *testing.T) {
	with := func(c codes.Code, reason string) error {
		s, err := status.New(c, "words").WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "keyferry"})
		if err != nil {
			t.Fatal(err)
		}
		return s.Err()
	}
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, ExitOK},
		{errors.New("x"), ExitFailed},
		{usagef("x"), ExitUsage},
		{with(codes.PermissionDenied, "AccessDeniedException"), ExitDenied},
		{with(codes.NotFound, "NotFoundException"), ExitNotFound},
		{with(codes.InvalidArgument, "InvalidCiphertextException"), ExitInvalid},
		{with(codes.InvalidArgument, "IncorrectKeyException"), ExitInvalid},
		{with(codes.InvalidArgument, "KMSInvalidSignatureException"), ExitInvalid},
		{with(codes.InvalidArgument, "KMSInvalidMacException"), ExitInvalid},
		{with(codes.InvalidArgument, "ValidationException"), ExitFailed},
		{with(codes.FailedPrecondition, "DryRunOperationException"), ExitOK},
		{with(codes.FailedPrecondition, "DisabledException"), ExitFailed},
		{with(codes.Unavailable, ""), ExitFailed},
	} {
		if got := exitCode(tc.err); got != tc.want {
			t.Errorf("exit code of %v is %d, want %d", tc.err, got, tc.want)
		}
	}
}

func TestReport(t *testing.T) {
	named, err := status.New(codes.InvalidArgument, "InvalidCiphertextException").WithDetails(&errdetails.ErrorInfo{Reason: "InvalidCiphertextException", Domain: "keyferry"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		err  error
		want string
	}{
		{errors.New("plain words"), "keyferry: plain words\n"},
		{status.Error(codes.Unavailable, "no answer"), "keyferry: Unavailable: no answer\n"},
		{named.Err(), "keyferry: InvalidCiphertextException: " + terse["InvalidCiphertextException"] + "\n"},
	} {
		var b bytes.Buffer
		report(&b, tc.err)
		if b.String() != tc.want {
			t.Errorf("report says %q, want %q", b.String(), tc.want)
		}
	}
}

func TestKeyRef(t *testing.T) {
	for in, want := range map[string]string{
		"payroll":                              "alias/payroll",
		"alias/payroll":                        "alias/payroll",
		"mrk-0123456789abcdef0123456789abcdef": "mrk-0123456789abcdef0123456789abcdef",
		"mrk-short":                            "alias/mrk-short",
		"12345678-1234-1234-1234-123456789abc": "12345678-1234-1234-1234-123456789abc",
		"arn:aws:kms:eu-paris-1:111122223333:alias/pay": "arn:aws:kms:eu-paris-1:111122223333:alias/pay",
	} {
		if got := keyRef(in); got != want {
			t.Errorf("%q means %q, want %q", in, got, want)
		}
	}
}

func TestSpecs(t *testing.T) {
	var out bytes.Buffer
	err := (&app{Streams: Streams{Out: &out}}).specs([]*kmsv1.KeySpecSupport{
		{KeySpec: "RSA_2048", KeyUsages: []string{"ENCRYPT_DECRYPT", "SIGN_VERIFY"}, Algorithms: []string{"RSAES_OAEP_SHA_1"}, Supported: true, Reason: "cannot wrap it"},
		{KeySpec: "HMAC_256", Supported: true, MultiRegion: true},
		{KeySpec: "SM2", Reason: "no such mechanism"},
	})
	const want = `KEY SPEC  SUPPORTED  MULTI-REGION  USAGES                       ALGORITHMS
RSA_2048  yes        no            ENCRYPT_DECRYPT,SIGN_VERIFY  RSAES_OAEP_SHA_1
HMAC_256  yes        yes           -                            -
SM2       no         no            -                            -

RSA_2048: cannot wrap it
SM2: no such mechanism
`
	if diff := cmp.Diff(want, out.String()); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestRotation(t *testing.T) {
	at := timestamppb.New(time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC))
	var out bytes.Buffer
	err := (&app{Streams: Streams{Out: &out}}).rotation(&kmsv1.GetKeyRotationStatusResponse{
		KeyRotationEnabled: true, RotationPeriodInDays: 365, NextRotationDate: at, OnDemandRotationsLeft: 24, OnDemandRotationStartDate: at,
		Progress: &kmsv1.RotationProgress{
			KeyMaterialId: "m", RotationType: "ON_DEMAND", StartedDate: at, HoldingRegions: []string{"a", "b"}, OutRegions: []string{"c"}, Alone: true,
		},
	})
	const want = `automatic        yes
period           365 days
next             2026-01-31T12:00:00Z
on demand        24 left
on demand since  2026-01-31T12:00:00Z
under way        ON_DEMAND, since 2026-01-31T12:00:00Z, material m
held in          a, b
awaited in       -
not awaited in   c
waits            nobody else is awaited, so the material would exist in one token only
`
	if diff := cmp.Diff(want, out.String()); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
