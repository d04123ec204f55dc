package cli

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// logger is one Region that only keeps an audit log.
type logger struct {
	t          *testing.T
	key        *ecdsa.PrivateKey
	dir        string
	descriptor string
	name       region.Name
	instance   region.InstanceID
	log        *audit.Log
}

func newLogger(t *testing.T, name region.Name) *logger {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	l := &logger{t: t, key: key, dir: filepath.Join(t.TempDir(), "audit"), name: name, instance: region.NewInstanceID()}
	l.descriptor = filepath.Join(t.TempDir(), "region.json")
	spki := func(k crypto.PublicKey) []byte {
		b, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	d := region.Descriptor{
		Region: name, Instance: l.instance, Partition: "aws", SigningKey: spki(key.Public()), Version: 1,
		Operators: approval.Roster{Threshold: 1, Operators: []approval.Operator{{Name: "operator", Key: spki(key.Public())}}},
		Created:   time.Now().UTC().Truncate(time.Second),
	}
	signed, err := d.Sign(t.Context(), statement.HostKey(key))
	if err != nil {
		t.Fatal(err)
	}
	if err := signed.Save(l.descriptor); err != nil {
		t.Fatal(err)
	}
	l.open()
	return l
}

func (l *logger) open() {
	l.t.Helper()
	log, err := audit.Open(context.Background(), audit.Config{
		Dir: l.dir, Region: l.name, Instance: l.instance, Signer: statement.HostKey(l.key), CheckpointEvery: time.Hour,
	})
	if err != nil {
		l.t.Fatal(err)
	}
	log.CoverStore(func() audit.StoreHead { return audit.StoreHead{Version: 1} })
	l.log = log
	l.t.Cleanup(func() { log.Close() })
}

func (l *logger) append(r audit.Record) {
	l.t.Helper()
	if err := l.log.Append(l.t.Context(), r); err != nil {
		l.t.Fatal(err)
	}
}

func (l *logger) checkpoint() audit.SignedCheckpoint {
	l.t.Helper()
	c, err := l.log.Checkpoint(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

func (l *logger) close() {
	l.t.Helper()
	if err := l.log.Close(); err != nil {
		l.t.Fatal(err)
	}
}

func (l *logger) path() string { return filepath.Join(l.dir, "audit-000001.jsonl") }

func (l *logger) read() []byte {
	l.t.Helper()
	b, err := os.ReadFile(l.path())
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

func (l *logger) write(b []byte) {
	l.t.Helper()
	if err := os.WriteFile(l.path(), b, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

const replicaKey = "mrk-1234abcd12ab34cd56ef1234567890ab"

func replicateTo(to region.Name) audit.Record {
	return audit.Record{
		Type: audit.APICall, Event: "ReplicateKey", Principal: "arn:aws:iam::111122223333:user/ana", Outcome: audit.Success,
		RequestID: "r1", CorrelationID: "c1", Resources: []audit.Resource{{ARN: "arn", KeyID: replicaKey}},
		Details: map[string]string{"replicaRegion": string(to)},
	}
}

func createdFrom(from region.Name) audit.Record {
	return audit.Record{
		Type: audit.ServiceEvent, Event: "CreateKey", Outcome: audit.Success, CorrelationID: "c1", Resources: []audit.Resource{{ARN: "arn", KeyID: replicaKey}},
		Details: map[string]string{"peer": string(from), "claimedPrincipal": "arn:aws:iam::111122223333:user/ana"},
	}
}

// TestAuditVerifyWithPeer tampers with a log in the ways that only a peer's log gives away.
func TestAuditVerifyWithPeer(t *testing.T) {
	paris, east := newLogger(t, "eu-paris-1"), newLogger(t, "us-east-1")
	paris.append(replicateTo("us-east-1"))
	paris.checkpoint()
	before := paris.read()
	paris.append(replicateTo("ap-tokyo-1"))
	east.append(audit.WitnessRecord(paris.checkpoint()))
	paris.close()
	east.close()
	whole := paris.read()

	// With the PIN another history is written, which ends as the first one did.
	if err := os.Remove(paris.path()); err != nil {
		t.Fatal(err)
	}
	paris.open()
	paris.append(createdFrom("us-east-1"))
	paris.checkpoint()
	paris.append(createdFrom("us-east-1"))
	paris.checkpoint()
	paris.close()
	rewritten := paris.read()

	alone := []string{"audit", "verify", paris.dir, "--descriptor", paris.descriptor}
	withPeer := append(alone, "--peer", east.dir, "--peer-descriptor", east.descriptor)
	for _, tc := range []struct {
		name string
		log  []byte
		args []string
		code int
		want string
	}{
		{"whole", whole, withPeer, ExitOK, "witnessed by peers"},
		{"cut off, alone", before, alone, ExitOK, "not covered yet"},
		{"cut off", before, withPeer, ExitFailed, "the end was cut off"},
		{"signed anew, alone", rewritten, alone, ExitOK, "not covered yet"},
		{"signed anew", rewritten, withPeer, ExitFailed, "the log was written anew"},
		{"one byte", bytes.Replace(whole, []byte("ap-tokyo-1"), []byte("ap-tokyo-2"), 1), alone, ExitFailed, "the line before is not the one that was there"},
		{"another Region's descriptor", whole, []string{"audit", "verify", paris.dir, "--descriptor", east.descriptor}, ExitFailed, "signature not valid"},
		{"peer without descriptor", whole, append(alone, "--peer", east.dir), ExitUsage, "a --peer-descriptor for each --peer"},
		{"a witness for itself", whole, append(alone, "--peer", paris.dir, "--peer-descriptor", paris.descriptor), ExitUsage, "nobody is a witness for itself"},
		{"no descriptor", whole, alone[:3], ExitUsage, `"descriptor" not set`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			paris.write(tc.log)
			code, out, errs := run(t, "", tc.args...)
			if code != tc.code || !strings.Contains(out+errs, tc.want) {
				t.Errorf("got exit code %d, stdout %q, stderr %q; want %d and %q", code, out, errs, tc.code, tc.want)
			}
		})
	}

	paris.write(whole)
	_, out, _ := run(t, "", append(withPeer, "--json")...)
	var got auditReport
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Region != "eu-paris-1" || got.Witnesses != 1 || got.Witnessed == 0 || len(got.LastHash) != 64 {
		t.Errorf("got %s, error %v", out, err)
	}

	// A peer's log that was changed is no proof, and says so; what it still has is.
	east.write(bytes.Replace(east.read(), []byte("AuditStop"), []byte("AuditStep"), 1))
	code, out, errs := run(t, "", withPeer...)
	if code != ExitFailed || !strings.Contains(errs, "the log of the peer us-east-1 does not hold") || !strings.Contains(out, "witnessed by peers") {
		t.Errorf("got exit code %d, stdout %q, stderr %q; want the peer's log refused", code, out, errs)
	}
}

func TestAuditReconcile(t *testing.T) {
	paris, east := newLogger(t, "eu-paris-1"), newLogger(t, "us-east-1")
	paris.append(replicateTo("us-east-1"))
	both := []string{"audit", "reconcile", paris.dir, "--descriptor", paris.descriptor, east.dir, "--descriptor", east.descriptor}

	// The replica is not there yet: neither is the time for it.
	code, out, errs := run(t, "", both...)
	if code != ExitOK || !strings.Contains(out, "may be on its way") || !strings.Contains(out, replicaKey) {
		t.Errorf("in flight: got exit code %d, stdout %q, stderr %q", code, out, errs)
	}
	late := createdFrom("us-east-1")
	late.Event, late.Time = "DescribeKey", time.Now().Add(time.Hour)
	east.append(late)
	code, out, errs = run(t, "", both...)
	if code != ExitFailed || !strings.Contains(errs, "contradictions: 1") || !strings.Contains(out, "us-east-1       nothing") {
		t.Errorf("an hour later: got exit code %d, stdout %q, stderr %q", code, out, errs)
	}
	code, out, _ = run(t, "", append(both, "--json")...)
	var got reconciled
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != ExitFailed || got.Contradictions != 1 || len(got.Logs) != 2 ||
		len(got.Findings) != 1 || got.Findings[0].CorrelationID != "c1" || got.Findings[0].Says.Principal == "" {
		t.Errorf("as JSON: got exit code %d, %s, error %v", code, out, err)
	}
	code, out, errs = run(t, "", append(both, "--grace", "2h")...)
	if code != ExitOK {
		t.Errorf("with more grace: got exit code %d, stdout %q, stderr %q", code, out, errs)
	}
	east.append(createdFrom("eu-paris-1"))
	code, out, errs = run(t, "", both...)
	if code != ExitOK || !strings.Contains(out, "agree                1") {
		t.Errorf("made: got exit code %d, stdout %q, stderr %q", code, out, errs)
	}
	paris.close()
	east.close()

	for name, tc := range map[string]struct {
		args []string
		code int
		want string
	}{
		"one log":               {both[:5], ExitUsage, "at least 2"},
		"a descriptor too few":  {both[:6], ExitUsage, "a --descriptor for each DIR"},
		"descriptors exchanged": {[]string{"audit", "reconcile", paris.dir, "--descriptor", east.descriptor, east.dir, "--descriptor", paris.descriptor}, ExitFailed, "signature not valid"},
		"no descriptor file":    {[]string{"audit", "reconcile", paris.dir, east.dir, "--descriptor", "none", "--descriptor", "none"}, ExitUsage, "none"},
		"negative grace":        {append(both, "--grace", "-1s"), ExitUsage, "want a duration"},
	} {
		code, out, errs := run(t, "", tc.args...)
		if code != tc.code || !strings.Contains(errs, tc.want) {
			t.Errorf("%s: got exit code %d, stdout %q, stderr %q; want %d and %q", name, code, out, errs, tc.code, tc.want)
		}
	}
}

// TestPlain shows that nothing which another Region wrote reaches the terminal as it is.
func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"us-east-1": "us-east-1", "": "", "a\x1b[2Jb": `"a\x1b[2Jb"`, "line\nbreak": `"line\nbreak"`, "\u202e": `"\u202e"`, `"`: `"\""`,
	} {
		if got := plain(in); got != want {
			t.Errorf("plain(%q) = %s, want %s", in, got, want)
		}
	}
}
