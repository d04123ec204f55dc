package integration

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// TestDrift compares a key in the Regions that have it, as a pipeline would.
func TestDrift(t *testing.T) {
	softhsmtest.Used(t)
	key := shared.createKey(t, paris)
	shared.replicate(t, key, paris, virginia)
	drift := func(args ...string) (string, int) {
		out, err := shared.keyferry(nil, append([]string{"drift", key}, args...)...)
		var exit *exec.ExitError
		switch {
		case err == nil:
			return string(out), 0
		case errors.As(err, &exit):
			return string(out), exit.ExitCode()
		}
		t.Fatal(err)
		return "", 0
	}
	if out, code := drift(); code != 0 || out != "" {
		t.Errorf("fresh replica: exit code %d:\n%s", code, out)
	}
	shared.must(t, nil, "key", "tag", key, "team=blue", "--region", paris)
	shared.must(t, nil, "key", "disable", key, "--region", virginia)
	out, code := drift()
	if code != 6 || !strings.Contains(out, key+": tags not the same") || !strings.Contains(out, "team=blue") || !strings.Contains(out, key+": state not the same") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if out, code := drift("--ignore", "tags,state"); code != 0 {
		t.Errorf("ignored: exit code %d:\n%s", code, out)
	}
	if out, code := drift("--json", "--regions", paris+","+tokyo); code != 0 || !strings.Contains(out, `"differences": []`) {
		t.Errorf("as JSON: exit code %d:\n%s", code, out)
	}
}
