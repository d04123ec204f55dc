package mrk_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// saved is a backup of one Region's store.
type saved struct {
	region regionName
	set    []byte
	rows   map[material.ID]bool
	used   map[material.ID]bool
	cur    material.ID
	state  string
}

// schedule is a random run of all rules with all faults.
type schedule struct {
	*world
	mistakes
	late   [3]*message
	backup *saved
	left   map[string]int // how often each may still happen
	trace  []string
}

// budget bounds how often each expensive or rare thing happens in one run, so that runs have
// some of everything.
var budget = map[string]int{
	"rotate": 3, "offer": 3, "refuse": 1, "force": 2, "suspend": 2, "replicate": 3, "destroy": 2, "destroy set": 1,
	"evict": 1, "backup": 2, "restore": 2, "lose token": 1, "late": 6, "restart": 2,
}

// newSchedule has a key in A with such replicas, as it is when everything has arrived.
func newSchedule(t tester, left map[string]int, replicas ...regionName) *schedule {
	name := fmt.Sprint(replicas)
	if begun[name] == nil {
		w := createWorld(t, true)
		for _, r := range replicas {
			w.must(w.replicate(regionA, r))
		}
		w.heal()
		begun[name] = w
	}
	s := &schedule{world: begun[name].clone(silent{t}), left: maps.Clone(left)}
	s.ghost = newGhost()
	s.ghost.max = s.nodes[regionA].set.Epoch()
	return s
}

// begun are the worlds in which schedules begin, by their replicas.
var begun = map[string]*world{}

// silent does without the lines of helpers, which cost schedules a fifth of their time.
type silent struct{ tester }

func (silent) Helper() {}

// spend reports whether something may happen once more.
func (s *schedule) spend(what string) bool { return s.left[what] > 0 }

// did notes that it happened.
func (s *schedule) did(what string, err error) bool {
	if err == nil {
		s.left[what]--
	}
	return err == nil
}

// action is one thing that may happen at a Region, with another one or a number. It reports
// whether anything happened.
type action struct {
	name   string
	weight int
	do     func(s *schedule, r, other regionName, n int) bool
}

var actions = []action{
	{"tell", 12, func(s *schedule, r, other regionName, _ int) bool {
		m := s.message(r, other)
		s.deliver(m)
		return m != nil
	}},
	{"keep a message", 2, func(s *schedule, r, other regionName, n int) bool {
		m := s.message(r, other)
		if m == nil || !s.spend("late") {
			return false
		}
		m.late = true
		s.late[n%len(s.late)] = m
		return s.did("late", nil)
	}},
	{"deliver a kept message", 3, func(s *schedule, _, _ regionName, n int) bool {
		m := s.late[n%len(s.late)]
		s.deliver(m)
		return m != nil
	}},
	{"encrypt", 3, func(s *schedule, r, _ regionName, _ int) bool { return s.use(r) }},
	{"step", 6, func(s *schedule, r, _ regionName, _ int) bool { return s.run(r) }},
	{"rotate", 2, func(s *schedule, r, _ regionName, _ int) bool {
		return s.exists(r) && s.spend("rotate") && s.mats < 8 && s.did("rotate", s.rotate(r))
	}},
	{"suspend", 1, func(s *schedule, r, other regionName, _ int) bool {
		return s.exists(r) && s.spend("suspend") && s.did("suspend", s.suspend(r, other))
	}},
	{"replicate", 2, func(s *schedule, r, other regionName, _ int) bool {
		return s.exists(r) && s.nodes[r].state == "Enabled" && s.spend("replicate") && s.did("replicate", s.replicate(r, other))
	}},
	{"offer", 2, func(s *schedule, r, other regionName, _ int) bool {
		return s.exists(r) && !s.nodes[r].mute && s.spend("offer") && s.did("offer", s.offer(r, other))
	}},
	{"decide an offer", 3, func(s *schedule, r, _ regionName, _ int) bool { return s.decide(r) }},
	{"refuse", 1, func(s *schedule, r, _ regionName, _ int) bool {
		return s.exists(r) && s.spend("refuse") && s.did("refuse", s.refuse(r))
	}},
	{"force", 1, func(s *schedule, r, _ regionName, n int) bool { return s.promote(r, n) }},
	{"destroy", 1, func(s *schedule, r, _ regionName, _ int) bool { return s.end(r) }},
	{"destroy set", 1, func(s *schedule, r, _ regionName, _ int) bool { return s.endSet(r) }},
	{"evict", 1, func(s *schedule, r, other regionName, _ int) bool {
		return s.exists(r) && s.spend("evict") && s.did("evict", s.evict(r, other))
	}},
	{"backup", 1, func(s *schedule, r, _ regionName, _ int) bool { return s.save(r) }},
	{"restore", 1, func(s *schedule, r, _ regionName, _ int) bool { return s.rollBack() }},
	{"lose token", 1, func(s *schedule, r, _ regionName, _ int) bool { return s.loseToken(r) }},
	{"restart", 1, func(s *schedule, r, _ regionName, _ int) bool {
		clear(s.nodes[r].heard)
		if s.nodes[r].set != nil {
			s.reload(s.nodes[r])
		}
		s.starts(r)
		return s.spend("restart") && s.did("restart", nil)
	}},
}

