package simulation

import (
	"slices"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// What a hostile Region says in others' names, or without being who may say it.

// A replica makes itself the primary Region, with nobody's signature but its own; and a primary
// Region makes another one primary that has not agreed.
func TestHostileCertificate(t *testing.T) {
	for name, tt := range map[string]struct{ by, of int }{
		"a replica promotes itself":                        {1, 1},
		"a replica promotes another":                       {1, 2},
		"the primary Region names one that has not agreed": {0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := scene(t)
			id := w.withReplicas()
			h := w.steal(w.nodes[tt.by])
			c := h.after(id, w.nodes[tt.of])
			h.signs(&c)
			w.must(c.Countersign(t.Context(), h.run.svc.Signer()))
			for _, to := range honest(w.nodes) {
				_ = h.shows(to, mrk.Facts{Key: id, Certificates: []mrk.Certificate{c}})
				if p := to.key(id).Set.Primary(); p != w.nodes[0].name {
					t.Errorf("%s takes %s for the primary Region", to.name, p)
				}
			}
		})
	}
}

// CE15: a former primary Region writes itself the next epochs. Who knows its successor stays
// with that one, and manages nothing until operators promote somebody: until then nobody can
// tell which of the two was meant.
func TestHostileRetakes(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	h := w.steal(a)
	var again []mrk.Certificate
	mine := h.after(id, a)
	for range 3 {
		mine.Epoch.Nonce = h.nonce()
		h.signs(&mine)
		again = append(again, mine)
		mine.Parent = mine.Hash()
		mine.Epoch.Number++
	}
	w.must(a.handsOver(id, b))
	w.settle()
	if p := c.key(id).Set.Primary(); p != b.name {
		t.Fatalf("%s takes %s for the primary Region", c.name, p)
	}
	for _, to := range honest(w.nodes) {
		_ = h.shows(to, mrk.Facts{Key: id, Certificates: again})
		if k := to.key(id); k.Set.Primary() != b.name || k.Set.Frozen() == nil || k.Set.Frozen().Cause != mrk.CauseEpochFork {
			t.Errorf("%s follows %s, frozen %v", to.name, k.Set.Primary(), k.Set.Frozen())
		}
	}
	if !w.promoteOne(b, id, a.name) || !w.evictOne(b, id, a) {
		t.Fatal("operators cannot end it")
	}
	_ = h.shows(c, mrk.Facts{Key: id, Certificates: again})
	w.isolate(a)
	w.settle()
	if k := c.key(id); k.Set.Primary() != b.name || k.Set.Frozen() != nil {
		t.Errorf("after the promotion %s follows %s, frozen %v", c.name, k.Set.Primary(), k.Set.Frozen())
	}
}

// A replica writes the primary Region's next state, in which another one is evicted.
func TestHostileState(t *testing.T) {
	w := scene(t)
	b, c := w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	h := w.steal(b)
	s := h.state(id)
	relist(s, c.name, func(e *mrk.Entry) { e.Status = mrk.Evicted })
	h.signs(s)
	for _, to := range honest(w.nodes) {
		_ = h.shows(to, mrk.Facts{Key: id, State: s})
		if to.key(id).Set.State().Hash() == s.Hash() || to.key(id).Set.Entry(c.name).Status != mrk.Active {
			t.Errorf("%s believes a state that a replica has written", to.name)
		}
	}
}

// The primary Region writes two states with one number. Who has seen both manages nothing and
// says so, and what is encrypted and decrypted goes on.
func TestHostileEquivocation(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	h := w.steal(a)
	one, two := h.state(id), h.state(id)
	two.Rotation.Enabled, two.Rotation.Days = true, 90
	h.signs(one)
	h.signs(two)
	w.must(h.shows(b, mrk.Facts{Key: id, State: one}))
	w.must(h.shows(c, mrk.Facts{Key: id, State: two}))
	w.isolate(a)
	w.net.join(b, c)
	w.settle()
	frozen := slices.ContainsFunc(honest(w.nodes), func(n *node) bool {
		f := n.key(id).Set.Frozen()
		return f != nil && f.Cause == mrk.CauseEquivocation && f.Writer == a.name
	})
	if !frozen {
		t.Error("nobody has noticed")
	}
	if !w.encryptAt(b, b.run, id) {
		t.Error("what is frozen does not encrypt")
	}
	if _, err := w.open(c.run, w.letters[0]); err != nil {
		t.Errorf("what is frozen does not decrypt: %v", err)
	}
	if !w.promoteOne(b, id, a.name) {
		t.Fatal("operators cannot end it")
	}
	w.settle()
	if k := c.key(id); k.Set.Primary() != b.name || k.Set.Frozen() != nil {
		t.Errorf("after the promotion %s follows %s, frozen %v", c.name, k.Set.Primary(), k.Set.Frozen())
	}
}

