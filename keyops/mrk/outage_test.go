package mrk_test

import (
	"errors"
	"testing"

	"github.com/keyferry/keyferry/keyops/mrk"
)

// The traces of the protocol's design that need a forced promotion.

// CE1: a hand-over and a forced promotion at once, and two forced promotions at once, never
// make two primary Regions of one epoch, and the order of lines decides.
func TestCE1HandOverRacesForcedPromotion(t *testing.T) {
	w := offered(t)
	w.must(w.force(regionC, regionA))
	w.must(w.accept(regionB))
	w.check()
	if !w.nodes[regionB].set.Acting() || !w.nodes[regionC].set.Acting() {
		t.Fatal("one of the two does not act yet")
	}
	w.encrypt(regionB)
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
	if got := w.nodes[regionB].set.Primary(); got != regionC {
		t.Errorf("%s is primary, want the Region that operators have chosen", got)
	}
}

func TestCE1TwoForcedPromotions(t *testing.T) {
	w := withReplicas(t)
	w.must(w.force(regionB, regionA, regionC))
	w.must(w.force(regionC, regionA, regionB))
	for _, r := range []regionName{regionB, regionC} { // both go on, each with a material of its own
		w.must(w.rotate(r))
		w.nodes[r].heard = map[regionName]bool{regionA: true, regionB: true, regionC: true}
		w.step(r)
		if !w.encrypt(r) || w.nodes[r].current == testMaterial(0) {
			t.Fatalf("%s encrypts with %.8s", r, w.nodes[r].current)
		}
	}
	w.check()
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
	a := w.nodes[regionA]
	if a.set.Primary() != regionB { // of equal generation: us-east-1 after ap-tokyo-1
		t.Errorf("%s is primary", a.set.Primary())
	}
	if got := len(a.held()); got != 3 {
		t.Errorf("A holds %d materials: what one side encrypted with is lost", got)
	}
}

// CE2: the Region that operators promoted outranks every number that the dark one has reached.
func TestCE2DarkPrimaryDoesNotOutrankTheQuorum(t *testing.T) {
	w := withReplicas(t)
	for _, hop := range [][2]regionName{{regionA, regionB}, {regionB, regionA}} { // C is cut off
		w.nodes[hop[0]].heard = map[regionName]bool{regionA: true, regionB: true, regionC: true}
		w.must(w.offer(hop[0], hop[1]))
		w.sync(hop[0], hop[1])
		w.must(w.accept(hop[1]))
		for range 3 {
			w.sync(regionA, regionB)
			w.sync(regionB, regionA)
			w.step(hop[1])
		}
	}
	if got := w.nodes[regionA].set.Epoch().Number; got != 2 {
		t.Fatalf("A is in number %d", got)
	}
	w.must(w.force(regionC, regionA))
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
	if got := w.nodes[regionA].set.Primary(); got != regionC {
		t.Errorf("after its return %s is primary", got)
	}
}

// CE4: B is promoted before it has heard of C, and adopts it.
func TestCE4GhostReplicaIsAdopted(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.must(w.replicate(regionA, regionC))
	for range 2 {
		w.sync(regionA, regionC)
		w.sync(regionC, regionA)
		w.step(regionA)
	}
	w.must(w.force(regionB, regionA))
	w.must(w.rotate(regionB))
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
}

// CE4 once more: the forgotten member was evicted and admitted again by a Region that had been
// fenced without knowing it. It shows the request, since nobody believes its word.
func TestCE4MemberThatAFencedPrimaryAdmittedAgain(t *testing.T) {
	w := withReplicas(t)
	w.must(w.force(regionC))
	w.must(w.evict(regionA, regionB))
	w.sync(regionA, regionB)
	w.sync(regionB, regionA)
	w.must(w.replicate(regionA, regionB))
	w.sync(regionA, regionB)
	if b := w.nodes[regionB]; b.state != "Creating" || b.set.Incarnation() != 2 {
		t.Fatalf("B is %s in incarnation %d", b.state, b.set.Incarnation())
	}
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
	if e := w.nodes[regionC].set.Entry(regionB); e.Incarnation != 2 {
		t.Errorf("C lists B as %+v", e)
	}
}

