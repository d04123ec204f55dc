package mrk_test

import (
	"errors"
	"testing"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// Conditions that honest Regions hardly ever violate, each tried by itself.

// A Region that the final state does not call active does not take the key over, even if the
// primary Region offers it (rule 13): nobody knows what it has used.
func TestOnlyAnActiveMemberAccepts(t *testing.T) {
	w := withReplicas(t)
	w.must(w.suspend(regionA, regionB))
	w.sync(regionA, regionB)
	a, b := w.nodes[regionA], w.nodes[regionB]
	root := w.chain(regionA)[0]
	c := mrk.Certificate{Key: testKey, Epoch: root.Epoch, Instance: testInstance(regionB), Parent: root.Hash(), Final: a.set.State().Hash()}
	c.Epoch.Number++
	c.Epoch.Region, c.Epoch.Nonce = regionB, mrk.Nonce{9}
	c, err := mrk.SignCertificate(ctx(), testSigner(regionA), nil, c)
	w.must(err)
	if taken, err := b.set.TakeOffer(pins{}, mrk.Offer{Certificate: c}); err != nil || !taken {
		t.Fatalf("the offer was not taken: %v", err)
	}
	w.settle(b)
	if err := w.accept(regionB); !errors.Is(err, mrk.ErrNotActive) || b.set.Acting() {
		t.Errorf("a suspended member accepts: %v, acting %v", err, b.set.Acting())
	}
}

// A primary Region that lost what it encrypts with does not act again before it has got it
// back (rule 18).
func TestRenewalNeedsTheCurrentMaterial(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	a := w.nodes[regionA]
	clear(a.token)
	clear(a.rows)
	a.set.DropPermit()
	w.settle(a)
	if _, events, err := a.set.Step(ctx(), testSigner(regionA), w.contact(a)); err != nil || len(events) != 0 || a.set.Acting() {
		t.Fatalf("A, which holds nothing, did %v (%v)", events, err)
	}
	w.heal()
	w.check()
	w.converged(regionA, regionB)
	if !a.set.Acting() {
		t.Error("A does not act although it has its material again")
	}
}

// The end of one incarnation is not the end of the next (rule 23).
func TestDeletionEndsItsOwnIncarnation(t *testing.T) {
	w := withReplicas(t)
	w.delete(regionB)
	w.sync(regionB, regionA)
	w.step(regionA)
	w.must(w.replicate(regionA, regionB))
	events := w.step(regionA)
	if e := w.nodes[regionA].set.Entry(regionB); len(events) != 0 || e.Status != mrk.Joining || e.Incarnation != 2 {
		t.Fatalf("A did %v, and B is %+v", events, e)
	}
	w.heal()
	w.converged(regionA, regionB, regionC)
}

// The set is not destroyed while the state has a member, whatever that Region answers: its
// store may be an old one, or it lies (rule 24).
func TestSetWithMembersIsNotDestroyed(t *testing.T) {
	w := withReplicas(t)
	a, nonce := w.nodes[regionA], mrk.Nonce{1}
	answers := []mrk.Confirmation{{From: regionB, Nonce: nonce}, {From: regionC, Nonce: nonce}}
	if err := a.set.BeginSetDestruction(w.contact(a), nonce, answers); !errors.Is(err, mrk.ErrPresent) || a.set.Destroying() {
		t.Errorf("got %v, destroying %v", err, a.set.Destroying())
	}
}

// What a Region is to encrypt with is not given up, even if nobody holds it.
func TestMaterialInUseIsNotWrittenOff(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.must(w.rotate(regionA))
	a, b := w.nodes[regionA], w.nodes[regionB]
	for _, n := range []*node{a, b} {
		clear(n.token)
		clear(n.rows)
		w.settle(n)
	}
	w.sync(regionB, regionA)
	for name, id := range map[string]material.ID{"the current material": testMaterial(0), "the pending material": testMaterial(1)} {
		set := a.set.Clone()
		if err := set.WriteOff(ctx(), testSigner(regionA), id, w.contact(a)); !errors.Is(err, mrk.ErrMaterial) {
			t.Errorf("giving up %s: %v", name, err)
		}
	}
}

// What members of an earlier epoch say that they hold releases nothing (rule 8): they may
// still encrypt with what only that epoch knew.
func TestReleaseWaitsForTheNewEpoch(t *testing.T) {
	w := withReplicas(t)
	w.must(w.rotate(regionA))
	for _, r := range []regionName{regionB, regionC} {
		for range 2 {
			w.sync(regionA, r)
			w.sync(r, regionA)
		}
	}
	a := w.nodes[regionA]
	a.set.DropPermit()
	w.settle(a)
	events := w.step(regionA)
	if len(events) != 1 || events[0].Kind != mrk.EventRenewed || a.set.Pending() != testMaterial(1) {
		t.Fatalf("A did %v on the word of an earlier epoch", events)
	}
	if p, _ := a.set.Progress(); len(p.Awaited) != 2 {
		t.Errorf("progress %+v", p)
	}
	w.heal()
	w.converged(regionA, regionB, regionC)
	if a.current != testMaterial(1) {
		t.Error("the rotation did not end")
	}
}

// A permit is for one epoch (rule 16). A Region that was restored to a time when it acted, and
// to which the key has come back since, acts in the newest epoch, and not by its old permit.
func TestOldPermitIsOver(t *testing.T) {
	w := withReplicas(t)
	a := w.nodes[regionA]
	backup := a.set.Marshal()
	for _, hop := range [][2]regionName{{regionA, regionB}, {regionB, regionA}} {
		w.must(w.offer(hop[0], hop[1]))
		w.sync(hop[0], hop[1])
		w.must(w.accept(hop[1]))
		w.heal()
	}
	newest := a.set.Epoch()
	w.restore(regionA, backup)
	if !a.set.Acting() || a.set.Epoch() == newest {
		t.Fatalf("acting %v in %s", a.set.Acting(), a.set.Epoch())
	}
	// Its own later states, which would tell it as well, do not arrive: nobody holds the newest
	// one any more.
	_, err := a.set.Merge(pins{}, w.facts(w.chain(regionB)...))
	w.must(err)
	a.heard = map[regionName]bool{regionB: true, regionC: true}
	events := w.step(regionA)
	if e := a.set.Epoch(); len(events) == 0 || events[0].Kind != mrk.EventRenewed || !a.set.Acting() || e.Compare(newest) <= 0 {
		t.Errorf("A did %v, acting %v in %s, after %s", events, a.set.Acting(), e, newest)
	}
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
}

// Rule 5 does not rely on what rules 11 and 23 have done before it: a member is not active
// while another active one lacks what it has used, or after it was deleted.
func TestActivationReliesOnNoOrder(t *testing.T) {
	t.Run("another one lacks what it has used", func(t *testing.T) {
		w := withReplicas(t)
		w.must(w.rotate(regionA))
		w.sync(regionA, regionB)
		a, b := w.nodes[regionA], w.nodes[regionB]
		w.sync(regionB, regionA)
		if !mrk.Proven(a.set, regionB) {
			t.Fatal("B, which has used nothing that others lack, has not proven itself")
		}
		b.used[testMaterial(1)] = true
		w.settle(b)
		w.sync(regionB, regionA)
		if mrk.Proven(a.set, regionB) {
			t.Error("B has used a material that C lacks, and is to be active beside it")
		}
	})
	t.Run("deleted", func(t *testing.T) {
		w := imported(t)
		w.importInto(regionB, testMaterial(0))
		w.heal()
		w.must(w.suspend(regionA, regionB))
		w.sync(regionA, regionB)
		w.sync(regionB, regionA)
		if !mrk.Proven(w.nodes[regionA].set, regionB) {
			t.Fatal("B, which is back, has not proven itself")
		}
		w.delete(regionB)
		w.sync(regionB, regionA)
		if mrk.Proven(w.nodes[regionA].set, regionB) {
			t.Error("a member whose key is deleted is to be active")
		}
	})
}

// A member that operators suspended because it is dark stays so until it has heard of that: what
// it said before is no sign of life. Then it is back by itself.
func TestSuspendedUntilItHears(t *testing.T) {
	w := withReplicas(t)
	w.must(w.suspend(regionA, regionC))
	for range 2 {
		w.sync(regionA, regionB)
		w.sync(regionB, regionA)
		w.step(regionA)
	}
	a := w.nodes[regionA]
	if e := a.set.Entry(regionC); e.Status != mrk.Suspended {
		t.Fatalf("C, which has said nothing since, is %s", e.Status)
	}
	clear(a.heard) // A starts again, and does not wait for C
	w.sync(regionB, regionA)
	w.must(w.rotate(regionA))
	for range 3 {
		w.sync(regionA, regionB)
		w.sync(regionB, regionA)
		w.step(regionA)
	}
	if got := a.set.Pending(); !got.IsZero() {
		t.Errorf("the rotation waits for the suspended Region")
	}
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
}