// A replica says in another one's name that its key is deleted.
func TestHostileMemberFact(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	h := w.steal(b)
	m := h.word(id, c)
	m.Deleted, m.Held = true, nil
	h.signs(m)
	for _, to := range honest(w.nodes) {
		_ = h.shows(to, mrk.Facts{Key: id, Members: []*mrk.Member{m}})
	}
	w.isolate(b)
	w.net.join(a, c)
	w.settle()
	if e, k := a.key(id).Set.Entry(c.name), c.key(id); e.Status != mrk.Active || k.Set.Told() {
		t.Errorf("%s is %s, and told that it is deleted: %t", c.name, e.Status, k.Set.Told())
	}
}

// A thief has the Region key of an instance that is no more, whose successor has the key.
func TestHostileFormerInstance(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	former := c.plant.descriptor.Instance
	w.must(w.beginAgainAt(c))
	w.heal()
	if e := a.key(id).Set.Entry(c.name); e.Status != mrk.Active || e.Instance == former {
		t.Fatalf("the new instance is %+v", e)
	}
	h := w.steal(b)
	m := h.word(id, c)
	m.Instance, m.Counter, m.Deleted, m.Held = former, 1000, true, nil
	w.must(m.Sign(t.Context(), late(former)))
	_ = h.shows(a, mrk.Facts{Key: id, Members: []*mrk.Member{m}})
	w.isolate(b)
	w.net.join(a, c)
	w.settle()
	if e := a.key(id).Set.Entry(c.name); e.Status != mrk.Active {
		t.Errorf("by the word of an instance that is no more, the one that is there is %s", e.Status)
	}
}

// approved lets operators of a Region approve that it gets keys, after their newest
// certificates there.
func (w *world) approved(n *node, roster approval.Roster, keys ...mrk.ListedKey) (mrk.KeyList, mrk.Approved) {
	w.t.Helper()
	list, err := mrk.NewKeyList(keys)
	w.must(err)
	w.generation++
	p := mrk.Promotion{
		Target: n.name, Instance: n.plant.descriptor.Instance, Generation: w.generation, Keys: uint64(len(list)), Root: list.Root(),
		Roster: roster.Version, Serial: approval.NewSerial(), Expires: n.clock().Add(time.Hour).Truncate(time.Second).UTC(),
	}
	files, err := n.plant.approve(w.t.Context(), p.Request())
	w.must(err)
	return list, mrk.Approved{Promotion: p, Approvals: files, Roster: roster, Now: n.clock()}
}

// line is a certificate that opens a line, after another one.
func (h hostile) line(k mrk.ListedKey, a mrk.Approved) mrk.Certificate {
	c := mrk.Certificate{Key: k.Key, Instance: h.plant.descriptor.Instance, Parent: k.Head}
	nonce := h.nonce()
	nonce[0] = 0xff // above any other of the same generation
	c.Epoch = mrk.Epoch{Line: mrk.Line{Generation: a.Promotion.Generation, Region: h.name, Nonce: nonce}, Region: h.name, Nonce: nonce}
	c.Force(a)
	h.signs(&c)
	return c
}