// CE6b: A, alone with B, released what C does not know, and B is promoted on a roster in
// which C is sound.
func TestCE6bPromotionOnAnOlderRoster(t *testing.T) {
	w := withReplicas(t)
	w.must(w.rotate(regionA))
	w.sync(regionA, regionB)
	w.sync(regionA, regionB)
	w.sync(regionB, regionA)
	w.must(w.suspend(regionA, regionC))
	w.step(regionA)
	w.encrypt(regionA)
	if w.nodes[regionA].current != testMaterial(1) {
		t.Fatal("A did not release")
	}
	w.must(w.force(regionB))
	if got := w.nodes[regionB].set.Entry(regionC).Status; got != mrk.Rejoining {
		t.Fatalf("C is %s in B's roster", got)
	}
	w.check()
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
}

// CE6c: A, fenced and unaware, evicts B, rotates and encrypts. When A has joined B's epoch,
// B has what A encrypted with before it calls anybody active.
func TestCE6cFencedPrimaryGoesOn(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.must(w.force(regionB))
	w.must(w.evict(regionA, regionB))
	w.must(w.rotate(regionA))
	w.nodes[regionA].heard = map[regionName]bool{regionB: true, regionC: true}
	w.step(regionA)
	w.encrypt(regionA)
	if w.nodes[regionA].current != testMaterial(1) {
		t.Fatal("A did not release")
	}
	w.check()
	w.heal()
	w.check()
	w.converged(regionA, regionB)
	if got := len(w.nodes[regionB].held()); got != 2 {
		t.Errorf("B holds %d materials", got)
	}
}

// The same, and what A listed last has reached nobody: A shows its state, or B would not
// take the material in.
func TestEarlierStateIsShown(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.must(w.rotate(regionA))
	w.must(w.force(regionB))
	w.must(w.rotate(regionB))
	a, b := w.nodes[regionA], w.nodes[regionB]
	_, err := a.set.Merge(pins{}, b.set.Facts(mrk.Hash{}))
	w.must(err)
	facts := a.set.Facts(mrk.Hash{})
	if len(facts.Earlier) != 1 {
		t.Fatalf("A shows %d earlier states", len(facts.Earlier))
	}
	forged := facts.Earlier[0]
	s := *forged.State
	s.Materials = append([]mrk.Listed{{ID: testMaterial(9)}}, s.Materials...)
	forged.State, err = mrk.SignState(ctx(), testSigner(regionC), s)
	w.must(err)
	for name, earlier := range map[string]mrk.Earlier{
		"signed by another Region": forged,
		"of an epoch without certificate": {State: func() *mrk.State {
			s := s
			s.Epoch.Nonce[0]++
			out, err := mrk.SignState(ctx(), testSigner(regionA), s)
			w.must(err)
			return out
		}()},
	} {
		set := b.set.Clone()
		res, err := set.Merge(pins{}, mrk.Facts{Key: testKey, Earlier: []mrk.Earlier{earlier}})
		w.must(err)
		if len(res.Refused) != 1 || res.Changed {
			t.Errorf("%s: %+v", name, res)
		}
		if _, known := set.Known(testMaterial(9)); known {
			t.Errorf("%s: its material is known", name)
		}
	}
	w.heal()
	w.converged(regionA, regionB)
	if got := len(b.held()); got != 3 {
		t.Errorf("B holds %d materials, want all three", got)
	}
	if got := len(a.set.Facts(mrk.Hash{}).Earlier); got != 0 {
		t.Errorf("A still shows %d earlier states", got)
	}
}

