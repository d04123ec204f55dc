package integration

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// TestLoseARegion follows docs/lose-a-region.md on real daemons: the primary Region is killed,
// its keys are promoted elsewhere by approvals, and it comes back as a replica Region.
func TestLoseARegion(t *testing.T) {
	softhsmtest.Used(t)
	dir := t.TempDir()
	request, approval := filepath.Join(dir, "promote.request"), filepath.Join(dir, "promote.approval-dev")
	keys := []string{shared.createKey(t, paris), shared.createKey(t, paris)}
	for _, key := range keys {
		for _, to := range []string{virginia, tokyo} {
			shared.replicate(t, key, paris, to)
		}
	}
	before := shared.must(t, []byte("before"), "encrypt", keys[0], "--region", paris)
	shared.mustDev(t, "stop", paris, "--kill")
	restarted := false
	defer func() {
		if !restarted {
			shared.mustDev(t, "start", paris)
		}
	}()

	if _, err := shared.keyferry(nil, "key", "promote", "--force", keys[0], "--region", virginia); err == nil || !strings.Contains(err.Error(), "--request") {
		t.Errorf("promoting without a request: %v", err)
	}
	shared.must(t, nil, "key", "promote", "--force", keys[0], keys[1], "--suspend", paris, "--request", request, "--region", virginia)
	shared.must(t, []byte("yes\n"), "approve", request, "--key", filepath.Join(shared.dir, "operators", "dev.key"), "--out", approval)
	shared.must(t, nil, "key", "promote", "--force", "--request", request, "--approval", approval, "--region", virginia)
	shared.must(t, nil, "key", "promote", "--force", "--request", request, "--approval", approval, "--region", virginia) // says that it is done
	meanwhile := shared.must(t, []byte("meanwhile"), "encrypt", keys[0], "--region", tokyo)

	shared.mustDev(t, "start", paris)
	restarted = true
	primary := func() []byte {
		shown, err := shared.keyferry(nil, "key", "show", keys[0], "--json", "--region", paris)
		if err != nil {
			return nil
		}
		return shown
	}
	deadline := time.Now().Add(30 * time.Second)
	for !bytes.Contains(primary(), []byte(`"generation": "1"`)) {
		if time.Now().After(deadline) {
			t.Fatalf("the old primary Region was not fenced:\n%s", primary())
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, region := range []string{paris, virginia, tokyo} {
		for text, blob := range map[string][]byte{"before": before, "meanwhile": meanwhile} {
			if got := shared.must(t, blob, "decrypt", "--region", region); string(got) != text {
				t.Errorf("%s opens %q, want %q", region, got, text)
			}
		}
	}
	if _, err := shared.keyferry(nil, "key", "rotate", keys[0], "--region", paris); err == nil || !strings.Contains(err.Error(), virginia) {
		t.Errorf("rotating at the old primary Region: %v", err)
	}
	shared.awaitSynchronized(t, keys[0], virginia, paris)
}
