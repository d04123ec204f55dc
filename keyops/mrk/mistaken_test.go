package mrk_test

import (
	"context"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// mistakes are what the schedules of TestEveryMistake have beside all others: callers who ask for
// what the state of the key does not allow, operators who approve what is not so any more, a
// member that lies, and answers that come late, in part, or to somebody else's question.
type mistakes struct {
	answers  [3]*answer
	approved *permission
}

type answer struct {
	asked        regionName
	nonce        mrk.Nonce
	confirmation mrk.Confirmation
}

type permission struct {
	region regionName
	by     mrk.Approved
}

var mistakeBudget = map[string]int{
	"disable": 3, "write off": 3, "begin destruction": 2, "approve": 3, "lose an object": 3, "lie": 2, "offer falsely": 2, "lose a material": 1,
	"rotate": 4, "restart": 3,
}

var mistakenActions = []action{
	{"disable", 2, func(s *schedule, r, _ regionName, _ int) bool { return s.disable(r) }},
	{"enable", 1, func(s *schedule, r, _ regionName, _ int) bool { return s.enable(r) }},
	{"tell without materials", 2, func(s *schedule, r, other regionName, _ int) bool {
		m := s.message(r, other)
		if m != nil {
			m.blobs, m.late = nil, true
		}
		s.deliver(m)
		return m != nil
	}},
	{"tell the offer alone", 2, func(s *schedule, r, other regionName, _ int) bool {
		m := s.message(r, other)
		if m == nil || m.offer == nil {
			return false
		}
		s.deliver(&message{from: r, to: other, known: mrk.Facts{Key: testKey}, offer: m.offer, late: true})
		return true
	}},
	{"offer falsely", 2, func(s *schedule, r, other regionName, n int) bool {
		return s.spend("offer falsely") && s.did("offer falsely", s.offerFalsely(r, other, n%3))
	}},
	{"write off", 1, func(s *schedule, r, _ regionName, n int) bool {
		return s.exists(r) && s.spend("write off") && s.did("write off", s.writeOff(r, testMaterial(n%s.mats)))
	}},
	{"ask", 2, func(s *schedule, r, other regionName, n int) bool { return s.ask(r, other, n) }},
	{"begin destruction", 2, func(s *schedule, r, other regionName, n int) bool { return s.begin(r, other, n) }},
	{"finish destruction", 1, func(s *schedule, r, _ regionName, _ int) bool { return s.finish(r) }},
	{"approve", 1, func(s *schedule, r, _ regionName, n int) bool { return s.approve(r, n) }},
	{"promote as approved", 2, func(s *schedule, _, _ regionName, _ int) bool { return s.promoteLate() }},
	{"lose an object", 2, func(s *schedule, r, _ regionName, n int) bool { return s.loseObject(r, testMaterial(n%s.mats)) }},
	{"lose a material", 1, func(s *schedule, _, _ regionName, n int) bool { return s.loseMaterial(testMaterial(n % s.mats)) }},
	{"doubt the store", 1, func(s *schedule, r, _ regionName, _ int) bool {
		if s.exists(r) {
			s.nodes[r].set.DropPermit()
			s.settle(s.nodes[r])
		}
		return s.exists(r)
	}},
	{"lie", 2, func(s *schedule, r, other regionName, n int) bool { return s.lie(r, other, n&1 != 0) }},
}

// disable is what anybody may do who manages the key in a Region, whatever goes on elsewhere.
func (s *schedule) disable(r regionName) bool {
	n := s.nodes[r]
	if !n.exists() || n.state != "Enabled" || !s.spend("disable") {
		return false
	}
	n.state = "Disabled"
	s.settle(n)
	return s.did("disable", nil)
}

func (s *schedule) enable(r regionName) bool {
	n := s.nodes[r]
	if !n.exists() || n.state != "Disabled" || n.set.Shut() {
		return false
	}
	n.state = "Enabled"
	s.settle(n)
	return true
}

func (s *schedule) writeOff(r regionName, id material.ID) error {
	n := s.nodes[r]
	err := n.set.WriteOff(context.Background(), s.signer(r), id, s.contact(n))
	s.settle(n)
	return err
}

// What is wrong with an offer that no rule makes.
const (
	toNoMember  = iota // to who is not active
	strayParent        // after another certificate than the newest one
	strayFinal         // after another state than the final one
)

// offerFalsely lets the primary Region sign an offer that OfferTo would not make, and say that
// it is Updating.
func (s *schedule) offerFalsely(r, to regionName, wrong int) error {
	n, other := s.nodes[r], s.nodes[to]
	if !n.exists() || n.mute || !other.exists() || n.set.Primary() != r || other.set.State() == nil || other.set.Head() != n.set.Head() {
		return mrk.ErrNotPrimary
	}
	if wrong == toNoMember && other.set.Entry(to).Status == mrk.Active {
		return mrk.ErrMember
	}
	nonce, _ := s.nonce()
	chain := n.set.Facts(mrk.Hash{}).Certificates
	c := mrk.Certificate{Key: testKey, Epoch: n.set.Epoch(), Instance: testInstance(to), Parent: n.set.Head(), Final: other.set.State().Hash()}
	c.Epoch.Number++
	c.Epoch.Region, c.Epoch.Nonce = to, nonce
	switch {
	case wrong == strayFinal:
		c.Final = mrk.Hash{1}
	case wrong == strayParent && len(chain) > 1:
		c.Parent = chain[0].Hash()
	case wrong == strayParent:
		c.Parent = mrk.Hash{1}
	}
	c, err := mrk.SignCertificate(context.Background(), s.signer(r), nil, c)
	s.must(err)
	s.ghost.bogus[c.Epoch] = true
	said := *n.set.Own()
	said.KeyState = "Updating"
	s.say(r, to, said)
	_, err = other.set.TakeOffer(s.verifier(), mrk.Offer{Certificate: c})
	s.settle(other)
	return err
}

// say lets a Region sign a fact about itself that is not so, above its own, and tells another.
func (s *schedule) say(r, to regionName, said mrk.Member) {
	said.Counter++
	lie, err := mrk.SignMember(context.Background(), s.signer(r), said)
	s.must(err)
	other := s.nodes[to]
	_, err = other.set.Merge(s.verifier(), mrk.Facts{Key: testKey, Members: []*mrk.Member{lie}})
	s.must(err)
	s.settle(other)
}

// lie lets a Region say that it holds everything, which harms its own readers; that it lives,
// after it has deleted its key; or that it has deleted it, although it lives.
func (s *schedule) lie(r, to regionName, deleted bool) bool {
	n := s.nodes[r]
	if n.set == nil || n.mute || n.set.Own() == nil || !s.exists(to) || n.set.Destroying() || !s.spend("lie") {
		return false
	}
	said := *n.set.Own()
	said.Deleted, said.Held = deleted && n.exists() && n.set.Primary() != r, nil
	for id := range n.usable() {
		said.Deleted = said.Deleted && (!s.needed(id) || s.elsewhere(r, id)) // or nobody would have confirmed it
	}
	for _, m := range n.set.Listed() {
		said.Held = append(said.Held, m.ID)
	}
	said.Held = append(said.Held, n.held()...)
	slices.SortFunc(said.Held, func(a, b material.ID) int { return slices.Compare(a[:], b[:]) })
	said.Held = slices.Compact(said.Held)
	s.ghost.nodes[r].liar = true
	if said.Deleted { // as if it had been, and a backup had been put back
		s.ghost.nodes[r].absent, s.ghost.rolled = true, true
	}
	s.say(r, to, said)
	return s.did("lie", nil)
}

// ask keeps what a Region answers to another one's question, to which it may be told later.
func (s *schedule) ask(r, other regionName, n int) bool {
	if !s.exists(r) || s.nodes[other].set == nil {
		return false
	}
	nonce, _ := s.nonce()
	s.answers[n%len(s.answers)] = &answer{r, nonce, s.nodes[other].set.Confirm(s.nodes[r].set.Ask(nonce))}
	return true
}

// begin begins to destroy a replica, by an answer of this moment, by a part of one, or by one
// that was kept.
func (s *schedule) begin(r, other regionName, n int) bool {
	node := s.nodes[r]
	if !node.exists() || node.set.Destroying() || s.nodes[other].set == nil || !s.spend("begin destruction") {
		return false
	}
	nonce, _ := s.nonce()
	c := s.nodes[other].set.Confirm(node.set.Ask(nonce))
	if kept := s.answers[n%len(s.answers)]; n&4 != 0 && kept != nil && kept.asked == r {
		c = kept.confirmation
	} else if n&1 != 0 && len(c.Held) > 0 {
		c.Held = c.Held[1:]
	}
	if node.set.BeginDestruction(nonce, c) != nil {
		return false
	}
	s.destroys(node)
	node.state = "PendingDeletion"
	s.settle(node)
	return s.did("begin destruction", nil)
}

// finish ends a destruction that has begun.
func (s *schedule) finish(r regionName) bool {
	n := s.nodes[r]
	if !n.exists() || !n.set.Destroying() {
		return false
	}
	incarnation := n.set.Incarnation()
	s.delete(r)
	s.ghost.nodes[r].deleted = max(s.ghost.nodes[r].deleted, incarnation)
	return true
}

// approve lets operators approve a promotion that happens later, if at all; or the generation
// that is there already.
func (s *schedule) approve(r regionName, n int) bool {
	node := s.nodes[r]
	if !node.exists() || s.ghost.dead || !s.spend("approve") {
		return false
	}
	p, list := promotion(node.set)
	if n&1 != 0 && p.Generation > 1 {
		p.Generation--
	}
	proof, _ := list.Prove(testKey)
	s.approved = &permission{r, mrk.Approved{Promotion: p, Proof: proof, Approvals: approve(p, "anna", "cleo"), Roster: testOperators, Now: testNow}}
	return s.did("approve", nil)
}

func (s *schedule) promoteLate() bool {
	a := s.approved
	if a == nil || !s.exists(a.region) || s.ghost.dead {
		return false
	}
	return s.promoteBy(a.region, a.by) == nil
}

// loseObject takes one object out of a token. It is never the last copy of what has encrypted,
// or of what anybody encrypts with.
func (s *schedule) loseObject(r regionName, id material.ID) bool {
	n := s.nodes[r]
	if !n.exists() || !n.usable()[id] || n.set.Destroying() || !s.spend("lose an object") {
		return false
	}
	if s.needed(id) && !s.elsewhere(r, id) {
		return false
	}
	s.lose(r, id)
	return s.did("lose an object", nil)
}

// loseMaterial takes a material out of every token, which nobody needs. Operators can give it up.
func (s *schedule) loseMaterial(id material.ID) bool {
	if s.needed(id) || !s.anywhere(id) || !s.spend("lose a material") {
		return false
	}
	for _, r := range allRegions {
		if n := s.nodes[r]; n.exists() {
			s.lose(r, id)
		}
	}
	return s.did("lose a material", nil)
}

// needed reports whether a material has encrypted, or anybody is to encrypt with it.
func (s *schedule) needed(id material.ID) bool {
	return s.ghost.ever[id] || slices.ContainsFunc(allRegions, func(r regionName) bool {
		n := s.nodes[r]
		return n.current == id || n.set != nil && n.set.Current() == id
	})
}

func (s *schedule) lose(r regionName, id material.ID) {
	n := s.nodes[r]
	s.ghost.faulty = true
	delete(n.token, id)
	delete(n.rows, id)
	n.set.DropPermit()
	s.settle(n)
	s.ghost.nodes[r].lost[id] = true
}

// TestEveryMistake is TestEverySchedule among Regions whose callers, operators and peers make
// every mistake that the rules have to refuse.
func TestEveryMistake(t *testing.T) {
	left := maps.Clone(budget)
	maps.Copy(left, mistakeBudget)
	table := weighted(actions, mistakenActions)
	rapid.Check(t, func(t *rapid.T) { play(t, table, left, 80) })
}
