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
