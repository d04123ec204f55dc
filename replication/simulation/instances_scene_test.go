package simulation

import (
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/replication"
)

// The Region that made a key hands it over, and begins again as another instance while a third
// one is dark. Everybody learns the key's history, and the new instance gets the key back.
func TestBeganAgain(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	w.encryptAt(a, a.run, id)
	c.stop()
	_, err := a.run.svc.UpdatePrimaryRegion(t.Context(), caller(), keyops.UpdatePrimaryRegionInput{KeyID: string(id), PrimaryRegion: string(b.name)})
	w.must(err)
	for range 3 {
		w.everybody()
	}
	if p, _ := w.acting(id); p != b {
		t.Fatal("the key was not handed over")
	}
	w.must(w.beginAgainAt(a))
	w.heal()
	k := a.key(id)
	if k == nil || k.Set.Primary() != b.name || k.Set.Entry(a.name).Incarnation != 2 {
		t.Fatal("the new instance does not have the key")
	}
}

// The primary Region begins again: operators promote another one, and nobody needs the word of
// the instance that is no more.
func TestPrimaryBeganAgain(t *testing.T) {
	w := scene(t)
	a := w.nodes[0]
	id := w.withReplicas()
	w.encryptAt(a, a.run, id)
	w.must(w.beginAgainAt(a))
	w.heal()
	if p, _ := w.acting(id); p == nil || p == a || a.key(id) == nil {
		t.Fatal("nobody else was promoted, or the new instance does not have the key")
	}
}

// A create request for an instance that is no more is not sent to the one that is there. It
// would be refused, and a restored primary Region would wait for ever to hear that Region.
func TestRequestForAnInstanceThatIsNoMore(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.key(a)
	w.must(a.replicateTo(id, b))
	w.settle()
	w.isolate(c)
	w.must(a.replicateTo(id, c))
	old := w.save(a)
	w.must(w.beginAgainAt(c))
	a.pinAnew()
	b.pinAnew()
	w.restoreTo(old)
	w.net.heal()
	for range 4 {
		w.everybody()
		w.now = w.now.Add(time.Minute)
	}
	a.run.repl.Step(t.Context())
	if !a.key(id).Set.Acting() {
		t.Error("the primary Region waits for an instance that is no more")
	}
	w.heal()
	if c.key(id) == nil {
		t.Error("the new instance does not have the key")
	}
}

// Of two Regions that act each asks for a first replica in a third one: the outranked one in an
// instance that is no more, which has made it, and the other one in the new instance. What the old
// instance has said does not stand for the new one, which is still sent its request.
func TestAskedForTheSameIncarnation(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.key(a)
	w.must(a.replicateTo(id, b))
	w.settle()
	w.isolate(b)
	w.must(a.replicateTo(id, c))
	w.settle()
	w.must(w.beginAgainAt(c))
	b.pinAnew()
	w.isolate(a)
	w.isolate(c)
	if !w.promoteOne(b, id) {
		t.Fatal("not promoted")
	}
	w.must(b.replicateTo(id, c))
	w.net.join(a, b)
	w.settle()
	if f := b.key(id).Set.Fact(c.name); f == nil || f.Instance == c.plant.descriptor.Instance || f.Incarnation != b.key(id).Set.Entry(c.name).Incarnation {
		t.Fatalf("the fact of the old instance is %+v", f)
	}
	w.net.heal()
	a.pinAnew()
	for range 4 {
		w.everybody()
		w.now = w.now.Add(10 * time.Minute)
	}
	if k := c.key(id); k == nil || k.State != keystate.Enabled {
		t.Error("the new instance does not have the key")
	}
	w.heal()
}

// A Region has a replica that only an instance has admitted which is no more. It has told all that
// it knows: the primary Region, which has lost its permit, does not wait for it.
func TestRenewsBesideWhomAFormerInstanceAdmitted(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.key(a)
	w.must(a.replicateTo(id, b))
	w.settle()
	w.isolate(b)
	w.must(a.replicateTo(id, c))
	w.settle()
	w.must(w.beginAgainAt(a))
	b.pinAnew()
	c.pinAnew()
	if !w.promoteOne(b, id) {
		t.Fatal("not promoted")
	}
	w.net.heal()
	w.restoreTo(w.save(b))
	for range 4 {
		w.everybody()
		w.now = w.now.Add(10 * time.Minute)
	}
	b.run.repl.Step(t.Context())
	if k := b.key(id); !k.Set.Acting() || k.Set.Entry(c.name).Status.In() {
		t.Errorf("acts %t, and calls the other one %s", k.Set.Acting(), k.Set.Entry(c.name).Status)
	}
	w.heal()
}

// A replica was made and deleted again while a third Region was dark, and the primary Region begins
// again as another instance, which alone had admitted the replica. There is nobody whom its Region
// would have to tell that it is deleted.
func TestDeletedAsNobodyKnows(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.key(a)
	w.must(a.replicateTo(id, b))
	w.settle()
	w.isolate(b)
	w.must(a.replicateTo(id, c))
	w.settle()
	_, err := c.run.svc.ScheduleKeyDeletion(t.Context(), caller(), keyops.ScheduleKeyDeletionInput{KeyID: string(id), PendingWindowInDays: 7})
	w.must(err)
	w.now = w.now.Add(8 * 24 * time.Hour)
	for range 2 {
		w.must(c.run.svc.Work(t.Context()))
		w.settle()
	}
	if k := c.key(id); !k.Gone() || len(c.marks()) == 0 {
		t.Fatalf("gone %t, with %d marks", k.Gone(), len(c.marks()))
	}
	w.must(w.beginAgainAt(a))
	w.net.heal()
	w.heal()
	if m := c.marks(); len(m) > 0 {
		t.Errorf("a mark for %s is kept: %s", m[0].Peer, m[0].Text)
	}
}

