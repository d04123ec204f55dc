package mrk_test

import (
	"context"
	"errors"
	"testing"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// The traces of the protocol's design that an earlier draft permitted, as far as they need
// no hand-over, forced promotion, restore or malice.

func ctx() context.Context { return context.Background() }

// handOver writes the certificate by which a Region makes another one primary.
func (w *world) handOver(from, to regionName, parent mrk.Certificate) mrk.Certificate {
	w.t.Helper()
	nonce, _ := w.nonce()
	c := mrk.Certificate{
		Key: testKey, Epoch: parent.Epoch, Instance: testInstance(to), Parent: parent.Hash(), Final: mrk.Hash{1},
	}
	c.Epoch.Number++
	c.Epoch.Region, c.Epoch.Nonce = to, nonce
	c, err := mrk.SignCertificate(ctx(), testSigner(from), testSigner(to), c)
	w.must(err)
	return c
}

func (w *world) chain(r regionName) []mrk.Certificate {
	return w.nodes[r].set.Facts(mrk.Hash{}).Certificates
}

func (w *world) facts(certificates ...mrk.Certificate) mrk.Facts {
	return mrk.Facts{Key: testKey, Certificates: certificates}
}

// withReplicas has the key active in A, B and C.
func withReplicas(t *testing.T) *world {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.must(w.replicate(regionA, regionC))
	w.heal()
	w.converged(regionA, regionB, regionC)
	return w
}

func TestCE1TwoSuccessorsOfOneEpochAreAFork(t *testing.T) {
	w := withReplicas(t)
	root := w.chain(regionA)[0]
	first, second := w.handOver(regionA, regionB, root), w.handOver(regionA, regionC, root)
	n := w.nodes[regionC]
	res, err := n.set.Merge(pins{}, w.facts(first))
	w.must(err)
	if len(res.Refused) != 0 || n.set.Primary() != regionB {
		t.Fatalf("hand-over refused: %v", res.Refused)
	}
	res, err = n.set.Merge(pins{}, w.facts(second))
	w.must(err)
	if len(res.Refused) != 1 || !errors.Is(res.Refused[0].Err, mrk.ErrEpochFork) || res.Refused[0].Cause != mrk.CauseEpochFork {
		t.Fatalf("second successor: %+v", res)
	}
	if n.set.Primary() != regionB || n.set.Frozen() == nil || n.set.Frozen().Cause != mrk.CauseEpochFork {
		t.Fatalf("primary %s, frozen %+v", n.set.Primary(), n.set.Frozen())
	}
	stored, err := mrk.Unmarshal(n.set.Marshal())
	w.must(err)
	if stored.Frozen() == nil || len(stored.Frozen().Evidence) == 0 {
		t.Fatal("the fork is forgotten after a restart")
	}
}

func TestCE3SelfPromotionIsRefused(t *testing.T) {
	w := withReplicas(t)
	root := w.chain(regionA)[0]
	forged := w.handOver(regionB, regionB, root) // signed by B alone
	uncounted := w.handOver(regionA, regionB, root)
	uncounted, err := mrk.SignCertificate(ctx(), testSigner(regionA), testSigner(regionA), uncounted)
	w.must(err)
	line := forged
	line.Epoch.Line = mrk.Line{Generation: 1, Region: regionB, Nonce: line.Epoch.Nonce}
	line.Epoch.Number = 0
	line, err = mrk.SignCertificate(ctx(), testSigner(regionB), testSigner(regionB), line)
	w.must(err)
	second := line
	second.Parent, second.Epoch.Line.Generation = mrk.Hash{}, 0
	second, err = mrk.SignCertificate(ctx(), testSigner(regionB), nil, second)
	w.must(err)
	for name, c := range map[string]mrk.Certificate{
		"a successor signed by itself": forged, "a hand-over that the new primary did not sign": uncounted,
		"a line without approvals": line, "a second creation": second,
	} {
		n := w.nodes[regionC].set.Clone()
		res, err := n.Merge(pins{}, w.facts(c))
		w.must(err)
		if len(res.Refused) != 1 || n.Primary() != regionA {
			t.Errorf("%s: primary %s, refused %v", name, n.Primary(), res.Refused)
		}
	}
}

func TestCE4ForgottenMemberIsAdopted(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	backup := w.nodes[regionA].set.Marshal()
	w.must(w.replicate(regionA, regionC))
	w.heal()
	w.restore(regionA, backup)
	w.must(w.rotate(regionA))
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
}

// The word of the forgotten member, and the request by which it was admitted, are enough
// without the state that lists it. Its word alone is not: any peer could say so.
func TestCE4AdoptionNeedsAnAdmission(t *testing.T) {
	w := newWorld(t)
	backup := w.nodes[regionA].set.Marshal()
	w.must(w.replicate(regionA, regionB))
	w.heal()
	word, admission := w.nodes[regionB].set.Own(), w.nodes[regionB].set.Admission()
	w.restore(regionA, backup)
	a := w.nodes[regionA].set
	if _, err := a.Merge(pins{}, mrk.Facts{Key: testKey, Members: []*mrk.Member{word}}); err != nil {
		t.Fatal(err)
	}
	if events := w.step(regionA); len(events) != 0 || w.nodes[regionA].set.Concerns(regionB) {
		t.Fatalf("a Region that only says that it is a member was taken for one: %v", events)
	}
	// Who wants it as a member all the same admits another incarnation than the one claimed.
	again := w.nodes[regionA].set.Clone()
	w.must(again.AddMember(ctx(), testSigner(regionA), regionB, testInstance(regionB), mrk.CreateRequest{Principal: admission.Principal, Policy: admission.Policy}))
	if e := again.Entry(regionB); e.Incarnation != word.Incarnation+1 || e.Status != mrk.Joining {
		t.Errorf("a Region that says it is incarnation %d was admitted as %+v", word.Incarnation, e)
	}
	forged, err := mrk.SignRequest(ctx(), testSigner(regionB), *admission)
	w.must(err)
	itself := *admission
	itself.Source, itself.Instance = regionB, testInstance(regionB)
	itself, err = mrk.SignRequest(ctx(), testSigner(regionB), itself)
	w.must(err)
	for name, req := range map[string]mrk.CreateRequest{"forged": forged, "from a Region that was never primary": itself} {
		res, err := w.nodes[regionA].set.Merge(pins{}, mrk.Facts{Key: testKey, Admission: &req})
		w.must(err)
		if len(res.Refused) != 1 || res.Changed {
			t.Fatalf("%s admission: %+v", name, res)
		}
	}
	_, err = w.nodes[regionA].set.Merge(pins{}, mrk.Facts{Key: testKey, Admission: admission})
	w.must(err)
	events := w.step(regionA)
	if len(events) == 0 || events[0].Kind != mrk.EventAdopted {
		t.Fatalf("got %v, want an adoption", events)
	}
	if e := w.nodes[regionA].set.Entry(regionB); e.Status != mrk.Joining && e.Status != mrk.Active || e.Incarnation != 1 {
		t.Errorf("adopted as %+v", e)
	}
}

func TestCE5RotationWhileReplicating(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.must(w.replicate(regionA, regionC))
	w.sync(regionA, regionC)
	w.sync(regionC, regionA)
	w.sync(regionA, regionC)
	done := w.message(regionC, regionA) // C holds M0
	w.must(w.rotate(regionA))
	for range 2 {
		w.sync(regionA, regionB)
		w.sync(regionB, regionA)
	}
	w.nodes[regionA].heard[regionC] = true
	w.step(regionA)
	w.encrypt(regionA)
	w.deliver(done)
	w.step(regionA)
	w.check()
	if got := w.nodes[regionA].set.Entry(regionC).Status; got == mrk.Active {
		t.Fatal("C is active without the new material")
	}
	w.heal()
	w.converged(regionA, regionB, regionC)
}

func TestCE6SuspendedMemberIsNotCountedWithoutProof(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.must(w.suspend(regionA, regionB))
	w.must(w.rotate(regionA))
	w.nodes[regionA].heard[regionC] = true
	w.step(regionA)
	w.encrypt(regionA)
	if got := w.nodes[regionA].current; got != testMaterial(1) {
		t.Fatal("the lone rotation did not end")
	}
	w.step(regionA)
	if got := w.nodes[regionA].set.Entry(regionB).Status; got != mrk.Suspended {
		t.Fatalf("B, which lacks the current material, is %s", got)
	}
	w.heal()
	w.check()
	w.converged(regionA, regionB)
}

func TestCE6dAcknowledgementOfAnEarlierEpochProvesNothing(t *testing.T) {
	w := withReplicas(t)
	w.nodes[regionA].set.DropPermit()
	w.settle(w.nodes[regionA])
	events := w.step(regionA)
	if len(events) == 0 || events[0].Kind != mrk.EventRenewed {
		t.Fatalf("got %v, want a renewal", events)
	}
	w.step(regionA)
	for _, r := range []regionName{regionB, regionC} {
		if got := w.nodes[regionA].set.Entry(r).Status; got != mrk.Rejoining {
			t.Fatalf("%s is %s on the word of an earlier epoch", r, got)
		}
	}
	w.heal()
	w.converged(regionA, regionB, regionC)
}

// A primary Region that lacks what a member has used does not call that member active
// before it has got it.
func TestCE6cPrimaryLacksWhatAMemberUsed(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	a := w.nodes[regionA]
	backup := a.set.Marshal()
	w.must(w.rotate(regionA))
	w.heal()
	w.encrypt(regionB)
	w.restore(regionA, backup)
	delete(a.token, testMaterial(1)) // the token was restored with the store
	a.used, a.current = map[material.ID]bool{testMaterial(0): true}, testMaterial(0)
	w.settle(a)
	for range 4 { // everything arrives but the material
		m := w.message(regionB, regionA)
		m.blobs = nil
		w.deliver(m)
		w.step(regionA)
		w.sync(regionA, regionB)
	}
	if !a.set.Acting() || a.current != testMaterial(0) {
		t.Fatalf("A acts %v and uses %.8s", a.set.Acting(), a.current)
	}
	if got := a.set.Entry(regionB).Status; got != mrk.Rejoining {
		t.Fatalf("B, which has used a material that A lacks, is %s", got)
	}
	w.heal()
	w.check()
	w.converged(regionA, regionB)
}

func TestCE7NoResurrectionAndNoGhostDeletion(t *testing.T) {
	w := withReplicas(t)
	late := w.message(regionA, regionB)
	w.must(w.rotate(regionA))
	newer := w.message(regionA, regionB)
	w.delete(regionB)
	late.late, newer.late = true, true
	w.deliver(late)
	w.deliver(newer)
	if got := w.nodes[regionB]; got.state != "Gone" || got.set.Incarnation() != 1 {
		t.Fatalf("a newer state that lists B brought it back as %s, incarnation %d", got.state, got.set.Incarnation())
	}
	gone := w.message(regionB, regionA)
	again := *w.nodes[regionA].set.State()
	again.Members = append([]mrk.Entry{}, again.Members...)
	again.Seq++
	again.Members[2].Incarnation++
	unasked, err := mrk.SignState(ctx(), testSigner(regionA), again)
	w.must(err)
	b := w.nodes[regionB].set.Clone()
	if _, err := b.Merge(pins{}, mrk.Facts{Key: testKey, State: unasked}); err != nil || b.Incarnation() != 1 {
		t.Fatalf("a tombstone began incarnation %d without a create request (%v)", b.Incarnation(), err)
	}
	w.heal()
	if got := w.nodes[regionA].set.Entry(regionB).Status; got != mrk.Removed {
		t.Fatalf("B is %s after its deletion", got)
	}
	w.converged(regionA, regionC)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.converged(regionA, regionB, regionC)
	if got := w.nodes[regionB].set.Incarnation(); got != 2 {
		t.Fatalf("incarnation %d, want 2", got)
	}
	gone.late = true
	w.deliver(gone) // the old "deleted" again
	w.step(regionA)
	w.deliver(late)
	w.heal()
	w.converged(regionA, regionB, regionC)
}

func (w *world) renewal(r regionName, parent mrk.Certificate) mrk.Certificate {
	w.t.Helper()
	nonce, _ := w.nonce()
	c := mrk.Certificate{Key: testKey, Epoch: parent.Epoch, Instance: testInstance(r), Parent: parent.Hash()}
	c.Epoch.Number++
	c.Epoch.Nonce = nonce
	c, err := mrk.SignCertificate(ctx(), testSigner(r), nil, c)
	w.must(err)
	return c
}
