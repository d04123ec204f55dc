package mrk_test

import (
	"errors"
	"testing"

	"github.com/keyferry/keyferry/keyops/mrk"
)

// A Region that loses its permit while the key is on offer does not take the offered number
// for itself: B may have accepted it.
func TestSealOutlivesThePermit(t *testing.T) {
	w := offered(t)
	a := w.nodes[regionA]
	a.set.DropPermit()
	w.settle(a)
	if events := w.step(regionA); len(events) != 0 {
		t.Fatalf("A did %v while its offer is open", events)
	}
	w.must(w.accept(regionB))
	w.heal()
	w.converged(regionA, regionB, regionC)
	if a.set.Primary() != regionB || a.set.Frozen() != nil {
		t.Errorf("primary %s, frozen %v", a.set.Primary(), a.set.Frozen())
	}
}

// CE11: a Region that refused, and was restored to before it did, does not accept the old
// offer: it hears A first, which has burnt the number.
func TestCE11RestoredTargetDoesNotAcceptWhatItRefused(t *testing.T) {
	w := offered(t)
	b := w.nodes[regionB]
	backup := b.set.Marshal()
	old := w.message(regionA, regionB)
	w.must(w.refuse(regionB))
	w.sync(regionB, regionA)
	w.step(regionA)
	w.restore(regionB, backup)
	w.settle(b)
	old.late = true
	w.deliver(old)
	if err := w.accept(regionB); !errors.Is(err, mrk.ErrNotHeard) {
		t.Fatalf("accepting after a restore: %v", err)
	}
	w.sync(regionA, regionB)
	w.deliver(old)
	if _, ok := b.set.Considering(); ok {
		t.Error("B considers an offer that it had refused")
	}
	w.heal()
	w.converged(regionA, regionB, regionC)
	if w.nodes[regionA].set.Primary() != regionA {
		t.Error("who refused is primary")
	}
}

// The other half of CE11: B accepts, releases, is restored to before accepting, and cannot
// accept again, since C shows it the epoch that it had begun.
func TestCE11RestoredAcceptorBeginsAnotherEpoch(t *testing.T) {
	w := offered(t)
	b := w.nodes[regionB]
	backup := b.set.Marshal()
	w.must(w.accept(regionB))
	w.heal()
	w.must(w.rotate(regionB))
	w.heal()
	w.encrypt(regionA)
	before := b.set.Epoch()
	w.restore(regionB, backup)
	w.takeBack(regionB)
	w.sync(regionC, regionB)
	w.sync(regionA, regionB)
	if b.set.Acting() {
		t.Fatal("B acts in an epoch that it has forgotten")
	}
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
	if got := b.set.Epoch(); got.Compare(before) <= 0 || b.current != testMaterial(1) {
		t.Errorf("B acts in %s after %s, and encrypts with %.8s", got, before, b.current)
	}
}

// The same, and nobody has heard that B accepted: it accepts the same offer once more, in the
// same epoch, and what it has found in its token is listed.
func TestAcceptedOnceMore(t *testing.T) {
	w := offered(t)
	b := w.nodes[regionB]
	backup := b.set.Marshal()
	w.must(w.accept(regionB))
	w.must(w.rotate(regionB))
	first := b.set.Epoch()
	w.restore(regionB, backup)
	w.takeBack(regionB)
	if err := w.accept(regionB); !errors.Is(err, mrk.ErrNotHeard) {
		t.Fatalf("accepting before A was heard: %v", err)
	}
	w.sync(regionA, regionB)
	w.must(w.accept(regionB))
	if b.set.Epoch() != first {
		t.Errorf("B acts in %s after %s", b.set.Epoch(), first)
	}
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
	if got := len(w.nodes[regionA].held()); got != 2 {
		t.Errorf("A holds %d materials", got)
	}
}

// A pending material that the token lost which had made it, before anybody else held it, ends the
// hand-over: nobody could accept, and the key would be Updating for ever.
func TestOfferOfWhatIsLost(t *testing.T) {
	w := withReplicas(t)
	w.must(w.rotate(regionA))
	w.must(w.offer(regionA, regionB))
	a := w.nodes[regionA]
	offer := w.message(regionA, regionB)
	delete(a.token, testMaterial(1))
	delete(a.rows, testMaterial(1))
	a.set.DropPermit()
	w.settle(a)
	offer.blobs = nil // the material is still on its way when the Region is told
	w.deliver(offer)
	if err := w.accept(regionB); !errors.Is(err, mrk.ErrLacking) {
		t.Fatalf("accepting while the material may still come: %v", err)
	}
	w.sync(regionA, regionB)
	if err := w.accept(regionB); !errors.Is(err, mrk.ErrLost) {
		t.Fatalf("accepting what nobody holds: %v", err)
	}
	w.must(w.refuse(regionB))
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
	if !a.set.Acting() || !a.set.Pending().IsZero() {
		t.Errorf("A acts: %v, pending %.8s", a.set.Acting(), a.set.Pending())
	}
}
