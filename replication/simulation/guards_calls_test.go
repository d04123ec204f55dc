package simulation

import (
	"errors"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/transport"
)

// What single guards refuse to callers and operators, and to messages of another time, each in
// a deployment of its own.

// A key that is disabled is neither replicated nor handed over.
func TestDisabledKeyGoesNowhere(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.key(a)
	w.must(a.replicateTo(id, b))
	w.settle()
	_, err := a.run.svc.DisableKey(t.Context(), caller(), keyops.DisableKeyInput{KeyID: string(id)})
	w.must(err)
	before := a.key(id).Set.Hash()
	if err := a.replicateTo(id, c); !errors.Is(err, keyops.ErrDisabled) {
		t.Errorf("ReplicateKey of a disabled key: %v", err)
	}
	if err := a.handsOver(id, b); !errors.Is(err, keyops.ErrDisabled) {
		t.Errorf("UpdatePrimaryRegion of a disabled key: %v", err)
	}
	// The rules themselves, should anybody come to them who has not looked before.
	rule := func(n *node, fn func(*mrk.Set) error) error {
		return n.run.svc.UpdateShared(t.Context(), id, keyops.Cause{Event: "SynchronizeMultiRegionKey"}, func(k *keyops.Key) error { return fn(k.Set) })
	}
	if err := rule(a, func(s *mrk.Set) error {
		return s.Rotate(t.Context(), a.run.svc.Signer(), mrk.Listed{ID: material.ID{1}})
	}); !errors.Is(err, mrk.ErrNotEnabled) {
		t.Errorf("of rotating a disabled key the rule says: %v", err)
	}
	err = rule(a, func(s *mrk.Set) error {
		return s.OfferTo(t.Context(), a.run.svc.Signer(), b.name, a.run.repl.Contact(id))
	})
	if !errors.Is(err, mrk.ErrNotEnabled) {
		t.Errorf("of handing over a disabled key the rule says: %v", err)
	}
	w.settle()
	if c.key(id) != nil || a.key(id).State != keystate.Disabled || a.key(id).Set.Hash() != before {
		t.Error("what was refused has had an effect")
	}
	w.heal()
}

// A Region that could not send materials to every member does not take the primary key over.
func TestPrimaryRegionReachesEveryMember(t *testing.T) {
	w := scene(t)
	a, c := w.nodes[0], w.nodes[2]
	id := w.withReplicas()
	all := c.plant.transport
	c.stop()
	c.plant.transport = transport.Set{}
	w.must(c.start())
	w.settle()
	if err := a.handsOver(id, c); !errors.Is(err, keyops.ErrInvalidState) {
		t.Errorf("UpdatePrimaryRegion to who has no transport key to a member: %v", err)
	}
	w.settle()
	if p, _ := w.acting(id); p != a {
		t.Error("it has been handed over")
	}
	c.stop()
	c.plant.transport = all
	w.must(c.start())
	w.heal()
}

// A Region's clock is ahead, by less than what would be noticed. A deletion waits until it is
// due by the clock of the Region that confirms it as well.
func TestDeletionIsDueByTwoClocks(t *testing.T) {
	w := scene(t)
	a, c := w.nodes[0], w.nodes[2]
	id := w.withReplicas()
	_ = c.run.svc.Work(t.Context()) // looks at the clock
	w.must(c.scheduleDeletion(id))
	due := c.key(id).DeletionDate
	w.now = due.Add(-time.Hour)
	w.settle()
	c.offset = 40 * time.Second
	w.now = due.Add(-20 * time.Second)
	_ = c.run.svc.Work(t.Context())
	w.check()
	if early := a.clock().Before(due) && due.Before(c.clock()); !early || c.buried(id) {
		t.Errorf("due by one clock only: %t; destroyed: %t", early, c.buried(id))
	}
	c.offset = 0
	w.now = due.Add(2 * time.Hour)
	w.settle()
	w.must(c.run.svc.Work(t.Context()))
	if !c.buried(id) {
		t.Error("the replica is not destroyed when it is due")
	}
}

// Operators approved a promotion before the key was handed on: they did not know of that.
// Likewise with a generation that is used already.
func TestPromotionOfBefore(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	promote := func(head mrk.Hash, generation uint64) error {
		w.generation = generation - 1
		list, approved := w.approved(c, c.plant.descriptor.Operators, mrk.ListedKey{Key: id, Head: head})
		in := promotion(list, id)
		for _, f := range approved.Approvals {
			b, err := statement.MarshalJSON(f)
			w.must(err)
			in.Approvals = append(in.Approvals, b)
		}
		_, err := c.run.svc.PromoteKey(t.Context(), caller(), in)
		return err
	}
	before := c.key(id).Set.Head()
	if !w.promoteOne(b, id) {
		t.Fatal("not promoted")
	}
	w.settle()
	w.must(b.handsOver(id, a))
	w.settle()
	known := c.key(id).Set
	if err := promote(before, known.NextGeneration()); err == nil || c.key(id).Set.Acting() {
		t.Errorf("approved for another certificate: %v", err)
	}
	if err := promote(known.Head(), known.Epoch().Line.Generation); err == nil || c.key(id).Set.Acting() {
		t.Errorf("approved for a generation that is over: %v", err)
	}
	if p, _ := w.acting(id); p != a {
		t.Error("the primary key has moved")
	}
	// The rule itself, should anybody come to it who has not looked before.
	stale := func(k mrk.ListedKey, generation uint64) error {
		w.generation = generation - 1
		list, approved := w.approved(c, c.plant.descriptor.Operators, k)
		approved.Proof, _ = list.Prove(id)
		return c.run.svc.UpdateShared(t.Context(), id, keyops.Cause{Event: "PromoteKey"}, func(k *keyops.Key) error {
			_, err := k.Set.Promote(t.Context(), c.run.svc.Signer(), approved, c.run.repl.Contact(id))
			return err
		})
	}
	if err := stale(mrk.ListedKey{Key: id, Head: before}, known.NextGeneration()); !errors.Is(err, mrk.ErrStale) || c.key(id).Set.Acting() {
		t.Errorf("approved for another certificate, the rule says: %v", err)
	}
	if err := stale(mrk.ListedKey{Key: id, Head: known.Head()}, known.Epoch().Line.Generation); !errors.Is(err, mrk.ErrStale) || c.key(id).Set.Acting() {
		t.Errorf("approved for a generation that is over, the rule says: %v", err)
	}
	w.must(promote(known.Head(), known.NextGeneration()))
	w.heal()
	if p, _ := w.acting(id); p != c {
		t.Error("the Region that operators promoted does not act")
	}
}

