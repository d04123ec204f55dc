//go:build mutation

package guard_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var (
	only   = flag.String("guard", "", "the one guard to switch off; all if empty")
	search = flag.Int("search", 0, "so many random schedules of each kind to look for one that notices, where the table has none or its seed does not")
)

// build returns the binary of a package's tests, in which guards can be switched off.
func build(t *testing.T, pkg string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "tests")
	if out, err := exec.Command("go", "test", "-c", "-tags", "mutation", "-o", binary, pkg).CombinedOutput(); err != nil {
		t.Fatalf("building the tests of %s: %v\n%s", pkg, err, out)
	}
	return binary
}

// TestMutations switches each guard off in turn, in runs of test binaries of this build, and
// demands that the test that the table names fails, the schedule, and the scenario.
func TestMutations(t *testing.T) {
	whole := runner{simulation, build(t, simulation), ""}
	if what := whole.fails("-test.skip=^(" + randomly + "|TestReplay)$"); what != "" {
		t.Fatalf("with every guard on: %s", what)
	}
	for _, pkg := range packages {
		binary := build(t, pkg)
		names := guards(t, pkg)
		// With every guard on, nothing fails: or the failures below would show nothing.
		t.Run(filepath.Base(pkg), func(t *testing.T) {
			r := runner{pkg, binary, ""}
			var all []string
			var seeds, mistaken []uint64
			for _, c := range caught {
				if slices.Contains(names, c.guard) && (*only == "" || *only == c.guard) {
					all = append(all, c.test)
					if c.schedule != 0 && !slices.Contains(seeds, c.schedule) {
						seeds = append(seeds, c.schedule)
					}
					if seed := mistakes[c.guard]; seed != 0 && !slices.Contains(mistaken, seed) {
						mistaken = append(mistaken, seed)
					}
				}
			}
			if len(all) == 0 {
				return
			}
			if what := r.fails("-test.run=^(" + strings.Join(all, "|") + ")$"); what != "" {
				t.Fatalf("with every guard on: %s", what)
			}
			for test, seeds := range map[string][]uint64{everySchedule: seeds, everyMistake: mistaken} {
				for _, seed := range seeds {
					if what := r.schedule(test, seed, 1); what != "" {
						t.Errorf("with every guard on: %s", what)
					}
				}
			}
		})
		for _, c := range caught {
			if !slices.Contains(names, c.guard) || *only != "" && *only != c.guard {
				continue
			}
			t.Run(strings.ReplaceAll(c.guard, " ", "_"), func(t *testing.T) {
				t.Parallel()
				r := runner{pkg, binary, c.guard}
				what := r.fails("-test.run=^" + c.test + "$")
				if what == "" {
					t.Errorf("%s does not notice that the guard is off", c.test)
					if what = r.fails("-test.skip=^(TestAnyOrderConverges|TestFaultsHeal|TestEverySchedule|TestEveryMistake|TestKilled.*)$"); what != "" {
						t.Errorf("but %s", what)
					}
				}
				t.Log(what)
				if c.scenario != "" {
					w := whole
					w.guard = c.guard
					why := w.scenario(c.scenario)
					if why == "" {
						t.Errorf("%s of the simulation does not notice that the guard is off", c.scenario)
					}
					t.Log(why)
				}
				seeded := []struct {
					test string
					seed uint64
				}{{everySchedule, c.schedule}, {everyMistake, mistakes[c.guard]}}
				for _, random := range seeded {
					if random.seed == 0 && (*search == 0 || !r.rules()) {
						continue
					}
					why := ""
					if random.seed != 0 {
						why = r.schedule(random.test, random.seed, 1)
					}
					switch {
					case why == "" && *search > 0 && r.rules():
						why = "found: " + r.schedule(random.test, 1, *search)
					case why == "":
						t.Errorf("%s %d does not notice that the guard is off; -search=2000 looks for another", random.test, random.seed)
					}
					t.Log(why)
				}
			})
		}
	}
}

// runner runs tests without one guard.
type runner struct{ pkg, binary, guard string }

// rules reports whether the package has random schedules of the rules.
func (r runner) rules() bool { return strings.HasSuffix(r.pkg, "mrk") }

// schedule runs so many random schedules of a test, the first with this seed, and returns what
// failed.
func (r runner) schedule(test string, seed uint64, count int) string {
	return r.fails("-test.run=^"+test+"$", fmt.Sprintf("-rapid.seed=%d", seed), fmt.Sprintf("-rapid.checks=%d", count))
}

// scenario runs a scenario of the simulation, or its random schedules, and returns what failed.
func (r runner) scenario(name string) string {
	args := []string{"-test.run=^" + name + "$"}
	if name == randomly {
		args = append(args, "-schedules=1000", "-max-failed=1", "-paired=0", "-again=0")
	}
	return r.fails(args...)
}

// fails returns the lines that say what failed, or nothing.
func (r runner) fails(args ...string) string {
	run := exec.Command(r.binary, append(args, "-test.failfast", "-test.timeout=10m")...)
	if r.rules() {
		run.Args = append(run.Args, "-rapid.shrinktime=1ms", "-rapid.nofailfile")
	}
	run.Dir = r.pkg
	run.Env = append(os.Environ(), "KEYFERRY_GUARD_OFF="+r.guard)
	out, err := run.CombinedOutput()
	if err == nil {
		return ""
	}
	lines := strings.Split(string(bytes.TrimSpace(out)), "\n")
	for i, l := range lines {
		if strings.HasPrefix(strings.TrimSpace(l), "--- FAIL") || strings.HasPrefix(l, "panic:") {
			return strings.Join(lines[i:min(i+3, len(lines))], " ")
		}
	}
	return string(out)
}