func (s *schedule) exists(r regionName) bool { return s.nodes[r].exists() }

func (s *schedule) use(r regionName) bool {
	n := s.nodes[r]
	if !s.encrypt(r) {
		return false
	}
	s.ghost.ever[n.current] = true
	return true
}

// run is what the primary Region does by itself.
func (s *schedule) run(r regionName) bool {
	n := s.nodes[r]
	if n.set == nil {
		return false
	}
	before := n.set.Epoch()
	events := s.step(r)
	if n.set.Epoch() != before {
		s.began(r)
	}
	for _, e := range events {
		if e.Kind != mrk.EventActivated {
			continue
		}
		if y := s.nodes[e.Region]; y.set != nil && y.set.Own() != nil && y.set.Own().Hash() == n.set.Fact(e.Region).Hash() {
			s.ghost.nodes[e.Region].stale = false
		}
	}
	return len(events) > 0
}

// decide accepts an offer, or refuses it where it can never be accepted.
func (s *schedule) decide(r regionName) bool {
	n := s.nodes[r]
	if !n.exists() {
		return false
	}
	if _, ok := n.set.Considering(); !ok {
		return false
	}
	err := errors.New("no signing key")
	if !n.mute {
		err = s.accept(r)
	}
	switch {
	case err == nil:
		return true
	case errors.Is(err, mrk.ErrLacking), errors.Is(err, mrk.ErrNotHeard):
		return false
	}
	return s.refuse(r) == nil
}

func (s *schedule) promote(r regionName, n int) bool {
	node := s.nodes[r]
	if !node.exists() || !s.spend("force") || s.ghost.dead {
		return false
	}
	var dark []regionName
	for i, other := range []regionName{regionC, regionA, regionB} { // sorted
		if n>>i&1 == 1 && other != r {
			dark = append(dark, other)
		}
	}
	return s.did("force", s.force(r, dark...))
}

// end destroys a replica: what its owner asked for, or what others know to be deleted.
func (s *schedule) end(r regionName) bool {
	n := s.nodes[r]
	if !n.exists() {
		return false
	}
	if n.set.Destroying() {
		return s.finish(r)
	}
	told := n.state == "PendingDeletion" && n.set.Told()
	owner := (n.state == "Enabled" || n.state == "Creating" || n.state == "Disabled") && s.spend("destroy")
	if !told && !owner {
		return false
	}
	incarnation := n.set.Incarnation()
	if s.destroy(r) != nil {
		return false
	}
	s.ghost.nodes[r].deleted = max(s.ghost.nodes[r].deleted, incarnation)
	return told || s.did("destroy", nil)
}

func (s *schedule) endSet(r regionName) bool {
	n := s.nodes[r]
	if !n.exists() || !s.spend("destroy set") {
		return false
	}
	incarnation := n.set.Incarnation()
	if s.destroySet(r) != nil {
		return false
	}
	s.destroysSet(n)
	s.ghost.nodes[r].deleted = max(s.ghost.nodes[r].deleted, incarnation)
	s.ghost.dead = true
	return s.did("destroy set", nil)
}

func (s *schedule) save(r regionName) bool {
	n := s.nodes[r]
	if !n.exists() || !s.spend("backup") {
		return false
	}
	s.backup = &saved{r, n.set.Marshal(), maps.Clone(n.rows), maps.Clone(n.used), n.current, n.state}
	return s.did("backup", nil)
}

