package simulation

import (
	"context"
	"flag"
	"slices"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/replication/message"
)

var robbed = flag.Int("hostile", 0, "how many schedules of 100 have a Region in a thief's hands, and stores that do not go back")

// TestHostileSchedules plays some schedules that have a Region in a thief's hands; make simulate
// HOSTILE=100 plays more of them.
func TestHostileSchedules(t *testing.T) {
	before := *robbed
	*robbed = 100
	defer func() { *robbed = before }()
	stolen := 0
	for seed := range uint64(40) {
		w := play(t, seed, settings{})
		if w.thief() != nil {
			stolen++
		}
		if w.failed != "" {
			t.Errorf("schedule %d, step %d: %s\n%s\nreplay: SIMULATION_LOG=1 go test ./replication/simulation -run 'TestSimulation$' -seed %d -schedules 1 -hostile 100 -v",
				seed, w.steps, w.failed, strings.Join(w.log, "\n"), seed)
		}
	}
	if stolen < 20 {
		t.Errorf("%d of 40 schedules had a thief", stolen)
	}
}

// unsuited is what does not happen in a schedule with a thief: what goes back in time makes
// honest Regions forget, and excuses more than the thief may be excused.
var unsuited = []string{
	"create to import", "import", "delete import", "disassociate", "back up", "restore", "roll back", "lose token", "begin again", "pin anew", "clock",
}

// rob prepares a schedule for a theft.
func (w *world) rob() {
	w.robbed = true
	w.testimony = newTestimony()
	for _, name := range unsuited {
		w.weights[name] = 0
	}
	w.weights["hostile"] = pick(w, []int{100, 250, 500})
}

// thief returns the Region that is stolen, or nil.
func (w *world) thief() *node {
	if i := slices.IndexFunc(w.nodes, func(n *node) bool { return n.hostile }); i >= 0 {
		return w.nodes[i]
	}
	return nil
}

// mischief is one thing that the thief does. The first one is the theft.
func (w *world) mischief() {
	if !w.robbed || w.depth > 1 {
		return
	}
	if w.thief() == nil {
		if w.chance(30) {
			w.steal(pick(w, w.nodes))
		}
		return
	}
	h := hostile{w.thief()}
	to := pick(w, honest(w.nodes))
	id := w.anyKey()
	if !h.running() || id == "" || h.key(id) == nil || h.key(id).Gone() || h.set(id).State() == nil {
		return
	}
	h.fuse = fuse{} // or a signature that fails would end the schedule
	lie := pick(w, lies)
	w.note("%s: %s", h.name, lie.name)
	lie.do(h, id, to)
}

// lies is what a thief says to another Region.
var lies = []struct {
	name string
	do   func(h hostile, id arn.KeyID, to *node)
}{
	{"says what it knows", func(h hostile, id arn.KeyID, to *node) { _ = h.shows(to, h.set(id).Facts(mrk.Hash{})) }},
	{"promotes itself", func(h hostile, id arn.KeyID, to *node) { h.certifies(id, h.node, to) }},
	{"promotes another", func(h hostile, id arn.KeyID, to *node) { h.certifies(id, pick(h.w, h.w.nodes), to) }},
	{"goes on from a term that it had", hostile.retakes},
	{"writes the next state", hostile.rules},
	{"writes a state again", hostile.contradicts},
	{"speaks for another member", func(h hostile, id arn.KeyID, to *node) {
		of := pick(h.w, honest(h.w.nodes))
		if h.set(id).Fact(of.name) == nil {
			return
		}
		h.speaks(h.word(id, of), to)
	}},
	{"speaks for itself", func(h hostile, id arn.KeyID, to *node) {
		if h.set(id).Own() != nil {
			h.speaks(h.word(id, h.node), to)
		}
	}},
	{"sends a material", hostile.injects},
	{"asks for a replica", hostile.demands},
	{"offers the key", func(h hostile, id arn.KeyID, to *node) {
		c := h.after(id, to)
		h.signs(&c)
		_ = h.offers(to, mrk.Offer{Certificate: c, By: mrk.Claim{Principal: keyopstest.Admin().Principal.String()}})
	}},
	{"opens a line by too few approvals", func(h hostile, id arn.KeyID, to *node) {
		k := mrk.ListedKey{Key: id, Head: h.set(id).Head()}
		list, a := h.w.approved(h.node, h.plant.descriptor.Operators, k)
		a.Proof, _ = list.Prove(id)
		a.Approvals = a.Approvals[:h.plant.descriptor.Operators.Threshold-1]
		_ = h.shows(to, mrk.Facts{Key: id, Certificates: []mrk.Certificate{h.line(k, a)}})
	}},
	{"confirms whatever it is asked", func(h hostile, _ arn.KeyID, _ *node) {
		h.confirms(func(q mrk.Question) mrk.Confirmation {
			return mrk.Confirmation{Nonce: q.Nonce, Exists: true, Acting: true, Held: q.Held}
		})
	}},
	{"repeats what was said", func(h hostile, _ arn.KeyID, _ *node) {
		if len(h.w.overheard) > 0 {
			p := pick(h.w, h.w.overheard)
			_, _ = h.w.receive(p.from, p.to, p.message)
		}
	}},
}

// certifies writes a certificate after the newest one, with no signature but its own.
func (h hostile) certifies(id arn.KeyID, of, to *node) {
	c := h.after(id, of)
	h.signs(&c)
	h.w.must(c.Countersign(context.Background(), h.run.svc.Signer()))
	_ = h.shows(to, mrk.Facts{Key: id, Certificates: []mrk.Certificate{c}})
}

