package simulation

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// world is one schedule: a deployment, and what befalls it.
type world struct {
	t     *testing.T
	dir   string // for audit logs
	rng   *rand.Rand
	nodes []*node
	now   time.Time
	net   network
	tap   *[]parcel // if not nil, a copy of every message goes there
	depth int       // operations in progress, one within the other

	keys     []arn.KeyID
	external map[arn.KeyID]bool     // keys whose material is imported
	secrets  map[material.ID][]byte // what their owners have
	letters  []letter               // everything that was encrypted
	gone     []region.Descriptor    // instances that are no more
	pair     *pair                  // a primary instance and its replica instance, if there are
	backups  []backup
	ledger   ledger
	rounds   map[[2]region.Name]bool // in progress
	shapes   []uint64                // of the states that were visited

	again     bool       // whether Regions begin again as other instances
	robbed    bool       // a Region is in a thief's hands, or will be
	testimony *testimony // in such a schedule
	overheard []parcel   // by the thief

	generation uint64 // of the newest forced promotion that operators have approved

	weights map[string]int // how often each operation happens in this schedule

	faults bool     // whether things go wrong
	log    []string // what happened
	final  [32]byte // summary of how it ended
	failed string   // the first broken invariant
	steps  int
}

// settings bound what a schedule may do.
type settings struct {
	regions int // 0 = 3 to 5, as the seed says
	steps   int // 0 = 20 to 120, as the seed says
}

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// newWorld makes a deployment of Regions that are all up.
func newWorld(t *testing.T, dir string, seed uint64, s settings) *world {
	t.Helper()
	cryptotest.SetGlobalRandom(t, 0) // whatever the seed that comes first
	all, err := plants()
	if err != nil {
		t.Fatal(err)
	}
	cryptotest.SetGlobalRandom(t, seed)
	w := &world{
		t: t, dir: dir, rng: rand.New(rand.NewPCG(seed, 0x6b657966)), now: start, faults: true,
		external: map[arn.KeyID]bool{}, secrets: map[material.ID][]byte{}, ledger: newLedger(), rounds: map[[2]region.Name]bool{},
	}
	w.again = rand.New(rand.NewPCG(seed, 0x616761696e)).IntN(100) < *again // and nothing else changes
	if s.regions == 0 {
		s.regions = 3 + w.rng.IntN(len(names)-2)
	}
	for _, name := range names[:s.regions] {
		w.nodes = append(w.nodes, newNode(w, name, all[name][0]))
	}
	w.net = newNetwork()
	for _, n := range w.nodes {
		n.pin()
		w.backups = append(w.backups, w.save(n)) // of before any key
		w.must(n.start())
	}
	return w
}

// must fails the schedule for what is the simulation's own fault.
func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.break_("the simulation cannot go on: %v", err)
	}
}

// break_ records a broken invariant. The first one counts.
func (w *world) break_(format string, args ...any) {
	if w.failed == "" {
		w.failed = fmt.Sprintf(format, args...)
		w.note("BROKEN: %s", w.failed)
	}
}

// note writes down what happened.
func (w *world) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%4d %*s%s", w.steps, 2*w.depth, "", fmt.Sprintf(format, args...)))
}

var verbose = os.Getenv("SIMULATION_LOG") != ""

// chance is true so often of 100.
func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

func pick[T any](w *world, of []T) T { return of[w.rng.IntN(len(of))] }

// up returns the Regions whose daemon runs.
func (w *world) up() []*node {
	return slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return !n.running() })
}

