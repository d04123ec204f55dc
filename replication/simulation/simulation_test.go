package simulation

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	schedules = flag.Int("schedules", 200, "how many schedules to run")
	firstSeed = flag.Uint64("seed", 1, "the first schedule's seed")
	atMost    = flag.Duration("at-most", 0, "begin no schedule after so long; 0 = run all")
	maxFailed = flag.Int("max-failed", 20, "a run ends after so many schedules that failed")
	paired    = flag.Int("paired", 30, "how many schedules of 100 begin with a replica instance, which may be disassociated later")
	again     = flag.Int("again", 30, "in how many schedules of 100 Regions begin again as other instances")
	states    = flag.String("states", "", "where to write the distinct states that were visited, for a count over several processes")
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
	w.swarm()
	if *robbed > 0 && w.chance(*robbed) {
		w.rob()
	}
	w.furnish()
	w.run(s.steps)
	w.heal()
	w.final = w.summary()
	if w.failed != "" {
		w.views()
	}
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
	count, steps, failed := 0, 0, 0
	for seed := *firstSeed; count < *schedules && (*atMost == 0 || time.Since(began) < *atMost); seed++ {
		w := play(t, seed, settings{})
		count++
		steps += w.steps
		for _, s := range w.shapes {
			shapes[s] = true
		}
		if w.failed != "" {
			if failed++; failed >= *maxFailed {
				t.Fatalf("schedule %d, step %d: %s; no more is run", seed, w.steps, w.failed)
			}
			t.Errorf("schedule %d, step %d: %s\n%s\nreplay: SIMULATION_LOG=1 go test ./replication/simulation -run 'TestSimulation$' -seed %d -schedules 1 -paired %d -again %d -hostile %d -v",
				seed, w.steps, w.failed, strings.Join(w.log, "\n"), seed, *paired, *again, *robbed)
		}
		if count%1000 == 0 {
			t.Logf("%d schedules, %d of them failed, %d distinct states, in %s", count, failed, len(shapes), time.Since(began).Round(time.Second))
		}
	}
	if *states != "" {
		var list []byte
		for _, s := range slices.Sorted(maps.Keys(shapes)) {
			list = fmt.Appendf(list, "%016x\n", s)
		}
		if err := os.WriteFile(*states, list, 0o600); err != nil {
			t.Error(err)
		}
	}
	t.Logf("seeds from %d: %d schedules, %d steps, %d distinct states, in %s", *firstSeed, count, steps, len(shapes), time.Since(began).Round(time.Second))
}

// Any seed replays exactly: the same happens, and everybody ends with the same facts. What a
// schedule does depends on nothing that another one left.
func TestReplay(t *testing.T) {
	var first []*world
	for seed := range uint64(20) {
		first = append(first, play(t, seed, settings{}))
	}
	for seed, one := range slices.Backward(first) {
		other := play(t, uint64(seed), settings{})
		if diff := cmp.Diff(one.log, other.log); diff != "" {
			t.Fatalf("seed %d does something else when it is run again (-first +second):\n%s", seed, diff)
		}
		if one.final != other.final || !slices.Equal(one.shapes, other.shapes) {
			t.Fatalf("seed %d comes to other states when it is run again", seed)
		}
	}
}
