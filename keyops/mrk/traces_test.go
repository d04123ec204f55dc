package mrk_test

import (
	"context"
	"errors"
	"testing"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement"
)

// The traces of the protocol's design that an earlier draft permitted, as far as they need
// no hand-over, forced promotion or import.

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

func TestCE15FormerPrimaryCannotRetake(t *testing.T) {
	w := withReplicas(t)
	root := w.chain(regionA)[0]
	proper := w.handOver(regionA, regionB, root)
	n := w.nodes[regionC]
	if _, err := n.set.Merge(pins{}, w.facts(proper)); err != nil {
		t.Fatal(err)
	}
	next := root
	var retaken []mrk.Certificate
	for range 3 {
		next = w.renewal(regionA, next)
		retaken = append(retaken, next)
	}
	res, err := n.set.Merge(pins{}, w.facts(retaken...))
	w.must(err)
	if n.set.Primary() != regionB || len(res.Refused) == 0 || !errors.Is(res.Refused[0].Err, mrk.ErrEpochFork) {
		t.Fatalf("primary %s after A signed itself three epochs: %v", n.set.Primary(), res.Refused)
	}
	state := *w.nodes[regionA].set.State()
	state.Seq += 100
	forged, err := mrk.SignState(ctx(), testSigner(regionA), state)
	w.must(err)
	forged.Epoch = proper.Epoch
	again, err := mrk.SignState(ctx(), testSigner(regionA), *forged)
	w.must(err)
	res, err = n.set.Merge(pins{}, mrk.Facts{Key: testKey, State: again})
	w.must(err)
	if len(res.Refused) != 1 || !errors.Is(res.Refused[0].Err, statement.ErrSignature) {
		t.Fatalf("a state of B's epoch signed by A: %v", res.Refused)
	}
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

func TestCE16MaterialThatNoStateListsIsRefused(t *testing.T) {
	w := withReplicas(t)
	c := w.nodes[regionC]
	good := mrk.Blob{
		Key: testKey, Material: testMaterial(0), Source: regionB, Instance: testInstance(regionB),
		Destination: regionC, ToInstance: testInstance(regionC), Incarnation: 1, Class: "aes", Epoch: 1, Wrapped: []byte{1},
	}
	if _, err := c.set.Accepts(good); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		edit func(*mrk.Blob)
		want error
	}{
		"unlisted material":    {func(b *mrk.Blob) { b.Material = material.ID{9} }, mrk.ErrUnlisted},
		"another Region":       {func(b *mrk.Blob) { b.Destination = regionA }, mrk.ErrForeign},
		"another instance":     {func(b *mrk.Blob) { b.ToInstance = testInstance(regionA) }, mrk.ErrForeign},
		"an older incarnation": {func(b *mrk.Blob) { b.Incarnation = 0 }, mrk.ErrForeign},
		"a later incarnation":  {func(b *mrk.Blob) { b.Incarnation = 2 }, mrk.ErrForeign},
		"another key":          {func(b *mrk.Blob) { b.Key = "mrk-ff112233445566778899aabbccddeeff" }, mrk.ErrForeign},
	}
	for name, tt := range tests {
		b := good
		tt.edit(&b)
		if _, err := c.set.Accepts(b); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

func TestEquivocationFreezesUntilNumberedPast(t *testing.T) {
	w := withReplicas(t)
	a := w.nodes[regionA]
	own := *a.set.State()
	own.Rotation.Enabled = true
	two, err := mrk.SignState(ctx(), testSigner(regionA), own)
	w.must(err)
	b := w.nodes[regionB]
	res, err := b.set.Merge(pins{}, mrk.Facts{Key: testKey, State: two})
	w.must(err)
	if len(res.Refused) != 1 || res.Refused[0].Cause != mrk.CauseEquivocation || b.set.Frozen() == nil {
		t.Fatalf("two states with one number: %+v", res)
	}
	w.must(w.rotate(regionA))
	w.sync(regionA, regionB)
	if b.set.Frozen() != nil {
		t.Fatal("still frozen by a state that is two numbers old")
	}

	fact := *b.set.Own()
	fact.KeyState = "Disabled"
	other, err := mrk.SignMember(ctx(), testSigner(regionB), fact)
	w.must(err)
	w.sync(regionB, regionA)
	res, err = a.set.Merge(pins{}, mrk.Facts{Key: testKey, Members: []*mrk.Member{other}})
	w.must(err)
	if len(res.Refused) != 1 || res.Refused[0].Cause != mrk.CauseEquivocation {
		t.Fatalf("two member facts with one number: %+v", res)
	}
	if err := a.set.AddMember(ctx(), testSigner(regionA), regionC, testInstance(regionC), mrk.CreateRequest{}); !errors.Is(err, mrk.ErrFrozen) {
		t.Errorf("managing a frozen key: %v", err)
	}
	if events := w.step(regionA); len(events) != 0 {
		t.Errorf("the frozen primary did %v", events)
	}
	if _, err := a.set.Merge(pins{}, mrk.Facts{Key: testKey, Members: []*mrk.Member{a.set.Members()[2].Fact}}); err != nil {
		t.Fatal(err)
	}
	w.heal()
	fact.Counter += 2
	past, err := mrk.SignMember(ctx(), testSigner(regionB), fact)
	w.must(err)
	if _, err := a.set.Merge(pins{}, mrk.Facts{Key: testKey, Members: []*mrk.Member{past}}); err != nil {
		t.Fatal(err)
	}
	if a.set.Frozen() != nil {
		t.Error("still frozen after the writer has numbered past both facts")
	}
}

// A Region that has no part in a key cannot freeze it by contradicting itself, and all
// others keep the same one of its facts.
func TestStrangersDoNotFreeze(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	a, b := w.nodes[regionA].set, w.nodes[regionB].set
	word := *b.Own()
	word.Region, word.Instance = regionC, testInstance(regionC)
	var words []*mrk.Member
	for _, state := range []string{"Enabled", "Disabled"} {
		word.KeyState = state
		m, err := mrk.SignMember(ctx(), testSigner(regionC), word)
		w.must(err)
		words = append(words, m)
	}
	for set, order := range map[*mrk.Set][]int{a: {0, 1}, b: {1, 0}} {
		for _, i := range order {
			res, err := set.Merge(pins{}, mrk.Facts{Key: testKey, Members: []*mrk.Member{words[i]}})
			w.must(err)
			if len(res.Refused) != 0 || set.Frozen() != nil {
				t.Fatalf("a stranger's word: %+v, frozen %v", res, set.Frozen())
			}
		}
	}
	if a.Fact(regionC).Hash() != b.Fact(regionC).Hash() {
		t.Error("two Regions keep different words of a stranger")
	}
	w.must(w.rotate(regionA))
	w.heal()
	w.check()
}

// A former primary Region that was evicted cannot write itself the request by which it
// would be a member again.
func TestFormerPrimaryCannotAdmitItself(t *testing.T) {
	w := withReplicas(t)
	set := w.nodes[regionC].set
	proper := w.handOver(regionA, regionB, w.chain(regionA)[0])
	if _, err := set.Merge(pins{}, w.facts(proper)); err != nil {
		t.Fatal(err)
	}
	req := *w.nodes[regionB].set.Admission()
	req.Destination, req.ToInstance, req.Incarnation = regionA, testInstance(regionA), 7
	req, err := mrk.SignRequest(ctx(), testSigner(regionA), req)
	w.must(err)
	res, err := set.Merge(pins{}, mrk.Facts{Key: testKey, Admission: &req})
	w.must(err)
	if len(res.Refused) != 1 || !errors.Is(res.Refused[0].Err, mrk.ErrRequest) || res.Changed {
		t.Errorf("an admission of its own making: %+v", res)
	}
}
