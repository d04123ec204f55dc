package integration

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// ceremony runs keyferry-ceremony beside a Region's token, as its operators do.
func (d deployment) ceremony(ctx context.Context, region string, args ...string) (code int, out string) {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "keyferry-ceremony"), append(args,
		"--region-dir", d.in(region, "region"), "--module", "/usr/lib/softhsm/libsofthsm2.so",
		"--token", region, "--pin-file", d.in(region, "softhsm", region+".pin"), "--profile", "softhsm2")...)
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+d.in(region, "softhsm", "softhsm2.conf"))
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode(), string(b)
	case err != nil:
		return -1, err.Error()
	}
	return 0, string(b)
}

// TestRekey replaces the signing key and the seal key of a Region in a deployment of three,
// interrupted and resumed, and has its peers confirm.
func TestRekey(t *testing.T) {
	softhsmtest.Used(t)
	d := shared
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	key := d.createKey(t, tokyo)
	d.replicate(t, key, tokyo, virginia)
	sealed := d.must(t, []byte("x"), "encrypt", key, "--region", tokyo)
	old, err := region.Dir(d.in(tokyo, "region")).LoadOwn()
	if err != nil {
		t.Fatal(err)
	}

	request, approval := filepath.Join(t.TempDir(), "rekey.request"), filepath.Join(t.TempDir(), "rekey.approval")
	must := func(r string, args ...string) string {
		t.Helper()
		code, out := d.ceremony(ctx, r, args...)
		if code != 0 {
			t.Fatalf("%v: exit code %d\n%s", args, code, out)
		}
		return out
	}
	refuses := func(want, r string, args ...string) {
		t.Helper()
		if code, out := d.ceremony(ctx, r, args...); code == 0 || !strings.Contains(out, want) {
			t.Errorf("%v: exit code %d, want a refusal with %q:\n%s", args, code, want, out)
		}
	}
	store := []string{"--store", d.in(tokyo, "store.db"), "--audit-dir", d.in(tokyo, "audit")}
	// Made, given up, and made again: nothing of it reaches the daemon, which goes on.
	must(tokyo, "rekey", "--request", request)
	refuses("exists", tokyo, "rekey", "--request", request+"2")
	must(tokyo, "rekey", "--store", d.in(tokyo, "store.db"), "--forget")
	os.Remove(request)
	must(tokyo, "rekey", "--request", request)
	d.must(t, sealed, "decrypt", "--region", tokyo)

	approve := exec.Command(filepath.Join(bin, "keyferry"), "approve", request, "--key", filepath.Join(d.dir, "operators", "dev.key"), "--out", approval)
	approve.Stdin = strings.NewReader("yes\n")
	if out, err := approve.CombinedOutput(); err != nil {
		t.Fatalf("approving: %v\n%s", err, out)
	}
	carry := append([]string{"rekey", "--approval", approval}, store...)
	refuses("stop the daemon first", tokyo, carry...)
	d.mustDev(t, "stop", tokyo)
	refuses("no approvals", tokyo, append([]string{"rekey"}, store...)...)

	// Interrupted after the store was sealed: today's keys do not fit it, and the daemon says so.
	block := filepath.Join(d.in(tokyo, "region"), "replacements")
	if err := os.WriteFile(block, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refuses("not a directory", tokyo, carry...)
	if code, line := d.refusal(t, tokyo, d.in(tokyo, "keyferryd.yaml")); code != 4 || !strings.Contains(line, "keyferry-ceremony rekey") {
		t.Errorf("in between the daemon ends with %d, %q", code, line)
	}
	refuses("finish with rekey", tokyo, "rekey", "--store", d.in(tokyo, "store.db"), "--forget")
	if err := os.Remove(block); err != nil {
		t.Fatal(err)
	}
	begun, err := os.ReadFile(d.in(tokyo, "region", "rekey.json"))
	if err != nil {
		t.Fatal(err)
	}
	out := must(tokyo, carry...)
	next, err := region.Dir(d.in(tokyo, "region")).LoadOwn()
	if err != nil {
		t.Fatal(err)
	}
	if next.Version != 2 || next.Instance != old.Instance || string(next.SigningKey) == string(old.SigningKey) || !strings.Contains(out, next.Fingerprint()) {
		t.Errorf("the descriptor is %+v:\n%s", next.Descriptor, out)
	}
	// Interrupted before the last step: again, and it needs nobody any more.
	if err := os.WriteFile(d.in(tokyo, "region", "rekey.json"), begun, 0o600); err != nil {
		t.Fatal(err)
	}
	must(tokyo, append([]string{"rekey"}, store...)...)
	refuses("no new keys are made", tokyo, carry...)
	d.mustDev(t, "start", tokyo)
	eventually(t, patience, func() (string, bool) {
		got, err := d.keyferry(sealed, "decrypt", "--region", tokyo)
		return string(got) + " " + errString(err), string(got) == "x"
	})

	// Peers refuse until an operator has confirmed.
	fresh := d.createKey(t, tokyo)
	if _, err := d.keyferry(nil, "key", "replicate", fresh, "--region", tokyo, "--to", virginia); err == nil {
		if r := d.replica(t, fresh, tokyo, virginia); r.Status == "REPLICATION_STATUS_SYNCHRONIZED" {
			t.Error("a peer that has not confirmed the new keys took a replica")
		}
	}
	replacement := filepath.Join(d.in(tokyo, "region"), "replacements", tokyo+"@"+string(old.Instance), "2.json")
	refuses("differs from --fingerprint", virginia, "pin", "--replace", replacement, "--yes", "--fingerprint", old.Fingerprint())
	for _, peer := range []string{virginia, paris} {
		must(peer, "pin", "--replace", replacement, "--yes", "--fingerprint", next.Fingerprint())
		refuses("pinned already", peer, "pin", "--replace", replacement, "--yes", "--fingerprint", next.Fingerprint())
		d.mustDev(t, "stop", peer)
		d.mustDev(t, "start", peer)
	}
	// What the old key has signed is still believed: paris gets a key whose history it signed.
	d.replicate(t, key, tokyo, paris)
	if got := d.must(t, sealed, "decrypt", "--region", paris); string(got) != "x" {
		t.Errorf("decrypted %q", got)
	}
	for _, r := range []string{tokyo, virginia, paris} {
		must(r, "list")
	}
	audit := exec.Command(filepath.Join(bin, "keyferry"), "audit", "verify", d.in(tokyo, "audit"), "--descriptor", d.in(tokyo, "region", "region.json"))
	if out, err := audit.CombinedOutput(); err != nil {
		t.Errorf("the audit log over the change of keys: %v\n%s", err, out)
	}
}

func errString(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
