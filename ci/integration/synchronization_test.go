package integration

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// TestSynchronization follows docs/synchronization.md on real daemons: an instance is supplied
// with keys from before and after, and is disassociated, with a deployment of its own, since
// that is for good.
func TestSynchronization(t *testing.T) {
	softhsmtest.Used(t)
	t.Parallel()
	dir := t.TempDir()
	d := deployment{dir: filepath.Join(dir, "deployment")}
	t.Cleanup(func() {
		if out, err := d.dev("down", "--purge"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	d.mustDev(t, "up", "--base-port", basePort(), "--regions", paris+","+virginia)
	before := d.createKey(t, paris)
	id := strings.TrimSpace(string(d.must(t, nil, "sync", "create", "--region", paris)))
	eventually(t, patience, func() (string, bool) { // once the Regions have met
		_, err := d.keyferry(nil, "sync", "associate", id, "--replica", virginia, "--all", "--region", paris)
		return errString(err), err == nil
	})
	after := d.createKey(t, paris)
	for _, key := range []string{before, after} {
		eventually(t, patience, func() (string, bool) {
			out, err := d.keyferry(nil, "sync", "resources", id, "--replica", virginia, "--status", "SYNCHRONIZED", "--region", paris)
			return string(out) + errString(err), err == nil && strings.Contains(string(out), key)
		})
	}
	blob := d.must(t, []byte("before the end"), "encrypt", after, "--region", virginia)

	var shown struct {
		Replicas []struct{ InstanceID, Stage string }
	}
	look := func(region string) string {
		out := d.must(t, nil, "sync", "show", id, "--json", "--region", region)
		if err := json.Unmarshal(out, &shown); err != nil || len(shown.Replicas) != 1 {
			t.Fatalf("sync show: %v\n%s", err, out)
		}
		return shown.Replicas[0].Stage
	}
	if stage := look(paris); stage != "ASSOCIATED" {
		t.Errorf("the stage is %s", stage)
	}
	end := []string{"sync", "disassociate", id, "--region", paris, "--replica", virginia, "--confirm", shown.Replicas[0].InstanceID}
	request, approval := filepath.Join(dir, "end.request"), filepath.Join(dir, "end.approval")
	if _, err := d.keyferry(nil, end...); err == nil || !strings.Contains(err.Error(), "--request") {
		t.Errorf("without approvals: %v", err)
	}
	d.must(t, nil, append(end, "--request", request)...)
	d.must(t, []byte("yes\n"), "approve", request, "--key", filepath.Join(d.dir, "operators", "dev.key"), "--out", approval)
	if out := string(d.must(t, nil, append(end, "--approval", approval, "--wait")...)); !strings.Contains(out, "DISASSOCIATED") {
		t.Errorf("sync disassociate printed %s", out)
	}

	// Frozen, also after a restart, and never associated again.
	d.mustDev(t, "stop", virginia)
	d.mustDev(t, "start", virginia)
	if stage := look(virginia); stage != "DISASSOCIATED" {
		t.Errorf("%s says that the stage is %s", virginia, stage)
	}
	for _, args := range [][]string{{"key", "create"}, {"key", "disable", after}, {"alias", "set", "new", after}} {
		if _, err := d.keyferry(nil, append(args, "--region", virginia)...); err == nil || !strings.Contains(err.Error(), "REPLICA_FROZEN") {
			t.Errorf("%v: %v", args, err)
		}
	}
	if _, err := d.keyferry(nil, "sync", "associate", id, "--replica", virginia, "--all", "--region", paris); err == nil || !strings.Contains(err.Error(), "never be associated again") {
		t.Errorf("associated again: %v", err)
	}
	if out, _ := d.keyferry(nil, "doctor", "--region", virginia); !strings.Contains(string(out), "disassociated for good") {
		t.Errorf("the doctor says\n%s", out)
	}
	if got := d.must(t, blob, "decrypt", "--region", virginia); string(got) != "before the end" {
		t.Errorf("opened %q", got)
	}
	sealed := d.must(t, []byte("after the end"), "encrypt", before, "--region", virginia)
	if got := d.must(t, sealed, "decrypt", "--region", paris); string(got) != "after the end" {
		t.Errorf("opened %q", got)
	}
}
