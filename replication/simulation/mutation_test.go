//go:build mutation

package simulation

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// caught lists guards of package mrk whose absence schedules notice by themselves. That
// every guard is noticed by some test is shown beside the rules; here it is shown that the
// invariants of the simulation are not empty.
var caught = []string{
	"5 joined this epoch",
	"5 holds what the primary holds",
	"8 awaited members hold the pending material",
	"11 active members hold what the primary holds",
	"13 other members prove themselves again",
	"18 all heard since the start",
	"18 named by the newest certificate",
	"20 counts above its own facts",
}

// TestMutations switches each guard off in turn, in a run of this very test binary, and
// demands that a schedule fails.
func TestMutations(t *testing.T) {
	for _, g := range caught {
		t.Run(strings.ReplaceAll(g, " ", "_"), func(t *testing.T) {
			run := exec.Command(os.Args[0], "-test.run", "^TestSimulation$", "-test.timeout=10m", "-schedules=1000")
			run.Env = append(os.Environ(), "KEYFERRY_GUARD_OFF="+g)
			out, err := run.CombinedOutput()
			if err == nil {
				t.Fatal("no schedule notices that the guard is off")
			}
			_, why, _ := bytes.Cut(out, []byte("schedule "))
			why, _, _ = bytes.Cut(why, []byte("\n"))
			t.Logf("schedule %s", why)
		})
	}
}
