package simulation

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	schedules = flag.Int("schedules", 200, "how many schedules to run")
	firstSeed = flag.Uint64("seed", 1, "the first schedule's seed")
)

// play runs one schedule and returns what broke, if anything did.
func play(t *testing.T, seed uint64, s settings) *world {
	t.Helper()
	dir, err := os.MkdirTemp(shm, "keyferry-simulation-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	w := newWorld(t, dir, seed, s)
	defer w.end()
	if s.steps == 0 {
		s.steps = 20 + w.rng.IntN(100)
	}
	for w.failed == "" && len(w.keys) == 0 {
		w.do(operation{"create", 0, (*world).create})
	}
	w.run(s.steps, operations)
	w.heal()
	return w
}

// shm is memory where there is some: no schedule cuts the power.
var shm = func() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}()

// end frees what daemons have open.
func (w *world) end() {
	for _, n := range w.nodes {
		if n.run != nil {
			n.run.die()
			n.reap()
		}
	}
}

// TestSimulation runs schedules that seeds make up, one after the other.
func TestSimulation(t *testing.T) {
	began := time.Now()
	shapes := map[uint64]bool{}
	count, steps := 0, 0
	for seed := *firstSeed; count < *schedules; seed++ {
		w := play(t, seed, settings{})
		count++
		steps += w.steps
		for _, s := range w.shapes {
			shapes[s] = true
		}
		if w.failed != "" {
			t.Fatalf("schedule %d, step %d: %s\n%s\nreplay: SIMULATION_LOG=1 go test ./replication/simulation -run 'TestSimulation$' -seed %d -schedules 1 -v",
				seed, w.steps, w.failed, strings.Join(w.log, "\n"), seed)
		}
	}
	t.Logf("%d schedules, %d steps, %d distinct states, in %s", count, steps, len(shapes), time.Since(began).Round(time.Second))
}

// Any seed replays exactly.
func TestReplay(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		first, second := play(t, seed, settings{}), play(t, seed, settings{})
		if slices.Equal(first.log, second.log) {
			continue
		}
		for i := range min(len(first.log), len(second.log)) {
			if first.log[i] != second.log[i] {
				t.Fatalf("seed %d: one run says\n%s\nthe other\n%s", seed, first.log[i], second.log[i])
			}
		}
		t.Fatalf("seed %d: one run says more than the other", seed)
	}
}
