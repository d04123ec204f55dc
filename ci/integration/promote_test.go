package integration

import (
	"bytes"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

var generations uint64

// nextGeneration numbers the forced promotions of the shared deployment: its operator's key
// approves no number for two Regions.
func nextGeneration() string {
	generations++
	return strconv.FormatUint(generations, 10)
}

// TestLoseARegion follows docs/lose-a-region.md on real daemons: the primary Region is killed,
// its keys are promoted elsewhere by approvals, and it comes back as a replica Region.
func TestLoseARegion(t *testing.T) {
	softhsmtest.Used(t)
	dir := t.TempDir()
	request, approval := filepath.Join(dir, "promote.request"), filepath.Join(dir, "promote.approval-dev")
	operator := filepath.Join(shared.dir, "operators", "dev.key")
	generation := nextGeneration()
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
	shared.must(t, nil, "key", "promote", "--force", keys[0], keys[1], "--suspend", paris, "--generation", generation, "--request", request, "--region", virginia)
	shared.must(t, []byte("yes\n"), "approve", request, "--key", operator, "--out", approval)
	shared.must(t, nil, "key", "promote", "--force", "--request", request, "--approval", approval, "--region", virginia)
	shared.must(t, nil, "key", "promote", "--force", "--request", request, "--approval", approval, "--region", virginia) // says that it is done
	// Another key, for another Region: under a number that is taken the operator refuses.
	other := shared.createKey(t, tokyo)
	for _, tc := range []struct{ generation, want string }{{generation, "approved for another target before"}, {nextGeneration(), ""}} {
		request := filepath.Join(dir, "other"+tc.generation+".request")
		shared.must(t, nil, "key", "promote", "--force", other, "--generation", tc.generation, "--request", request, "--region", tokyo)
		if _, err := shared.keyferry([]byte("yes\n"), "approve", request, "--key", operator); (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("approving number %s: %v, want %q", tc.generation, err, tc.want)
		}
	}

	// Work goes on, management too: the rotation does not wait for the Region that is dark.
	blobs := map[string][]byte{"before": before, "meanwhile": shared.must(t, []byte("meanwhile"), "encrypt", keys[0], "--region", tokyo)}
	old := shared.material(t, keys[0], virginia)
	eventually(t, patience, func() (string, bool) {
		_, err := shared.keyferry(nil, "key", "rotate", keys[0], "--region", virginia)
		return errString(err), err == nil
	})
	eventually(t, patience, func() (string, bool) {
		now := shared.material(t, keys[0], virginia)
		return "current in virginia is " + now, now != old
	})
	blobs["rotated"] = shared.must(t, []byte("rotated"), "encrypt", keys[0], "--region", virginia)

	shared.mustDev(t, "start", paris)
	restarted = true
	primary := func() []byte {
		shown, err := shared.keyferry(nil, "key", "show", keys[0], "--json", "--region", paris)
		if err != nil {
			return nil
		}
		return shown
	}
	eventually(t, patience, func() (string, bool) {
		now := primary()
		return "the old primary Region was not fenced: " + string(now), bytes.Contains(now, []byte(`"generation": "`+generation+`"`))
	})
	shared.awaitSynchronized(t, keys[0], virginia, paris)
	for _, region := range regions {
		for text, blob := range blobs {
			if got := shared.must(t, blob, "decrypt", "--region", region); string(got) != text {
				t.Errorf("%s opens %q, want %q", region, got, text)
			}
		}
	}
	if _, err := shared.keyferry(nil, "key", "rotate", keys[0], "--region", paris); err == nil || !strings.Contains(err.Error(), virginia) {
		t.Errorf("rotating at the old primary Region: %v", err)
	}
}
