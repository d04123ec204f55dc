package simulation

import (
	"testing"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/replication"
)

// A pair is severed while nobody hears of it, and the primary instance is put back to before the
// association: nobody knows of the severance any more, and the transport keys are gone. The status
// says what is missing, and what operators may do is to evict the replica.
func TestSeveranceForgotten(t *testing.T) {
	w := scene(t)
	a, b := w.nodes[0], w.nodes[1]
	old := w.save(a)
	w.associate(a, b)
	id := w.key(a)
	w.must(a.replicateTo(id, b))
	w.settle()
	w.isolate(a)
	if !w.disassociateOnce() {
		t.Fatal("not disassociated")
	}
	w.restoreTo(old)
	w.net.heal()
	b.stop()
	b.doubt(true)
	b.fake.Restore(b.plant.token)
	w.must(b.start())
	w.settle()
	if len(a.run.svc.Severed()) > 0 {
		t.Fatal("the primary instance knows of the severance")
	}
	if row := a.status(id, b.name); row.Status != replication.StatusFailed || row.Cause != string(mrk.CauseTransportKeyMissing) {
		t.Errorf("the status is %+v", row)
	}
	w.heal() // evicts it
	if e := a.key(id).Set.Entry(b.name); e.Status != mrk.Evicted {
		t.Errorf("the replica is %s", e.Status)
	}
}

// A frozen instance is put back to before that, makes a key, and gives a third Region a replica.
// When it hears that it is frozen it acts no more, however often it has heard all others, and
// operators promote the third Region.
func TestFrozenThatForgotActsNoMore(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	w.associate(a, b)
	before := w.save(b)
	w.isolate(c)
	if !w.disassociateOnce() || !b.frozen() {
		t.Fatal("not disassociated")
	}
	w.net.heal()
	w.isolate(a)
	w.restoreTo(before)
	id := w.key(b)
	w.must(b.replicateTo(id, c))
	w.settle()
	if c.key(id) == nil || !b.key(id).Set.Acting() {
		t.Fatal("the instance that has forgotten does not act")
	}
	w.net.heal()
	w.settle()
	w.must(b.run.svc.Work(t.Context()))
	w.settle()
	b.run.repl.Step(t.Context())
	if !b.frozen() || b.key(id).Set.Acting() {
		t.Errorf("frozen %t, and acts %t", b.frozen(), b.key(id).Set.Acting())
	}
	w.heal()
	if p, _ := w.acting(id); p != c {
		t.Error("the third Region does not act")
	}
}

// A Region of a severed pair begins again. Its new instance has transport keys of its own with the
// other one, which gives it the key back.
func TestNewInstanceOfASeveredPair(t *testing.T) {
	w := scene(t)
	a, b := w.nodes[0], w.nodes[1]
	w.associate(a, b)
	id := w.key(b)
	w.must(b.replicateTo(id, a))
	w.isolate(b)
	if !w.disassociateOnce() {
		t.Fatal("not disassociated")
	}
	w.net.heal()
	w.must(w.beginAgainAt(a))
	w.heal()
	if e := b.key(id).Set.Entry(a.name); e.Status != mrk.Active || a.key(id) == nil {
		t.Errorf("the new instance is %s", e.Status)
	}
}
