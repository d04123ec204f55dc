package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/cmd/internal/operator"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

func promotion(epoch uint64, target string) approval.Request {
	return approval.Request{
		Operation: approval.ForcePromotion, Region: target, Instance: "kfi-0123456789ab", Roster: 2,
		Series: "promotions", Epoch: epoch, Target: target, Serial: approval.NewSerial(),
		Expires: time.Now().Add(time.Hour).Truncate(time.Second).UTC(),
		Object:  []approval.Detail{{Name: "key", Text: "mrk-1"}, {Name: "suspend", Text: "us-east-1"}},
	}
}

// desk is where an operator sits: a key, and requests that come in.
type desk struct {
	*testing.T
	dir, key string
}

func newDesk(t *testing.T) desk {
	d := desk{T: t, dir: t.TempDir()}
	d.key = filepath.Join(d.dir, "anna.key")
	if _, err := operator.Generate(d.key); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d desk) request(name string, q approval.Request) string {
	d.Helper()
	path := filepath.Join(d.dir, name)
	if err := statement.WriteJSON(path, q); err != nil {
		d.Fatal(err)
	}
	return path
}

func TestApprove(t *testing.T) {
	d := newDesk(t)
	q := promotion(3, "eu-paris-1")
	path := d.request("offer.json.request", q)
	code, out, errs := run(t, "yes\n", "approve", path, "--key", d.key)
	if code != ExitOK {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	for _, words := range []string{
		approval.ForcePromotion.Words(), "Region eu-paris-1, instance kfi-0123456789ab", "number 3 of promotions, given to eu-paris-1",
		"mrk-1", "us-east-1", "roster version 2", q.Serial, q.Expires.Format(time.RFC3339), q.Fingerprint(),
	} {
		if !strings.Contains(errs, words) {
			t.Errorf("the operator is not shown %q:\n%s", words, errs)
		}
	}
	written := strings.TrimSpace(out)
	if !strings.HasPrefix(written, filepath.Join(d.dir, "offer.json.approval-")) {
		t.Errorf("written to %q", written)
	}
	var f statement.File
	if err := statement.ReadJSON(written, &f); err != nil {
		t.Fatal(err)
	}
	got, err := approval.RequestOf(f)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(q, got); diff != "" {
		t.Errorf("asked and signed (-want +got):\n%s", diff)
	}
	if b, err := os.ReadFile(written); err != nil || strings.Contains(string(b), "PRIVATE") {
		t.Errorf("the approval: %s, %v", b, err)
	}
}

func TestApproveRefuses(t *testing.T) {
	d := newDesk(t)
	expired := promotion(3, "eu-paris-1")
	expired.Expires = time.Now().Add(-time.Second).Truncate(time.Second).UTC()
	unknown := promotion(3, "eu-paris-1")
	unknown.Operation = "erase"
	good := d.request("good", promotion(3, "eu-paris-1"))
	b, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	bent := filepath.Join(d.dir, "bent")
	// A second value for a field, for readers that show the first and sign the last.
	if err := os.WriteFile(bent, []byte(strings.Replace(string(b), `"serial"`, `"target": "us-east-1", "serial"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, in, request string
		args              []string
		code              int
		want              string
	}{
		{"no", "no\n", good, nil, ExitFailed, "not approved"},
		{"nothing", "", good, nil, ExitFailed, "reading the answer"},
		{"another request than another operator read out", "yes\n", good, []string{"--fingerprint", strings.Repeat("0", 64)}, ExitFailed, "not the request with that fingerprint"},
		{"unread", "", good, []string{"--yes"}, ExitUsage, "nobody would have read"},
		{"expired", "yes\n", d.request("expired", expired), nil, ExitFailed, "expired"},
		{"of an unknown operation", "yes\n", d.request("unknown", unknown), nil, ExitFailed, "no such operation"},
		{"with a field twice", "yes\n", bent, nil, ExitUsage, "parsing"},
		{"no request", "yes\n", filepath.Join(d.dir, "none"), nil, ExitUsage, "no such file"},
	} {
		code, out, errs := run(t, tc.in, append([]string{"approve", tc.request, "--key", d.key}, tc.args...)...)
		if code != tc.code || out != "" || !strings.Contains(errs, tc.want) {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q; want %d with %q", tc.name, code, out, errs, tc.code, tc.want)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(d.dir, "*approval-*")); len(files) != 0 {
		t.Errorf("approved all the same: %v", files)
	}
	if _, err := os.Stat(d.key + operator.MemorySuffix); !os.IsNotExist(err) {
		t.Errorf("a refusal is remembered as an approval: %v", err)
	}
}

// TestApproveOneTarget: one key does not help two Regions to the same claim.
func TestApproveOneTarget(t *testing.T) {
	d := newDesk(t)
	for i, step := range []struct {
		q    approval.Request
		code int
	}{
		{promotion(3, "eu-paris-1"), ExitOK}, {promotion(3, "us-east-1"), ExitFailed}, {promotion(2, "us-east-1"), ExitFailed},
		{promotion(4, "us-east-1"), ExitOK},
	} {
		path := d.request(string(rune('a'+i)), step.q)
		code, _, errs := run(t, "", "approve", path, "--key", d.key, "--yes", "--fingerprint", step.q.Fingerprint())
		if code != step.code || code != ExitOK && !strings.Contains(errs, "another target before") {
			t.Errorf("step %d: exit code %d, want %d: %s", i, code, step.code, errs)
		}
	}
}
