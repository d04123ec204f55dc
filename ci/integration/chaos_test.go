package integration

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// TestChaos kills a daemon in the middle of each operation that several Regions take part in,
// again and again, with the network between them broken and tokens away by chance, and then
// demands that everything converges and that nothing is lost that any Region ever answered
// with. What must be tried is in a fixed cycle, so that every run tries it; the seed chooses
// where and when. KEYFERRY_KILLS and KEYFERRY_SEED change both, see make chaos.
func TestChaos(t *testing.T) {
	softhsmtest.Used(t)
	kills, seed := int(setting(t, "KEYFERRY_KILLS", 10)), setting(t, "KEYFERRY_SEED", 1)
	t.Logf("seed %d, %d kills", seed, kills)
	c := newChaos(t)
	c.begin(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	for n := range kills {
		c.round(t, newPlan(rng, n))
	}
	c.settle(t)
	c.report(t, kills)
}

// setting reads a number above zero from the environment.
func setting(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || n == 0 {
		t.Fatalf("%s=%q: want a number above zero", name, s)
	}
	return n
}

// plan is all that chance decides of one round. It is drawn before the round, so that a seed
// gives the same plans however fast the machine is.
type plan struct {
	number     int
	op         *chaosOperation
	killSource bool    // and not the destination
	at         float64 // when, as a share of how long the operation is expected to take
	calm       bool    // the key is in order in all Regions when the operation begins
	key        int     // of those that the operation can be done with
	kind       *chaosKind
	third      bool // which of the other two Regions is the destination
	primary    bool // the operation is on the primary key, where it could be on a replica key
	suspend    bool // who is promoted does not wait for the Region before
	faults     [6]fault
	token      bool // of the Region that is killed, is taken away before
	back       bool // and comes back before the kill, not after
	others     [3]int
}

func newPlan(rng *rand.Rand, number int) plan {
	cycle := number / len(chaosOperations)
	chance := func(of int) bool { return rng.IntN(of) == 0 }
	p := plan{
		number: number, op: chaosOperations[number%len(chaosOperations)], killSource: cycle%2 == 0,
		at: rng.Float64(), calm: chance(2) || cycle == 0 || chaosOperations[number%len(chaosOperations)].calm, key: rng.IntN(1 << 20), kind: chaosKinds[rng.IntN(len(chaosKinds))],
		third: chance(2), primary: cycle%2 == 0, suspend: chance(2),
		token: chance(4), back: chance(2), others: [3]int{rng.IntN(1 << 20), rng.IntN(1 << 20), rng.IntN(1 << 20)},
	}
	for i := range p.faults {
		if chance(3) {
			p.faults[i] = []fault{{cut: true}, {deaf: true}, {delay: 5 * time.Millisecond}}[rng.IntN(3)]
		}
	}
	return p
}

// tally counts what became of one operation.
type tally struct{ tried, answered, midway int }

// round does one operation and kills one of the daemons that take part in it meanwhile, while
// clients use the key in the other Regions without one failure.
func (c *chaos) round(t *testing.T, p plan) {
	k := c.choose(t, p)
	if p.calm {
		c.heal()
		c.await(t, k)
	}
	a := act{plan: p, key: k, source: c.lead(k)}
	elsewhere := slices.DeleteFunc(slices.Clone(regions), func(r string) bool { return r == a.source })
	a.destination = elsewhere[0]
	if p.third {
		a.destination = elsewhere[1]
	}
	victim := a.destination
	if p.killSource {
		victim = a.source
	}
	ready := p.op.prepare == nil || answered(t, &a, "asking for approvals", p.op.prepare(c, &a))
	up := slices.DeleteFunc(slices.Clone(regions), func(r string) bool { return r == victim })
	used := c.use(t, k, slices.DeleteFunc(slices.Clone(up), func(r string) bool { return !k.usable[r] || p.op.stops(&a, r) }))
	done := make(chan error, 1)
	killed := c.strike(t, p, victim, func() {
		if ready {
			go func() { done <- p.op.do(c, &a) }()
		}
	})
	for i, r := range up {
		c.prove(t, c.keys[p.others[i]%len(c.keys)], r)
		c.look(t, r)
	}
	c.start(t, victim)
	midway := p.op.midway != nil && p.op.midway(c, &a)
	ok := ready && answered(t, &a, p.op.name, <-done)
	c.proofs = append(c.proofs, used.stop(t)...)
	c.calls += used.calls
	c.look(t, victim)
	if p.op.after != nil && ready {
		ok = p.op.after(c, t, &a, ok) || ok
	}
	count := c.tallies[p.op.name]
	count.tried++
	if ok {
		count.answered++
	}
	if midway {
		count.midway++
	}
	c.tallies[p.op.name] = count
	c.kills++
	t.Logf("%d: %s of %s, %s, from %s to %s, calm %v: killed %s after %v, half done %v, answered %v, %d calls meanwhile",
		p.number, p.op.name, k.id, k.kind.name, a.source, a.destination, p.calm, victim, killed.Round(time.Millisecond), midway, ok, used.calls)
}

// strike kills a Region's daemon at a moment that chance has chosen, after something was
// begun: no earlier than a command takes to say anything at all, and up to as long after its
// last word. In a round that begins in order, the rest breaks while it is under way.
func (c *chaos) strike(t *testing.T, p plan, victim string, begin func()) (after time.Duration) {
	t.Helper()
	third := time.Duration((0.4+0.8*p.at)*float64(p.op.commands+1)*float64(c.command)) / 3
	back := func() {}
	damage := func() {
		for i, l := range c.links {
			l.set(p.faults[i])
		}
		if p.token {
			back = c.takeToken(t, victim)
		}
	}
	if !p.calm {
		damage()
	}
	begun := time.Now()
	begin()
	time.Sleep(2 * third)
	if p.calm {
		damage()
	}
	time.Sleep(third / 2)
	if p.back {
		back()
	}
	time.Sleep(third / 2)
	c.end(victim)
	after = time.Since(begun)
	back()
	return after
}

// settle waits until every key is enabled in every Region and all agree about it, and opens
// everything everywhere.
func (c *chaos) settle(t *testing.T) {
	c.heal()
	for _, k := range c.keys {
		eventually(t, patience, func() (string, bool) {
			err := c.replicate(&act{key: k, source: c.lead(k)})
			return errString(err), err == nil
		})
		c.await(t, k)
		for _, r := range regions {
			if err := c.prove(t, k, r); err != nil {
				t.Errorf("%s is in order, and %s does not use it: %v", k.id, r, err)
			}
		}
	}
	for _, r := range regions {
		for _, p := range c.proofs {
			if err := c.open(r, p); err != nil {
				t.Errorf("%s does not take what %s made with %s, %s: %v", r, p.region, p.key.id, p.key.kind.name, err)
			}
		}
		shared.must(t, nil, "audit", "verify", shared.in(r, "audit"), "--descriptor", shared.in(r, "region", "region.json"))
	}
	for _, r := range regions {
		log, err := os.ReadFile(shared.in(r, "keyferryd.log"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(log[c.logged[r]:])) {
			if strings.Contains(line, "ALARM") {
				t.Errorf("%s raised an alarm: %s", r, line)
			}
		}
	}
}

// report prints the counts. Every operation was tried. Whether one was refused each time is
// chance in a short run, and a defect in a long one.
func (c *chaos) report(t *testing.T, kills int) {
	var said []string
	for _, name := range slices.Sorted(maps.Keys(c.tallies)) {
		n := c.tallies[name]
		words := fmt.Sprintf("%s %d of %d", name, n.answered, n.tried)
		if n.midway > 0 {
			words += fmt.Sprintf(" (%d half done when the daemon was killed)", n.midway)
		}
		said = append(said, words)
		if n.answered == 0 && kills >= 100 {
			t.Errorf("%s was tried %d times and never done", name, n.tried)
		}
	}
	for n, op := range chaosOperations {
		if c.tallies[op.name].tried == 0 && n < kills {
			t.Errorf("no daemon was killed during %s", op.name)
		}
	}
	t.Logf("%d kills, %d times a token away; done: %s; %d calls meanwhile without a failure; %d ciphertexts, MACs and signatures of %d keys taken in every Region",
		c.kills, c.tokens, strings.Join(said, ", "), c.calls, len(c.proofs), len(c.keys))
}