// retakes writes another successor of a term of its own, to itself or to another Region.
func (h hostile) retakes(id arn.KeyID, to *node) {
	all := h.set(id).Facts(mrk.Hash{}).Certificates
	mine := slices.DeleteFunc(slices.Clone(all), func(c mrk.Certificate) bool { return c.Epoch.Region != h.name })
	if len(mine) == 0 {
		return
	}
	parent, of := pick(h.w, mine), pick(h.w, h.w.nodes)
	c := mrk.Certificate{Key: id, Epoch: parent.Epoch, Instance: of.plant.descriptor.Instance, Parent: parent.Hash()}
	c.Epoch.Number += 1 + uint64(h.w.rng.IntN(2))
	c.Epoch.Region, c.Epoch.Nonce = of.name, h.nonce()
	if of != h.node {
		c.Final = h.set(id).State().Hash()
	}
	h.signs(&c)
	h.w.must(c.Countersign(context.Background(), h.run.svc.Signer()))
	_ = h.shows(to, mrk.Facts{Key: id, Certificates: []mrk.Certificate{c}})
}

// rules writes the next state, in which much has changed.
func (h hostile) rules(id arn.KeyID, to *node) {
	s := h.state(id)
	s.Seq += uint64(h.w.rng.IntN(3))
	if h.w.chance(50) {
		relist(s, pick(h.w, h.w.nodes).name, func(e *mrk.Entry) { e.Status = mrk.Evicted })
	}
	if h.w.chance(50) {
		_, called := h.plants(id)
		s.Materials = append(s.Materials, mrk.Listed{ID: called, Birth: s.Epoch.Nonce, Created: start.Unix()})
		s.Current = called
	}
	h.signs(s)
	f := mrk.Facts{Key: id, State: s}
	if h.w.chance(30) {
		f = mrk.Facts{Key: id, Earlier: []mrk.Earlier{{State: s}}}
	}
	_ = h.shows(to, f)
}

// contradicts writes another state with the number of the newest one.
func (h hostile) contradicts(id arn.KeyID, to *node) {
	s := h.state(id)
	s.Seq--
	s.Rotation.Enabled, s.Rotation.Days = !s.Rotation.Enabled, 90
	h.signs(s)
	_ = h.shows(to, mrk.Facts{Key: id, State: s})
}

// speaks changes a member fact and shows it.
func (h hostile) speaks(m *mrk.Member, to *node) {
	m.Counter += uint64(h.w.rng.IntN(20))
	switch h.w.rng.IntN(5) {
	case 0:
		m.Deleted, m.Held = true, nil
	case 1:
		m.Held = nil
	case 2:
		m.Incarnation += uint64(1 + h.w.rng.IntN(3))
	case 3:
		m.Joined, m.Held = h.set(m.Key).Epoch(), h.key(m.Key).Held()
	case 4:
		m.Counter--
		m.KeyState = pick(h.w, []string{"Enabled", "Disabled", "PendingDeletion", "Updating"})
	}
	slices.SortFunc(m.Held, func(a, b material.ID) int { return slices.Compare(a[:], b[:]) })
	h.signs(m)
	_ = h.shows(to, mrk.Facts{Key: m.Key, Members: []*mrk.Member{m}})
}

// injects sends a material that it knows, under its own name or another.
func (h hostile) injects(id arn.KeyID, to *node) {
	if to.key(id) == nil {
		return
	}
	object, called := h.plants(id)
	if h.w.chance(50) && !h.set(id).Current().IsZero() {
		called = h.set(id).Current()
	}
	b := h.wraps(id, object, called, to)
	if b.Incarnation += uint64(h.w.rng.IntN(2)); b.Incarnation == 0 {
		b.Incarnation = 1
	}
	_ = h.sends(to, b)
}

// demands asks for a replica, with a policy of its choice.
func (h hostile) demands(id arn.KeyID, to *node) {
	e := h.set(id).Entry(to.name)
	req := mrk.CreateRequest{
		Key: id, Source: h.name, Instance: h.plant.descriptor.Instance, Destination: to.name, ToInstance: to.plant.descriptor.Instance,
		Incarnation: e.Incarnation + uint64(h.w.rng.IntN(2)), Principal: keyopstest.Admin().Principal.String(), Policy: []byte(openPolicy),
	}
	req.Incarnation = max(req.Incarnation, 1)
	h.signs(&req)
	f := h.set(id).Facts(mrk.Hash{})
	if h.w.chance(50) {
		f.Admission = &req
	}
	_ = h.tells(to, message.Facts{Facts: f, Head: h.set(id).Head(), Hash: mrk.Hash{1}, Request: &req})
}

// expel is what operators do once they know of the theft: nobody reaches that Region any more,
// another one is promoted where it has the primary key or has contradicted itself with it, and
// its memberships end.
func (w *world) expel() {
	t := w.thief()
	if t == nil {
		return
	}
	w.isolate(t)
	for _, id := range w.keys {
		p, k := w.acting(id)
		if w.testimony.ruled[id] {
			w.ledger.over[id] = true // a hostile primary Region chooses materials and members (PROTOCOL.md 3, 8)
			continue
		}
		if f := w.frozenBy(id); p == nil || f != nil && (f.Cause == mrk.CauseEpochFork || !f.Epoch.IsZero()) {
			if h := w.heir(id, t); h != nil {
				w.promoteOne(h, id, t.name)
			} else if p == nil {
				w.ledger.over[id] = true // nobody else has it
			}
			continue
		}
		if k.Set.Entry(t.name).Status.In() {
			w.evictOne(p, id, t)
		}
	}
}

// frozenBy returns a contradiction of the thief's that an honest Region has met.
func (w *world) frozenBy(id arn.KeyID) *mrk.Conflict {
	for _, n := range honest(w.up()) {
		if k := n.key(id); k != nil && !k.Gone() && k.Set.Frozen() != nil {
			return k.Set.Frozen()
		}
	}
	return nil
}