// What operators have approved makes a Region primary for the keys that they have listed, once,
// and only if enough of those who are operators today have approved it.
func TestHostilePromotion(t *testing.T) {
	type change func(w *world, h hostile, k mrk.ListedKey) mrk.Approved
	listed := func(w *world, h hostile, k mrk.ListedKey) mrk.Approved {
		list, a := w.approved(h.node, h.plant.descriptor.Operators, k)
		a.Proof, _ = list.Prove(k.Key)
		return a
	}
	tests := map[string]struct {
		approve change
		believe bool
	}{
		"approved": {listed, true},
		"by too few": {func(w *world, h hostile, k mrk.ListedKey) mrk.Approved {
			a := listed(w, h, k)
			a.Approvals = a.Approvals[:h.plant.descriptor.Operators.Threshold-1]
			return a
		}, false},
		"for another generation": {func(w *world, h hostile, k mrk.ListedKey) mrk.Approved {
			a := listed(w, h, k)
			a.Promotion.Generation++
			return a
		}, false},
		"for another key": {func(w *world, h hostile, k mrk.ListedKey) mrk.Approved {
			other := w.key(w.nodes[0])
			list, a := w.approved(h.node, h.plant.descriptor.Operators, mrk.ListedKey{Key: other, Head: w.nodes[0].key(other).Set.Head()})
			a.Proof, _ = list.Prove(other)
			return a
		}, false},
		"for an earlier certificate": {func(w *world, h hostile, k mrk.ListedKey) mrk.Approved {
			earlier := h.set(k.Key).Facts(mrk.Hash{}).Certificates[0].Hash()
			return listed(w, h, mrk.ListedKey{Key: k.Key, Head: earlier})
		}, false},
		"by operators of before": {func(w *world, h hostile, k mrk.ListedKey) mrk.Approved {
			a := listed(w, h, k)
			w.dismissOperators(h.node)
			return a
		}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := scene(t)
			a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
			id := w.withReplicas()
			w.must(a.handsOver(id, c)) // so that there is an earlier certificate
			w.settle()
			h := w.steal(b)
			k := mrk.ListedKey{Key: id, Head: h.set(id).Head()}
			cert := h.line(k, tt.approve(w, h, k))
			for _, to := range honest(w.nodes) {
				_ = h.shows(to, mrk.Facts{Key: id, Certificates: []mrk.Certificate{cert}})
				if got := to.key(id).Set.Primary() == b.name; got != tt.believe {
					t.Errorf("%s takes %s for the primary Region", to.name, to.key(id).Set.Primary())
				}
			}
		})
	}
}

// dismissOperators puts other operators in the place of a Region's, as everybody hears.
func (w *world) dismissOperators(n *node) {
	w.t.Helper()
	before := n.plant.descriptor.Operators
	next := approval.Roster{Version: before.Version + 1, Threshold: before.Threshold, Operators: slices.Clone(before.Operators[1:])}
	q := before.RequestChange(string(n.name), string(n.plant.descriptor.Instance), next, approval.NewSerial(), n.clock().Add(time.Hour).Truncate(time.Second).UTC())
	files, err := n.plant.approve(w.t.Context(), q)
	w.must(err)
	c, err := before.NewChange(string(n.name), string(n.plant.descriptor.Instance), next, n.clock(), files)
	w.must(err)
	for _, o := range w.nodes {
		w.must(o.run.svc.KeepRoster(w.t.Context(), n.plant.descriptor.Descriptor, []approval.Change{c}))
	}
}

// A Region that was promoted, and has handed the key over, uses the approvals once more.
func TestHostileApprovalsOnce(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	k := mrk.ListedKey{Key: id, Head: b.key(id).Set.Head()}
	list, approved := w.approved(b, b.plant.descriptor.Operators, k)
	approved.Proof, _ = list.Prove(id)
	h := w.steal(b)
	again := h.line(k, approved)
	first := h.line(k, approved)
	for first.Epoch.Nonce[1] >= again.Epoch.Nonce[1] {
		first, again = h.line(k, approved), h.line(k, approved)
	}
	// The key goes to b by the first certificate, and on to a, which agrees.
	for _, to := range honest(w.nodes) {
		w.must(h.shows(to, mrk.Facts{Key: id, Certificates: []mrk.Certificate{first}}))
	}
	next := mrk.Certificate{Key: id, Epoch: first.Epoch, Instance: a.plant.descriptor.Instance, Parent: first.Hash(), Final: h.set(id).State().Hash()}
	next.Epoch.Number, next.Epoch.Region, next.Epoch.Nonce = 1, a.name, h.nonce()
	h.signs(&next)
	w.must(next.Countersign(t.Context(), a.run.svc.Signer()))
	w.must(h.shows(c, mrk.Facts{Key: id, Certificates: []mrk.Certificate{next}}))
	if p := c.key(id).Set.Primary(); p != a.name {
		t.Fatalf("%s takes %s for the primary Region", c.name, p)
	}
	_ = h.shows(c, mrk.Facts{Key: id, Certificates: []mrk.Certificate{again}})
	if s := c.key(id).Set; s.Primary() != a.name || s.Frozen() == nil {
		t.Errorf("by approvals that were used, %s takes %s for the primary Region, frozen %v", c.name, s.Primary(), s.Frozen())
	}
}