// CE8b: A, unaware of B's promotion, suspends B and encrypts with a material of its own. As
// a replica it is not destroyed before B holds that material.
func TestCE8bLastCopyIsNotDestroyed(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.must(w.force(regionB))
	w.must(w.suspend(regionA, regionB))
	w.must(w.rotate(regionA))
	w.nodes[regionA].heard = map[regionName]bool{regionB: true, regionC: true}
	w.step(regionA)
	w.encrypt(regionA)
	_, err := w.nodes[regionA].set.Merge(pins{}, w.nodes[regionB].set.Facts(mrk.Hash{}))
	w.must(err)
	w.settle(w.nodes[regionA])
	if err := w.destroy(regionA); !errors.Is(err, mrk.ErrUnconfirmed) {
		t.Fatalf("destroying the last copy: %v", err)
	}
	w.heal()
	w.must(w.destroy(regionA))
	w.heal()
	w.converged(regionB)
}

// CE12, second half: hearsay does not destroy the last copy. A, deleted and replicated to
// again, is restored to its first incarnation after C has lost its token.
func TestCE12HearsayDoesNotDestroy(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionC))
	w.heal()
	backup := w.nodes[regionA].set.Marshal()
	w.must(w.force(regionC))
	w.heal()
	w.must(w.destroy(regionA))
	w.heal()
	w.must(w.replicate(regionC, regionA))
	w.heal()
	w.restore(regionA, backup)
	w.nodes[regionA].state = "Enabled"
	c := w.nodes[regionC]
	clear(c.token)
	clear(c.rows)
	c.set.DropPermit()
	w.settle(c)
	w.sync(regionC, regionA)
	if err := w.destroy(regionA); err == nil {
		t.Fatal("the last copy was destroyed by hearsay")
	}
	if n := len(w.nodes[regionA].held()); n != 1 {
		t.Fatalf("A holds %d materials", n)
	}
}

// CE14: what was stored is no news. A restored primary Region that has only an old message
// of B has not heard B.
func TestCE14OldMessagesAreNoNews(t *testing.T) {
	w := newWorld(t)
	backup := w.nodes[regionA].set.Marshal()
	w.must(w.replicate(regionA, regionB))
	w.heal()
	old := w.message(regionB, regionA)
	old.late = true
	w.restore(regionA, backup)
	w.must(w.rotate(regionA))
	w.deliver(old)
	w.step(regionA)
	if w.nodes[regionA].current != testMaterial(0) {
		t.Fatal("A released on an old message")
	}
	w.heal()
	w.check()
	w.converged(regionA, regionB)
}

// A hand-over whose target is lost after the offer is ended by promoting any member: here
// the Region that made the offer.
func TestLostTargetIsEndedByPromotion(t *testing.T) {
	w := offered(t)
	for range 3 {
		w.step(regionA)
	}
	if w.nodes[regionA].set.Acting() {
		t.Fatal("A acts without an answer")
	}
	w.must(w.force(regionA, regionB))
	if a := w.nodes[regionA]; !a.set.Acting() || a.state != "Enabled" {
		t.Fatalf("A acts %v and is %s", a.set.Acting(), a.state)
	}
	if err := w.accept(regionB); err != nil { // it was not lost, and knows nothing
		t.Fatal(err)
	}
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
	if got := w.nodes[regionB].set.Primary(); got != regionA {
		t.Errorf("%s is primary", got)
	}
}

// A Region was restored and found a material in its token that it may have encrypted with, and
// another Region was promoted before it could list it. Nobody takes in what no state lists, so
// the Region is not counted, and says what it lacks, until operators promote it.
func TestUnlistedMaterialWaitsForAPromotion(t *testing.T) {
	w := withReplicas(t)
	a := w.nodes[regionA]
	backup := a.set.Marshal()
	w.must(w.rotate(regionA))
	w.restore(regionA, backup)
	w.takeBack(regionA)
	w.must(w.force(regionC, regionA))
	w.heal()
	w.check()
	if e := w.nodes[regionC].set.Entry(regionA); e.Status != mrk.Suspended {
		t.Errorf("A, which may have used a material that C lacks, is %s", e.Status)
	}
	if err := w.nodes[regionC].set.WriteOff(ctx(), testSigner(regionC), testMaterial(1), w.contact(w.nodes[regionC])); err == nil {
		t.Error("what is in a token is written off")
	}
	w.must(w.force(regionA))
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
	if got := len(w.nodes[regionC].held()); got != 2 {
		t.Errorf("C holds %d materials", got)
	}
}

