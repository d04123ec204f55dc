package keyops_test

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// line is what the tests read of an audit record.
type line struct {
	Type, Event, Outcome, Error, Principal, RequestID, SourceAddress string
	Resources                                                        []struct{ ARN, KeyID string }
	ReadOnly                                                         bool
	EncryptionContext, Details                                       map[string]string
}

// auditLines returns the records of one request, in order.
func auditLines(t *testing.T, r *keyopstest.Region, request string) []line {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.AuditDir, "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("audit files: %v, %v", files, err)
	}
	var lines []line
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for scan := bufio.NewScanner(f); scan.Scan(); {
			var l line
			if err := json.Unmarshal(scan.Bytes(), &l); err != nil {
				t.Fatal(err)
			}
			if l.RequestID == request {
				lines = append(lines, l)
			}
		}
	}
	return lines
}

// TestAuditOfEveryOperation calls every operation as one who may and as one who may not,
// and reads what the audit log says of it.
func TestAuditOfEveryOperation(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{})
	rows := keyops.OperationRows()
	for _, op := range append(slices.Clone(onAKey), append(onNoKey, attempt{
		"DeleteAlias", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, _ string) error {
			return second(r.DeleteAlias(ctx, c, keyops.DeleteAliasInput{AliasName: "alias/new"}))
		}}, attempt{
		"GetCallerIdentity", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, _ string) error {
			return second(r.GetCallerIdentity(ctx, c, keyops.GetCallerIdentityInput{}))
		}}, attempt{
		"ExplainAccess", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
			return second(r.ExplainAccess(ctx, c, keyops.ExplainAccessInput{Principal: admin().Principal.String(), Action: "kms:Encrypt", KeyID: key}))
		}},
	)...) {
		delete(rows, op.name)
		for _, user := range []string{"admin", "mallory"} {
			t.Run(op.name+" by "+user, func(t *testing.T) {
				caller := keyopstest.User(user)
				err := op.call(t.Context(), r, caller, k.ARN)
				lines := auditLines(t, r, caller.RequestID)
				mutates := among(changes, op.name)
				outcome, reason := "Success", ""
				switch {
				case err != nil && user == "mallory":
					outcome, reason = "Denied", "AccessDeniedException"
				case err != nil:
					outcome, reason = "Error", strings.SplitN(err.Error(), ":", 2)[0]
				}
				outcomes := []string{outcome}
				if mutates && user == "admin" && len(lines) == 2 {
					outcomes = []string{"Begun", outcome}
				}
				if len(lines) != len(outcomes) {
					t.Fatalf("%d records, want %v: %+v", len(lines), outcomes, lines)
				}
				for i, l := range lines {
					if l.Type != "ApiCall" || l.Event != op.name || l.Outcome != outcomes[i] || l.Principal != caller.Principal.String() ||
						l.SourceAddress != caller.SourceIP || l.ReadOnly == mutates {
						t.Errorf("record %+v", l)
					}
					if i == len(lines)-1 && l.Error != reason {
						t.Errorf("record says %q, the caller heard %v", l.Error, err)
					}
					if l.Outcome == "Denied" && l.Details["decision"] == "" {
						t.Errorf("record %+v does not say what decided", l)
					}
				}
				if mutates && err == nil && len(lines) != 2 {
					t.Error("a change without a record before it")
				}
			})
		}
	}
	if len(rows) != 0 {
		t.Errorf("not called: %v", rows)
	}
	t.Run("details", func(t *testing.T) {
		caller := keyopstest.Admin()
		_, err := r.Encrypt(t.Context(), caller, keyops.EncryptInput{KeyID: k.ARN, Plaintext: []byte("PLAINTEXT-CANARY"), EncryptionContext: map[string]string{"env": "prod"}})
		if err != nil {
			// The attempts above have disabled the key.
			if _, err := r.EnableKey(t.Context(), admin(), keyops.EnableKeyInput{KeyID: k.ARN}); err != nil {
				t.Fatal(err)
			}
			caller = keyopstest.Admin()
			if _, err = r.Encrypt(t.Context(), caller, keyops.EncryptInput{KeyID: k.ARN, Plaintext: []byte("PLAINTEXT-CANARY"), EncryptionContext: map[string]string{"env": "prod"}}); err != nil {
				t.Fatal(explain(err))
			}
		}
		lines := auditLines(t, r, caller.RequestID)
		if len(lines) != 1 || len(lines[0].Resources) != 1 || lines[0].Resources[0].ARN != k.ARN || lines[0].Resources[0].KeyID != string(k.KeyID) {
			t.Fatalf("%+v", lines)
		}
		if diff := cmp.Diff(map[string]string{"env": "prod"}, lines[0].EncryptionContext); diff != "" {
			t.Error(diff)
		}
		files, _ := filepath.Glob(filepath.Join(r.AuditDir, "*"))
		for _, f := range files {
			if b, err := os.ReadFile(f); err != nil || strings.Contains(string(b), "PLAINTEXT-CANARY") {
				t.Errorf("%s: the plaintext is in the audit log, or: %v", f, err)
			}
		}
	})
}

// TestNoAnswerWithoutAudit: when the audit log takes no records, nothing is answered and
// nothing is changed.
func TestNoAnswerWithoutAudit(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{})
	if err := r.AuditLog().Close(); err != nil {
		t.Fatal(err)
	}
	objects := len(r.Fake.Objects())
	for _, op := range append(slices.Clone(onAKey), onNoKey...) {
		if err := op.call(t.Context(), r, admin(), k.ARN); err == nil {
			t.Errorf("%s was answered", op.name)
		} else {
			want(t, err, keyops.ErrInternal, "the audit log takes no records now")
		}
	}
	if n := len(r.Fake.Objects()); n != objects {
		t.Error("a key was made without a record")
	}
	snapshot, err := r.SharedKey(k.KeyID)
	if err == nil {
		t.Errorf("a single-Region key is shared: %v", snapshot)
	}
	r.Restart(t)
	out, err := r.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: k.ARN})
	if err != nil || !out.KeyMetadata.Enabled {
		t.Errorf("the key was disabled without a record: %+v, %v", out, err)
	}
}