// Approvals that have expired fence the old primary Region all the same, and convince a third
// one: only whom they promote looks at the clock, when it uses them (CE17).
func TestExpiredApprovalsFence(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	w.isolate(a)
	w.isolate(c)
	if !w.promoteOne(b, id, a.name) {
		t.Fatal("not promoted")
	}
	w.now = w.now.Add(30 * day)
	for _, n := range []*node{a, c} {
		w.net.heal()
		w.settle()
		if s := n.key(id).Set; s.Primary() != b.name || s.Acting() {
			t.Errorf("%s takes %s for the primary Region, and acts: %t", n.name, s.Primary(), s.Acting())
		}
	}
	w.heal()
}

// Messages that were recorded before a promotion come again and again, and change nothing.
func TestReplayedFromBeforeAPromotion(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	w.must(a.rotates(id, false))
	old := append(w.facts(a, c), w.facts(a, b)...)
	w.settle()
	old = append(old, append(w.facts(a, c), w.facts(b, c)...)...)
	if !w.promoteOne(b, id) {
		t.Fatal("not promoted")
	}
	w.settle()
	w.must(b.rotates(id, false))
	w.settle()
	before := w.summary()
	for range 2 {
		for _, p := range slices.Backward(old) {
			_, _ = w.receive(p.from, p.to, p.message)
			w.check()
		}
	}
	if w.summary() != before {
		t.Error("what was said before the promotion has changed something")
	}
	w.heal()
}

// A replica contradicts itself, before everybody, and never counts past that. Operators evict
// it, though the key is frozen, and go on without it. If the primary Region has lost its token
// meanwhile, they promote another one first: nothing is heard of a frozen key that would let the
// primary Region act again.
func TestHostileMemberContradictsItself(t *testing.T) {
	for name, tt := range map[string]struct {
		above uint64 // of its incarnation
		lost  bool   // the primary Region's token is
	}{
		"as what it is":               {0, false},
		"as what nobody has admitted": {6, false},
		"and nobody acts":             {0, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := scene(t)
			a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
			id := w.withReplicas()
			h := w.steal(b)
			var two []*mrk.Member
			for _, state := range []string{"Disabled", "Enabled"} {
				m := h.word(id, b)
				m.Counter += 10
				m.Incarnation += tt.above
				m.KeyState = state
				h.signs(m)
				two = append(two, m)
			}
			for i, to := range []*node{a, c} {
				_ = h.shows(to, mrk.Facts{Key: id, Members: []*mrk.Member{two[i]}})
				_ = h.shows(to, mrk.Facts{Key: id, Members: []*mrk.Member{two[1-i]}})
				if f := to.key(id).Set.Frozen(); f == nil || f.Cause != mrk.CauseEquivocation || f.Writer != b.name {
					t.Errorf("%s has frozen the key by %+v", to.name, f)
				}
			}
			w.isolate(b)
			w.net.join(a, c)
			if err := a.rotates(id, false); err == nil {
				t.Error("a frozen key is rotated")
			}
			p := a
			if tt.lost {
				a.stop()
				a.fake.Restore(a.plant.token)
				w.must(a.start())
				w.settle()
				if w.evictOne(a, id, b) {
					t.Error("who does not act has evicted a member")
				}
				if p = c; !w.promoteOne(c, id) {
					t.Fatal("operators cannot promote another Region")
				}
			}
			if !w.evictOne(p, id, b) {
				t.Fatal("operators cannot end it")
			}
			w.settle()
			if a.key(id).Set.Frozen() != nil || c.key(id).Set.Frozen() != nil {
				t.Error("still frozen")
			}
			w.must(p.rotates(id, false))
			w.settle()
			if a.key(id).Set.Hash() != c.key(id).Set.Hash() || !a.key(id).Set.Pending().IsZero() {
				t.Errorf("%s and %s have not come to the same", a.name, c.name)
			}
		})
	}
}
