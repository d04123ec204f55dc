package mrk_test

import (
	"errors"
	"testing"

	"github.com/keyferry/keyferry/keyops/mrk"
)

// The traces in which a store is older than what its Region has told others, or than its token.

// restore puts an older set into a Region's store; its token is as it was.
func (w *world) restore(r regionName, backup []byte) {
	w.t.Helper()
	n := w.nodes[r]
	set, err := mrk.Unmarshal(backup)
	w.must(err)
	n.set = set
	clear(n.heard)
	clear(n.rows)
	for _, m := range set.Listed() {
		n.rows[m.ID] = n.token[m.ID]
	}
}

// takeBack is the reconciliation at start: a labelled object without a row gets one.
func (w *world) takeBack(r regionName) {
	n := w.nodes[r]
	for id := range n.token {
		if !n.rows[id] {
			n.rows[id], n.used[id] = true, true
			n.set.DropPermit()
		}
	}
	w.settle(n)
}

func TestCE9SequenceNumbersAreNotUsedTwice(t *testing.T) {
	w := newWorld(t)
	w.must(w.rotate(regionA))
	backup := w.nodes[regionA].set.Marshal()
	w.must(w.replicate(regionA, regionB))
	w.sync(regionA, regionB)
	w.restore(regionA, backup)
	a := w.nodes[regionA]
	a.heard[regionB], a.heard[regionC] = true, true // what the rollback makes it believe
	w.step(regionA)                                 // a second state with B's number
	w.encrypt(regionA)
	back := w.message(regionB, regionA)
	w.deliver(back)
	if a.set.Acting() {
		t.Fatal("A acts although a state of its own came back that it does not remember")
	}
	w.heal()
	w.check()
	w.converged(regionA, regionB)
}

func TestCE9MemberFactsAreNotNumberedTwice(t *testing.T) {
	w := withReplicas(t)
	b := w.nodes[regionB]
	backup := b.set.Marshal()
	b.state = "Disabled"
	w.settle(b)
	w.sync(regionB, regionA)
	w.restore(regionB, backup)
	b.state = "PendingDeletion" // other words under the number that A knows
	w.settle(b)
	refused := w.sync(regionB, regionA)
	if len(refused) != 1 || refused[0].Cause != mrk.CauseEquivocation || w.nodes[regionA].set.Frozen() == nil {
		t.Fatalf("two facts of B with one number: %v", refused)
	}
	b.state = "Enabled"
	w.settle(b)
	w.heal()
	w.converged(regionA, regionB, regionC)
	if w.nodes[regionA].set.Frozen() != nil {
		t.Error("still frozen after B has numbered past both facts")
	}
}

// A Region restored to a fact that others know a newer one of counts above that one, even
// if it has nothing new to say: else they would believe the newer one for ever.
func TestCE9RestoredMemberCountsAboveWhatOthersKnow(t *testing.T) {
	w := withReplicas(t)
	b := w.nodes[regionB]
	backup := b.set.Marshal()
	b.state = "Disabled"
	w.settle(b)
	w.sync(regionB, regionA)
	w.restore(regionB, backup)
	b.state = "Enabled"
	w.settle(b)
	w.heal()
	for _, m := range w.nodes[regionA].set.Members() {
		if m.Fact.KeyState != "Enabled" {
			t.Errorf("A believes for ever that the key in %s is %s", m.Region, m.Fact.KeyState)
		}
	}
	w.converged(regionA, regionB, regionC)
}

// A has rotated, its store and token go back to before, and it numbers past the state that
// listed the material. B, which holds it, keeps that state and shows it, also to C, which shows
// it on when B has forgotten it. A lists the material again, in the same epoch, and everybody
// is done with that state.
func TestNumberedPastAForgottenState(t *testing.T) {
	w := withReplicas(t)
	a, b, c := w.nodes[regionA], w.nodes[regionB], w.nodes[regionC]
	before, beforeB := a.set.Marshal(), b.set.Marshal()
	epoch, lost := a.set.Epoch(), testMaterial(1)
	w.must(w.rotate(regionA))
	w.sync(regionA, regionB)
	forgotten := b.set.State().Seq
	w.restore(regionA, before)
	delete(a.token, lost)
	delete(a.rows, lost)
	for days := range uint64(3) {
		w.must(a.set.SetRotation(ctx(), testSigner(regionA), mrk.Rotation{Enabled: true, Days: 90 + days}))
		w.settle(a)
	}
	w.sync(regionA, regionB)
	shown := b.set.Facts(mrk.Hash{}).Earlier
	if len(shown) != 1 || shown[0].State.Seq != forgotten || b.set.Frozen() != nil {
		t.Fatalf("B shows %d earlier states, frozen %v", len(shown), b.set.Frozen())
	}
	if refused := w.sync(regionB, regionC); len(refused) > 0 || len(c.set.Facts(mrk.Hash{}).Earlier) != 1 {
		t.Fatalf("C does not show on what B shows: %v", refused)
	}
	delete(b.token, lost)
	w.restore(regionB, beforeB)
	b.token[lost] = true // and is found to hold what it knows nothing of
	w.takeBack(regionB)
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
	if l := a.set.Listed(); a.set.Epoch() != epoch || len(l) != 2 || l[1].ID != lost || !a.set.Pending().IsZero() {
		t.Errorf("in epoch %s A lists %v", a.set.Epoch(), l)
	}
	for _, n := range w.nodes {
		if kept := n.set.Facts(mrk.Hash{}).Earlier; len(kept) != 0 {
			t.Errorf("%s still shows %d earlier states", n.name, len(kept))
		}
	}
}