// The messages by which a replica was made come again, to a Region that was evicted since and
// restored from a backup of before. They were sent to an earlier run of it.
func TestRequestOfAnEarlierRun(t *testing.T) {
	w := scene(t)
	a, c := w.nodes[0], w.nodes[2]
	id := w.key(a)
	w.must(a.replicateTo(id, c))
	w.tap = &[]parcel{}
	w.settle()
	old := *w.tap
	w.tap = nil
	if c.key(id) == nil || !w.evictOne(a, id, c) {
		t.Fatal("not replicated, or not evicted")
	}
	w.settle()
	w.restoreTo(w.backups[2])
	w.isolate(c)
	for _, p := range old {
		if p.to == c.name {
			_, _ = w.receive(p.from, p.to, p.message)
			w.check()
		}
	}
	if c.key(id) != nil {
		t.Error("a Region that was evicted has the key again, by what was said before")
	}
}

// A member was evicted and replicated to again, while its store goes back to before it had the
// key. Its own word is about another incarnation than the one that is listed: only the request
// for that one makes the key.
func TestRecreatedAsWhatItWas(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	w.isolate(c)
	if !w.evictOne(a, id, c) {
		t.Fatal("not evicted")
	}
	w.must(a.replicateTo(id, c))
	w.settle()
	w.restoreTo(w.backups[2])
	w.net.join(b, c)
	w.settle()
	if c.key(id) != nil {
		t.Errorf("it is back as incarnation %d, and %d is listed", c.key(id).Set.Incarnation(), b.key(id).Set.Entry(c.name).Incarnation)
	}
	w.net.heal()
	w.settle()
	if k := c.key(id); k == nil || k.Set.Incarnation() != 2 {
		t.Error("the primary Region's request is not followed")
	}
	w.heal()
}

// A Region that takes a key over is enabled: the rule says so itself, should anybody come to it who
// has not looked before.
func TestDisabledMemberTakesNothingOver(t *testing.T) {
	w := scene(t)
	a, c := w.nodes[0], w.nodes[2]
	id := w.withReplicas()
	_, err := c.run.svc.DisableKey(t.Context(), caller(), keyops.DisableKeyInput{KeyID: string(id)})
	w.must(err)
	h := w.steal(a)
	h.handing(id, c)
	cert := h.after(id, c)
	h.signs(&cert)
	err = c.run.svc.UpdateShared(t.Context(), id, keyops.Cause{Event: "UpdatePrimaryRegion"}, func(k *keyops.Key) error {
		if _, err := k.Set.TakeOffer(c.pinned, mrk.Offer{Certificate: cert}); err != nil {
			return err
		}
		_, err := k.Set.Accept(t.Context(), c.run.svc.Signer(), c.run.repl.Contact(id))
		return err
	})
	if !errors.Is(err, mrk.ErrNotEnabled) || c.key(id).Set.Acting() {
		t.Errorf("the rule says: %v; it acts: %t", err, c.key(id).Set.Acting())
	}
}

// A Region that has started hands nothing over before it has heard all others: one of them may
// have something to say that the next primary Region would have to know.
func TestHandsOverHavingHeardAll(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	a.stop()
	w.isolate(c)
	w.must(a.start())
	w.settle()
	if err := a.handsOver(id, b); err == nil {
		t.Error("handed over without having heard a member")
	}
	w.settle()
	if p, _ := w.acting(id); p != a {
		t.Error("another Region acts")
	}
	w.net.heal()
	w.settle()
	w.must(a.handsOver(id, b))
	w.heal()
	if p, _ := w.acting(id); p != b {
		t.Error("not handed over in the end")
	}
}

// The primary Region's token has lost what the key encrypts with, and nobody can send it. It does
// not act before it has that again.
func TestActsNotWithoutItsMaterial(t *testing.T) {
	w := scene(t)
	a := w.nodes[0]
	id := w.withReplicas()
	all := map[*node]transport.Set{}
	for _, n := range w.nodes[1:] {
		all[n] = n.plant.transport
		n.stop()
		n.plant.transport = transport.Set{}
		w.must(n.start())
	}
	w.settle()
	w.loses(a)
	w.net.heal()
	w.settle()
	if a.holding(id) != 0 || a.key(id).Set.Acting() {
		t.Errorf("it holds %d materials, and acts: %t", a.holding(id), a.key(id).Set.Acting())
	}
	for _, n := range w.nodes[1:] {
		n.stop()
		n.plant.transport = all[n]
		w.must(n.start())
	}
	w.heal()
	if p, _ := w.acting(id); p != a || a.holding(id) != 1 {
		t.Error("it does not act again, with its material")
	}
}