// A replica instance is disassociated. It keeps its key as it is, whatever is rotated elsewhere,
// and whoever goes back in time hears of it.
func TestDisassociated(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	w.associate(a, b)
	id := w.key(a)
	for range 4 {
		w.must(a.run.svc.Work(t.Context()))
		w.everybody()
	}
	w.must(a.replicateTo(id, c))
	w.settle()
	if k := b.key(id); k == nil || k.State != keystate.Enabled {
		t.Fatal("the replica instance was not supplied")
	}
	before := w.save(b)
	w.encryptAt(b, b.run, id)
	if !w.disassociateOnce() {
		t.Fatalf("not disassociated: %v", w.log[max(0, len(w.log)-16):])
	}
	w.heal()
	if !b.frozen() || b.key(id).State != keystate.Enabled {
		t.Fatalf("frozen %t, its key is %s", b.frozen(), b.key(id).State)
	}
	w.restoreTo(before)
	w.heal()
	if !b.frozen() {
		t.Error("a restored instance is not frozen")
	}
}

// A Region that takes no replica has told what it knows of the key: nothing. A restored primary
// Region does not wait for it.
func TestWhoTakesNoReplicaIsHeard(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	w.associate(a, b)
	if !w.disassociateOnce() {
		t.Fatal("not disassociated")
	}
	w.settle()
	id := w.key(c)
	w.isolate(b)
	w.must(c.replicateTo(id, b))
	w.restoreTo(w.save(c))
	w.net.heal()
	for range 4 {
		w.everybody()
		w.now = w.now.Add(time.Minute)
	}
	c.run.repl.Step(t.Context())
	if !c.key(id).Set.Acting() {
		t.Error("the primary Region waits for one that takes no replica")
	}
	w.heal()
}

// A frozen instance makes no key again that it has lost with its store, and has told so: a
// restored primary Region in a third Region does not wait for it.
func TestWhoMakesNoKeyAgainIsHeard(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	w.associate(a, b)
	before := w.save(b)
	id := w.key(c)
	w.must(c.replicateTo(id, b))
	w.settle()
	if !w.disassociateOnce() {
		t.Fatal("not disassociated")
	}
	w.settle()
	w.restoreTo(before)
	w.restoreTo(w.save(c))
	for range 4 {
		w.everybody()
		w.now = w.now.Add(time.Minute)
	}
	c.run.repl.Step(t.Context())
	if b.key(id) != nil || !c.key(id).Set.Acting() {
		t.Errorf("key there %t, acting %t", b.key(id) != nil, c.key(id).Set.Acting())
	}
	w.heal()
}

// A replica instance is put back to before the association. It has forgotten that it is one, and
// its operators, who approve, have not.
func TestForgottenAssociationIsEnded(t *testing.T) {
	w := scene(t)
	a, b := w.nodes[0], w.nodes[1]
	before := w.save(b)
	w.associate(a, b)
	w.restoreTo(before)
	if !w.disassociateOnce() {
		t.Errorf("not disassociated: %s", w.log[len(w.log)-1])
	}
	w.heal()
	if !b.frozen() {
		t.Error("the replica instance is not frozen")
	}
}

// A key is offered to the replica instance and has new material, which the replica instance has
// not got, when the pair is severed. Nothing is owed to it any more, so it hears of the offer,
// and refuses.
func TestOfferToTheSevered(t *testing.T) {
	w := scene(t)
	a, b := w.nodes[0], w.nodes[1]
	w.associate(a, b)
	id := w.key(a)
	w.must(a.replicateTo(id, b))
	w.settle()
	_, err := a.run.svc.RotateKeyOnDemand(t.Context(), caller(), keyops.RotateKeyOnDemandInput{KeyID: string(id)})
	w.must(err)
	_, err = a.run.svc.UpdatePrimaryRegion(t.Context(), caller(), keyops.UpdatePrimaryRegionInput{KeyID: string(id), PrimaryRegion: string(b.name)})
	w.must(err)
	if !w.disassociateOnce() {
		t.Fatal("not disassociated")
	}
	w.settle()
	if p, k := w.acting(id); p != a || k.Set.Epoch().Number != 2 || len(k.Held()) != 2 {
		t.Error("the Region that has offered the key does not act again")
	}
	w.heal()
}

// A replica was asked for of the instance that is severed before it had any material. It gets
// none, and the status says why, and what to do.
func TestSeveredMemberIsShown(t *testing.T) {
	w := scene(t)
	a, b := w.nodes[0], w.nodes[1]
	w.associate(a, b)
	id := w.key(b)
	w.must(b.replicateTo(id, a))
	w.isolate(b)
	w.disassociateOnce()
	w.net.heal() // but the replica instance, with the primary key, does not accept it
	w.settle()
	if row := b.status(id, a.name); row.Status != replication.StatusFailed || row.Cause != string(mrk.CauseReplicaFrozen) || !strings.Contains(row.Text, "evict the replica") {
		t.Errorf("the status is %+v", row)
	}
	w.heal() // evicts it
	if e := b.key(id).Set.Entry(a.name); e.Status.In() {
		t.Errorf("the replica is %s", e.Status)
	}
}
