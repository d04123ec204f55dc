//go:build mutation

package mrk_test

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops/mrk"
)

var schedules = flag.String("schedules", "1500", "random schedules that each mutation has to survive")

// TestMutations switches each guard off in turn, in a run of this very test binary, and
// demands that some test fails. The guards that nothing can notice are listed with the reason.
func TestMutations(t *testing.T) {
	if os.Getenv("KEYFERRY_GUARD_OFF") != "" {
		return // one of the runs below
	}
	for _, g := range mrk.Guards() {
		t.Run(strings.ReplaceAll(g, " ", "_"), func(t *testing.T) {
			run := exec.Command(os.Args[0], "-test.failfast", "-test.timeout=5m", "-rapid.checks="+*schedules, "-rapid.shrinktime=1ms", "-rapid.nofailfile")
			run.Env = append(os.Environ(), "KEYFERRY_GUARD_OFF="+g)
			out, err := run.CombinedOutput()
			why, redundant := mrk.Redundant[g]
			switch caught := err != nil; {
			case caught && redundant:
				t.Errorf("caught, although it is listed as redundant: %s", why)
			case !caught && !redundant:
				t.Errorf("nobody notices that the guard is off")
			case caught:
				t.Log(firstFailure(out))
			}
		})
	}
}

// firstFailure returns the line that says what was noticed.
func firstFailure(out []byte) string {
	lines := strings.Split(string(bytes.TrimSpace(out)), "\n")
	if i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(strings.TrimSpace(l), "--- FAIL") }); i >= 0 {
		return strings.Join(lines[i:min(i+2, len(lines))], " ")
	}
	return lines[0]
}