// rollBack puts the backup in the place of its Region's store, without telling the Region.
// At its start it finds what its token says (rule 19).
func (s *schedule) rollBack() bool {
	b := s.backup
	if b == nil || !s.spend("restore") {
		return false
	}
	n, g := s.nodes[b.region], s.ghost.nodes[b.region]
	s.ghost.rolled = true
	g.restored, g.stale, g.old = true, true, maps.Clone(s.ghost.ever)
	if n.mute { // token and store lost one after the other: nobody can know
		maps.DeleteFunc(n.wrote, func(id material.ID, _ bool) bool { return !b.used[id] })
	}
	set, err := mrk.Unmarshal(b.set)
	s.must(err)
	n.set, n.rows, n.used, n.current, n.state = set, maps.Clone(b.rows), maps.Clone(b.used), b.cur, b.state
	clear(n.heard)
	clear(g.out)
	for _, r := range allRegions {
		if status := set.Entry(r).Status; status == mrk.Suspended || status == mrk.Evicted {
			g.out[r] = true
		}
	}
	s.goesBack(b.region)
	if n.mute {
		set.DropPermit()
	}
	for id := range n.token {
		if !n.rows[id] {
			n.rows[id], n.used[id] = true, true
			set.DropPermit()
		}
	}
	for id := range n.rows {
		if !n.token[id] {
			delete(n.rows, id)
			set.DropPermit()
		}
	}
	s.settle(n)
	for id := range s.ghost.ever {
		if !n.usable()[id] {
			g.lost[id] = true
		}
	}
	return s.did("restore", nil)
}

// loseToken empties a token. It never holds the last copy of what has encrypted.
func (s *schedule) loseToken(r regionName) bool {
	n := s.nodes[r]
	if !n.exists() || len(n.token) == 0 || !s.spend("lose token") {
		return false
	}
	for id := range n.token {
		if s.ghost.ever[id] && !s.elsewhere(r, id) {
			return false
		}
	}
	s.ghost.faulty = true
	lost := n.usable()
	n.token, n.rows, n.mute = map[material.ID]bool{}, map[material.ID]bool{}, true
	clear(n.heard)
	n.set.DropPermit()
	s.settle(n)
	maps.Copy(s.ghost.nodes[r].lost, lost)
	return s.did("lose token", nil)
}

// elsewhere reports whether another Region holds a material and would give it.
func (s *schedule) elsewhere(r regionName, id material.ID) bool {
	return slices.ContainsFunc(allRegions, func(other regionName) bool {
		o := s.nodes[other]
		return other != r && o.exists() && !o.set.Destroying() && !s.ghost.nodes[other].absent && o.usable()[id]
	})
}

// arrive lets everything arrive and everybody do what they do by themselves, and asks then
// whether all agree. A fork, which needs a restore, is ended by operators.
func (s *schedule) arrive() {
	s.t.Helper()
	s.late = [3]*message{}
	s.left = map[string]int{}
	for _, r := range allRegions {
		s.enable(r)
		s.invariants()
	}
	promoted := false
	for range 60 {
		before := s.fingerprint()
		for _, x := range allRegions {
			for _, y := range allRegions {
				if x != y {
					s.deliver(s.message(x, y))
					s.invariants()
				}
			}
			s.decide(x)
			s.invariants()
			s.run(x)
			s.invariants()
			s.end(x)
			s.invariants()
		}
		if s.fingerprint() != before {
			continue
		}
		if !promoted && s.frozenAnywhere() && s.ghost.rolled && !s.ghost.dead {
			promoted = true
			s.left["force"] = 1
			for _, r := range allRegions {
				if s.promote(r, 0) {
					break
				}
			}
			s.left["force"] = 0
			continue
		}
		s.settled()
		return
	}
	s.t.Fatal("still changing after 60 rounds")
}

// weighted repeats each action as often as it weighs.
func weighted(lists ...[]action) (table []action) {
	for _, a := range slices.Concat(lists...) {
		for range a.weight {
			table = append(table, a)
		}
	}
	return table
}

// play runs one random schedule.
func play(t *rapid.T, table []action, left map[string]int, steps int) {
	var replicas []regionName
	for _, r := range []regionName{regionB, regionC} { // often, the key has replicas already
		if rapid.IntRange(0, 3).Draw(t, "replicated") > 0 {
			replicas = append(replicas, r)
		}
	}
	s := newSchedule(t, left, replicas...)
	defer func() {
		if t.Failed() {
			t.Log("trace:\n" + strings.Join(s.trace, "\n"))
		}
	}()
	s.use(regionA)
	for range rapid.IntRange(5, steps).Draw(t, "steps") {
		a := table[rapid.IntRange(0, len(table)-1).Draw(t, "action")]
		r := rapid.SampledFrom(allRegions).Draw(t, "region")
		other := rapid.SampledFrom(allRegions).Draw(t, "other")
		n := rapid.IntRange(0, 7).Draw(t, "number")
		if r == other {
			continue
		}
		if a.do(s, r, other, n) {
			s.trace = append(s.trace, fmt.Sprintf("%s: %s %s %d", r, a.name, other, n))
		}
		s.invariants()
	}
	s.arrive()
}

// TestEverySchedule runs all rules in random order under all faults, and asks after each
// step whether an invariant is violated.
func TestEverySchedule(t *testing.T) {
	table := weighted(actions)
	rapid.Check(t, func(t *rapid.T) { play(t, table, budget, 60) })
}