// A has asked B for a replica, evicted it before it spoke, and asked again. Then a backup of
// before the eviction is put back in A: of the two requests it keeps the one that is over, and
// knows from C that B is asked for as another incarnation. It is asked once more.
func TestRequestOfAnIncarnationThatIsOver(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionC))
	w.heal()
	a := w.nodes[regionA]
	w.must(w.replicate(regionA, regionB))
	backup := a.set.Marshal()
	w.must(w.evict(regionA, regionB))
	w.must(w.replicate(regionA, regionB))
	if _, kept := a.set.Request(regionB); !kept || a.set.Forgotten(regionB) {
		t.Fatal("the second request is not kept")
	}
	w.sync(regionA, regionC)
	w.restore(regionA, backup)
	a.set.DropPermit()
	w.sync(regionC, regionA)
	w.step(regionA)
	if req, kept := a.set.Request(regionB); kept || !a.set.Forgotten(regionB) {
		t.Errorf("A has the request for incarnation %d, and lists %+v", req.Incarnation, a.set.Entry(regionB))
	}
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
}

func TestCE10RestoredPrimaryDoesNotReleaseAlone(t *testing.T) {
	w := newWorld(t)
	backup := w.nodes[regionA].set.Marshal()
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.restore(regionA, backup)
	w.must(w.rotate(regionA))
	if events := w.step(regionA); len(events) != 0 {
		t.Fatalf("A, which has heard nobody, did %v", events)
	}
	w.encrypt(regionA)
	w.check()
	w.heal()
	w.check()
	w.converged(regionA, regionB)
}

func TestCE10RestoredPrimaryDoesNotRenewAlone(t *testing.T) {
	w := withReplicas(t)
	a := w.nodes[regionA]
	a.set.DropPermit()
	clear(a.heard)
	a.heard[regionB] = true
	if events := w.step(regionA); len(events) != 0 || a.set.Acting() {
		t.Fatalf("A, which has not heard C, did %v", events)
	}
	if err := w.rotate(regionA); !errors.Is(err, mrk.ErrNotPrimary) {
		t.Fatalf("rotating without a permit: %v", err)
	}
	a.heard[regionC] = true
	if events := w.step(regionA); len(events) != 1 || events[0].Kind != mrk.EventRenewed {
		t.Fatalf("A, which has heard all, did %v", events)
	}
}

func TestCE12RestoredReplicaThatWasDeletedIsUnusable(t *testing.T) {
	w := withReplicas(t)
	backup := w.nodes[regionC].set.Marshal()
	w.delete(regionC)
	w.sync(regionC, regionA)
	w.step(regionA)
	w.restore(regionC, backup)
	c := w.nodes[regionC]
	c.state = "Enabled"
	w.settle(c)
	w.sync(regionA, regionC)
	if !c.set.Told() || c.state != "PendingDeletion" {
		t.Fatalf("C is %s although it told others that it is deleted", c.state)
	}
	if owed := w.nodes[regionA].set.Owes(regionC); len(owed) != 0 {
		t.Errorf("A owes %d materials to a deleted key", len(owed))
	}
	w.heal()
	w.converged(regionA, regionB)
}

// A restored Region that has counted past its own deletion before it hears of it is deleted
// all the same.
func TestCE12DeletionIsTheLastWord(t *testing.T) {
	w := withReplicas(t)
	c := w.nodes[regionC]
	backup := c.set.Marshal()
	w.delete(regionC)
	w.sync(regionC, regionA)
	w.step(regionA)
	w.restore(regionC, backup)
	for _, state := range []string{"Enabled", "Disabled", "Enabled", "Disabled", "Enabled"} {
		c.state = state
		w.settle(c)
	}
	w.sync(regionC, regionA)
	w.step(regionA)
	if got := w.nodes[regionA].set.Entry(regionC).Status; got != mrk.Removed {
		t.Fatalf("C came back as %s", got)
	}
	w.sync(regionA, regionC)
	if !c.set.Told() {
		t.Fatal("C does not know that it is deleted")
	}
	w.heal()
	w.converged(regionA, regionB)
}

func TestCE13LabelledObjectsAreTakenBack(t *testing.T) {
	w := newWorld(t)
	backup := w.nodes[regionA].set.Marshal()
	w.must(w.rotate(regionA))
	w.heal()
	w.encrypt(regionA)
	w.restore(regionA, backup)
	w.takeBack(regionA)
	w.heal()
	w.converged(regionA)
	if got := len(w.nodes[regionA].set.Listed()); got != 2 {
		t.Fatalf("%d materials listed, want the one of the backup and the one of the token", got)
	}
}

// What the acting primary Region holds is listed, also if it never lost its permit.
func TestCE13HeldButUnlistedIsListed(t *testing.T) {
	w := newWorld(t)
	a := w.nodes[regionA]
	id := w.material()
	a.token[id], a.rows[id] = true, true
	w.settle(a)
	events := w.step(regionA)
	if len(events) != 1 || events[0].Kind != mrk.EventTakenBack || events[0].Material != id {
		t.Fatalf("got %v", events)
	}
	if got := a.set.Listed()[1]; got.ID != id || got.Reason != mrk.ReasonTakenBack {
		t.Errorf("listed as %+v", got)
	}
}