// A fork, which needs a restore, stops both sides until operators promote somebody.
func TestForkEndsWithAPromotion(t *testing.T) {
	w := withReplicas(t)
	root := w.chain(regionA)[0]
	first, second := w.handOver(regionA, regionB, root), w.handOver(regionA, regionC, root)
	for r, certs := range map[regionName][]mrk.Certificate{regionB: {first, second}, regionC: {second, first}, regionA: {first, second}} {
		_, err := w.nodes[r].set.Merge(pins{}, w.facts(certs...))
		w.must(err)
		w.settle(w.nodes[r])
		if w.nodes[r].set.Frozen() == nil {
			t.Fatalf("%s has not noticed the fork", r)
		}
	}
	w.heal()
	if w.nodes[regionB].set.Epoch() == w.nodes[regionC].set.Epoch() {
		t.Fatal("a fork ended by itself")
	}
	w.must(w.force(regionC))
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
	for _, r := range allRegions {
		if w.nodes[r].set.Frozen() != nil {
			t.Errorf("%s is still frozen", r)
		}
	}
}

// A Region that was cut off before the history that others have forgotten takes the new
// line by its approvals.
func TestPromotionIsBelievedWithoutItsHistory(t *testing.T) {
	w := withReplicas(t)
	chain := w.chain(regionA)
	for len(chain) < 300 {
		chain = append(chain, w.renewal(regionA, chain[len(chain)-1]))
	}
	for len(chain) < 390 {
		chain = append(chain, w.renewal(regionA, chain[len(chain)-1]))
	}
	_, err := w.nodes[regionB].set.Merge(pins{}, w.facts(chain...))
	w.must(err)
	w.settle(w.nodes[regionB])
	w.must(w.force(regionB))
	if got := len(w.chain(regionB)); got != 1 {
		t.Fatalf("B keeps %d certificates", got)
	}
	w.heal() // A and C have seen none of it
	w.check()
	w.converged(regionA, regionB, regionC)
}

// The old primary Region returns while its replica key is pending deletion, evicted, or has
// just been promoted elsewhere: it is fenced at first contact, and what it encrypted opens.
func TestDisaster(t *testing.T) {
	w := withReplicas(t)
	w.must(w.force(regionB, regionA))
	w.must(w.rotate(regionB))
	for range 3 {
		w.sync(regionB, regionC)
		w.sync(regionC, regionB)
		w.step(regionB)
	}
	w.encrypt(regionB)
	w.encrypt(regionC)
	w.encrypt(regionA) // dark, and still serving its own clients
	if err := w.rotate(regionA); err != nil {
		t.Fatal(err)
	}
	if events := w.step(regionA); len(events) != 0 {
		t.Fatalf("the dark Region, which hears nobody, did %v", events)
	}
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
	w.must(w.offer(regionB, regionA))
	w.sync(regionB, regionA)
	w.must(w.accept(regionA))
	w.heal()
	w.converged(regionA, regionB, regionC)
}

// A primary Region that lost a material which an active member has used does not go on
// calling that member active (rule 11): what it encrypted there cannot be read everywhere.
func TestPrimaryThatLostWhatMembersUsedDemotes(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.must(w.rotate(regionA))
	w.heal()
	a := w.nodes[regionA]
	delete(a.token, testMaterial(0)) // not the current one, so the permit stays
	delete(a.rows, testMaterial(0))
	w.settle(a)
	events := w.step(regionA)
	if len(events) != 1 || events[0].Kind != mrk.EventDemoted || a.set.Entry(regionB).Status != mrk.Rejoining {
		t.Fatalf("A did %v, B is %s", events, a.set.Entry(regionB).Status)
	}
	w.heal()
	w.check()
	w.converged(regionA, regionB)
}
