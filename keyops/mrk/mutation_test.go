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

var (
	schedules = flag.String("schedules", "1500", "random schedules that each mutation has to survive")
	only      = flag.String("guard", "", "the one guard to switch off; all if empty")
)

const random = "^(TestAnyOrderConverges|TestFaultsHeal|TestEverySchedule)$"

// runs are what notices a mutation, the quickest first: tests of one situation each, then
// random schedules.
func runs() [][]string {
	return [][]string{
		{"-test.skip=" + random},
		{"-test.run=^TestEverySchedule$", "-rapid.checks=" + *schedules},
		{"-test.run=^(TestAnyOrderConverges|TestFaultsHeal)$", "-rapid.checks=100"},
	}
}

// TestMutations switches each guard off in turn, in runs of this very test binary, and
// demands that some test fails. The guards that nothing can notice are listed with the reason.
func TestMutations(t *testing.T) {
	if os.Getenv("KEYFERRY_GUARD_OFF") != "" {
		return // one of the runs below
	}
	for _, g := range mrk.Guards() {
		if *only != "" && g != *only {
			continue
		}
		t.Run(strings.ReplaceAll(g, " ", "_"), func(t *testing.T) {
			t.Parallel()
			what := caught(t, g)
			why, redundant := mrk.Redundant[g]
			switch {
			case what != "" && redundant:
				t.Errorf("caught by %s, although it is listed as redundant: %s", what, why)
			case what == "" && !redundant:
				t.Errorf("nobody notices that the guard is off")
			default:
				t.Log(what)
			}
		})
	}
}

// caught returns the first line that says what noticed the absence of a guard, or nothing.
func caught(t *testing.T, guard string) string {
	for _, args := range runs() {
		run := exec.Command(os.Args[0], append(args, "-test.failfast", "-test.timeout=30m", "-rapid.shrinktime=1ms", "-rapid.nofailfile")...)
		run.Env = append(os.Environ(), "KEYFERRY_GUARD_OFF="+guard)
		out, err := run.CombinedOutput()
		if err == nil {
			continue
		}
		lines := strings.Split(string(bytes.TrimSpace(out)), "\n")
		i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(strings.TrimSpace(l), "--- FAIL") })
		if i < 0 {
			t.Fatalf("no test failed, and yet: %v\n%s", err, out) // a panic, or too slow
		}
		return strings.Join(lines[i:min(i+2, len(lines))], " ")
	}
	return ""
}