func (w *world) node(name region.Name) *node {
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// do runs one operation of the table.
func (w *world) do(op operation) {
	if w.depth == 0 {
		w.steps++
	}
	w.depth++
	op.do(w)
	w.depth--
	if w.depth > 0 {
		return
	}
	for _, n := range w.nodes {
		n.reap()
	}
	w.check()
	w.shapes = append(w.shapes, w.shape())
}

// run does so many steps, or fewer if an invariant breaks.
func (w *world) run(steps int) {
	for range steps {
		if w.failed != "" {
			return
		}
		w.do(w.choose(operations))
	}
}

// swarm makes each schedule do some things often and others never: where everything happens
// all the time, nothing gets far.
func (w *world) swarm() {
	w.weights = map[string]int{}
	for _, op := range operations {
		w.weights[op.name] = 4 * op.weight
		if op.weight == 0 || op.name == "create" || op.name == "round" || op.name == "start" || op.name == "mend" {
			continue
		}
		w.weights[op.name] = pick(w, []int{0, 1, 2, 4, 4, 8, 12}) * op.weight
	}
	if !w.again {
		w.weights["begin again"] = 0
	}
}

// choose picks an operation by its weight in this schedule.
func (w *world) choose(ops []operation) operation {
	total := 0
	for _, op := range ops {
		total += w.weights[op.name]
	}
	n := w.rng.IntN(total)
	for _, op := range ops {
		if n -= w.weights[op.name]; n < 0 {
			return op
		}
	}
	panic("weights do not add up")
}

// furnish makes a key and replicas of it, as schedules begin mostly.
func (w *world) furnish() {
	w.faults = false
	if w.chance(*paired) && !w.robbed {
		w.associate(w.nodes[0], pick(w, w.nodes[1:]))
	}
	if w.chance(20) && !w.robbed {
		w.do(operation{"create to import", 0, (*world).createExternal})
	} else {
		w.do(operation{"create", 0, (*world).create})
	}
	for range w.rng.IntN(4) {
		w.do(operation{"replicate", 0, (*world).replicate})
	}
	if w.chance(75) || w.robbed {
		for range 2 {
			w.do(operation{"rounds", 0, (*world).everybody})
			for _, n := range w.nodes {
				n.importAll()
			}
		}
		w.do(operation{"encrypt", 0, (*world).encrypt})
	}
	w.faults = true
}

// heal ends all faults and lets every Region do what it would do by itself, until nothing
// changes any more.
func (w *world) heal() {
	w.faults = false
	w.net.heal()
	w.expel()
	for _, n := range w.nodes {
		n.fuse, n.offset = fuse{}, 0
		n.pinAnew()
		if !n.running() {
			w.must(n.start())
		}
	}
	for _, n := range w.nodes {
		n.undecide()
	}
	for round, quiet := 0, 0; w.failed == "" && quiet < 3; round++ {
		before := w.summary()
		w.calm()
		w.check()
		if w.summary() != before {
			quiet = 0
		} else if quiet++; quiet == 1 {
			w.rescue()
			w.burials()
		} else {
			w.now = w.now.Add(10 * time.Minute) // for what is tried again later
		}
		if round == 60 {
			w.break_("still changing after %d rounds of healing", round)
		}
	}
	if w.failed == "" {
		w.converged()
	}
}

// calm lets every Region do what is due, with each other one.
func (w *world) calm() {
	w.expel()
	w.renew()
	w.disassociateAgain()
	w.evictSevered()
	for _, n := range w.nodes {
		n.enableAll()
		n.askAgain()
		n.readmit()
		n.importAll()
		for _, peer := range w.nodes {
			for range 3 { // one round may find out that the peer has started again
				if n == peer || n.run.repl.Round(context.Background(), peer.name).After(n.clock()) {
					break
				}
			}
		}
		n.run.repl.Step(context.Background())
		w.now = w.now.Add(10 * time.Second)
	}
}

// rescue does what operators do when a member has encrypted with a material that restored
// backups have made everybody else forget: they promote it, or do without it if it cannot be.
// A fork, too, ends with a promotion only.
func (w *world) rescue() {
	for _, id := range w.keys {
		p, k := w.acting(id)
		if w.forked(id) {
			if !w.ledger.wentBack && w.thief() == nil {
				w.break_("%s has forked, and no store went back", id)
			}
			w.promoteAny(id, p)
			continue
		}
		if p == nil {
			w.overrule(id)
			continue
		}
		for _, m := range k.Set.Members() {
			if len(w.gone) > 0 && m.Fact != nil && m.Status.In() && m.Fact.Incarnation > m.Incarnation {
				// Begun by an instance that is no more, whose word admits nobody (ADR 0033).
				if its := w.node(m.Region); w.evictOne(p, id, its) {
					r := p.run
					w.answered(p, r, "replicate to "+string(m.Region)+" after all", p.replicateTo(id, its))
				}
				break
			}
			if m.Fact == nil || m.Status == mrk.Active || !m.Status.In() || w.external[id] {
				continue
			}
			forgotten := func(m material.ID) bool { _, known := k.Set.Known(m); return !known }
			if slices.ContainsFunc(m.Fact.Used, forgotten) {
				if its := w.node(m.Region); its.key(id).State != keystate.Enabled || !w.promoteOne(its, id) {
					w.evictOne(p, id, its)
				}
				break
			}
		}
	}
}

// forked reports whether anybody has seen two successors of one epoch.
func (w *world) forked(id arn.KeyID) bool {
	return slices.ContainsFunc(w.up(), func(n *node) bool {
		k := n.key(id)
		return k != nil && !k.Gone() && k.Set.Frozen() != nil && k.Set.Frozen().Cause == mrk.CauseEpochFork
	})
}

// promoteAny promotes the first Region that can be, rather one that acts already.
func (w *world) promoteAny(id arn.KeyID, first *node) {
	for _, n := range append([]*node{first}, w.up()...) {
		if n != nil && n.key(id) != nil && n.key(id).State == keystate.Enabled && w.promoteOne(n, id) {
			return
		}
	}
}

// readmit replicates to Regions that have the key and that restored backups have made the
// primary Region forget, or that only an instance has admitted which is no more.
func (n *node) readmit() {
	for _, id := range n.w.keys {
		p, k := n.w.acting(id)
		if p != n || k.State != keystate.Enabled {
			continue
		}
		for _, o := range n.w.nodes {
			its := o.key(id)
			if o == n || its == nil || its.Gone() || its.Set.Told() || its.Set.Shut() || its.Set.State() == nil {
				continue
			}
			e, top := k.Set.Entry(o.name), its.Set.State()
			follows := its.Set.Primary() == n.name && its.Set.Entry(o.name) == e
			left := !n.w.present(top.Epoch.Region, top.Entry(top.Epoch.Region).Instance)
			if !e.Status.In() && e.Status != mrk.Evicted && e.Status != mrk.Retained && (follows || left) {
				r := n.run
				n.w.answered(n, r, fmt.Sprintf("replicate to %s, which has it", o.name), n.replicateTo(id, o))
			}
		}
	}
}

// burials lets what destroys come due, after the day in which a doubtful clock destroys
// nothing, and more than the longest time between two tries.
func (w *world) burials() {
	w.now = w.now.Add(25 * time.Hour)
	for range 2 {
		w.now = w.now.Add(2 * time.Hour)
		for _, n := range w.nodes {
			err := n.run.svc.Work(context.Background())
			w.note("%s: work: %t", n.name, err == nil)
		}
	}
	w.check()
}

// enableAll ends what clients did to the keys, which nothing else would.
func (n *node) enableAll() {
	if n.frozen() {
		return // multi-Region keys stay as they are
	}
	for _, id := range n.w.keys {
		k := n.key(id)
		if k != nil && k.PolicyLost() && !k.Gone() {
			_, err := n.run.svc.PutKeyPolicy(context.Background(), caller(), keyops.PutKeyPolicyInput{KeyID: string(id), Policy: openPolicy})
			n.w.must(err)
		}
		if k != nil && k.State == keystate.Disabled && !k.Gone() && !k.Set.Shut() {
			_, err := n.run.svc.EnableKey(context.Background(), caller(), keyops.EnableKeyInput{KeyID: string(id)})
			if n.w.external[id] && len(n.wanted(k)) > 0 && errors.Is(err, keyops.ErrInvalidState) {
				continue // what it uses has expired: imported first, and then enabled
			}
			n.w.must(err)
		}
	}
}

// openPolicy lets the identity policies of the account decide.
const openPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + string(keyopstest.Account) + `"},"Action":"kms:*","Resource":"*"}]}`

// askAgain replicates to the members whose request was forgotten.
func (n *node) askAgain() {
	for _, id := range n.w.keys {
		k := n.key(id)
		if k == nil || !k.Set.Acting() || k.State != keystate.Enabled {
			continue
		}
		for _, m := range k.Set.Members() {
			if k.Set.Forgotten(m.Region) {
				r := n.run
				n.w.answered(n, r, fmt.Sprintf("replicate to %s again", m.Region), n.replicateTo(id, n.w.node(m.Region)))
			}
		}
	}
}

// summary is the hash of everything that matters in the deployment.
func (w *world) summary() [32]byte {
	h := sha256.New()
	for _, n := range w.nodes {
		fmt.Fprintf(h, "%s %t %d\n", n.name, n.running(), len(n.marks()))
		for _, id := range w.keys {
			k := n.key(id)
			if k == nil {
				continue
			}
			sum := k.Set.Hash()
			fmt.Fprintf(h, "%s %x %s %v %t\n", id, sum, k.State, k.Current, k.Set.Acting())
			for _, m := range k.Materials {
				fmt.Fprintf(h, "%v %t\n", m.ID, m.Lost)
			}
		}
	}
	return [32]byte(h.Sum(nil))
}

// shape is like summary, but forgets numbers that only grow and names that chance chose, so
// that states which differ in nothing else count as one.
func (w *world) shape() uint64 {
	h := sha256.New()
	ids := map[string]int{}
	nick := func(s string) int {
		if _, ok := ids[s]; !ok {
			ids[s] = len(ids)
		}
		return ids[s]
	}
	for _, n := range w.nodes {
		fmt.Fprintf(h, "%s %t %t %d\n", n.name, n.running(), n.doubted, len(n.marks()))
		for _, id := range w.keys {
			k := n.key(id)
			if k == nil {
				fmt.Fprint(h, "-")
				continue
			}
			fmt.Fprintf(h, "%d %s %d %d %t %d %d\n", nick(string(id)), k.State, nick(k.Set.Epoch().String()), nick(k.Current.String()), k.Set.Acting(), k.Set.Incarnation(), nick(k.Set.Pending().String()))
			for _, m := range k.Materials {
				fmt.Fprintf(h, "%d %t ", nick(m.ID.String()), m.Lost)
			}
			for _, m := range k.Set.Members() {
				fmt.Fprintf(h, "%s %s %d %t ", m.Region, m.Status, m.Incarnation, m.Fact != nil)
			}
		}
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// views says what each Region knows of each key, for the log of a schedule that failed.
func (w *world) views() {
	for _, id := range w.keys {
		for _, n := range w.nodes {
			k := n.key(id)
			if k == nil || k.Set.State() == nil {
				w.note("%s knows nothing of %s", n.name, id)
				continue
			}
			st := k.Set.State()
			w.note("%s on %s: %s, incarnation %d, acting %t, frozen %v; state %d of %s, current %.8s, pending %.8s", n.name, id, k.State,
				k.Set.Incarnation(), k.Set.Acting(), k.Set.Frozen() != nil, st.Seq, st.Epoch, st.Current, st.Pending)
			for _, l := range st.Materials {
				w.note("  lists %.8s, written off %t", l.ID, l.WrittenOff)
			}
			for _, e := range st.Members {
				w.note("  %s is %s, incarnation %d", e.Region, e.Status, e.Incarnation)
				if f := k.Set.Fact(e.Region); f != nil {
					w.note("    says: incarnation %d, counter %d, joined %s, holds %.8s, used %.8s, %s, deleted %t", f.Incarnation, f.Counter, f.Joined, f.Held, f.Used, f.KeyState, f.Deleted)
				}
			}
		}
	}
}
