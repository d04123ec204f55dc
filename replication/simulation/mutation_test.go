//go:build mutation

package simulation

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// caught lists guards whose absence random schedules notice. That every guard is noticed by
// some test is shown beside the rules; here it is shown that the invariants of the simulation
// are not empty.
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

// told lists guards whose absence a scenario of the simulation notices, on whole deployments.
// Schedules come to most of these situations too rarely. Of the guards that are in neither
// list, nearly all keep out what honest Regions never do.
var told = []struct{ guard, scenario string }{
	{"2 destination is no member", "TestRequestForgottenInPromotion"},
	{"2 next incarnation", "TestCE7Resurrection"},
	{"5 same incarnation", "TestCE4Ghost"},
	{"5 primary holds what it used", "TestEncryptedWithWhatNobodyLists"},
	{"6 state says active", "TestReplicaDuringAnImport"},
	{"11 primary holds what active members used", "TestNumberedPastWhatWasListed"},
	{"13 offering Region heard since the start", "TestOfferForgotten"},
	{"13 offer is known where it was made", "TestOfferForgotten"},
	{"15 target has refused or is deleted", "TestCE1EqualEpochs"},
	{"16 seal lost to a higher epoch", "TestCE1EqualEpochs"},
	{"20 permit lost to a forgotten state", "TestRolledBackUnaware"},
	{"21 admitted by a primary Region", "TestForgottenByEverybody"},
	{"21 not evicted", "TestNotRecreated"},
	{"23 deletion of the newest incarnation", "TestAskedAgainByAThird"},
	{"2 destination would take it", "TestForgottenByEverybody"},
	{"9 encrypts with what it holds", "TestCE1EqualEpochs"},
	{"9 used before it encrypts", "TestCE2ForcedOutranks"},
	{"16 Updating ends", "TestCE1EqualEpochs"},
	{"19 permit lost with an object", "TestRenewsBesideAStranger"},
}

// TestMutations switches each guard off in turn, in a run of this very test binary, and
// demands that a schedule or the scenario fails.
func TestMutations(t *testing.T) {
	for _, g := range caught {
		mutate(t, g, "TestSimulation", "-schedules=1000", "-max-failed=1")
	}
	for _, g := range told {
		mutate(t, g.guard, g.scenario)
	}
}

func mutate(t *testing.T, guard, test string, args ...string) {
	t.Run(strings.ReplaceAll(guard, " ", "_"), func(t *testing.T) {
		run := exec.Command(os.Args[0], append(args, "-test.run", "^"+test+"$", "-test.timeout=10m")...)
		run.Env = append(os.Environ(), "KEYFERRY_GUARD_OFF="+guard)
		out, err := run.CombinedOutput()
		if err == nil {
			t.Fatalf("%s does not notice that the guard is off", test)
		}
		if !bytes.Contains(out, []byte("--- FAIL: "+test)) && !bytes.Contains(out, []byte("panic: ")) {
			t.Fatalf("%s did not run: %s", test, out)
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "_test.go:") || strings.HasPrefix(line, "panic:") {
				t.Log(test, strings.TrimSpace(line))
				break
			}
		}
	})
}
