package simulation

import (
	"errors"
	"slices"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/replication"
)

// What schedules have found about keys whose material is imported.

// A snapshot of the disk puts the primary Region's store back to before its first import,
// unseen, and other bytes are imported as the first ones. When the other Regions tell it what it
// has forgotten, it lists what it has used meanwhile again, and the others wait for that import.
func TestImportedBesideAForgottenState(t *testing.T) {
	w := scene(t)
	a, b := w.nodes[0], w.nodes[1]
	out, err := a.run.svc.CreateKey(t.Context(), caller(), keyops.CreateKeyInput{MultiRegion: true, Origin: keyops.OriginExternal})
	w.must(err)
	id := out.KeyMetadata.KeyID
	w.keys, w.external[id] = append(w.keys, id), true
	old := w.save(a)
	first, other := w.invent(id), w.invent(id)
	w.must(a.importMaterial(id, first, importing{}))
	w.must(a.replicateTo(id, b))
	w.settle()
	w.must(b.importMaterial(id, first, importing{}))
	w.settle()
	w.isolate(a)
	w.rollBackTo(old, false)
	w.must(a.importMaterial(id, other, importing{}))
	if !w.encryptAt(a, a.run, id) {
		t.Fatal("the Region knows that it was rolled back")
	}
	w.net.heal()
	w.settle()
	k := a.key(id)
	if i := slices.IndexFunc(k.Set.Listed(), func(l mrk.Listed) bool { return l.ID == other }); i < 0 || !k.Set.Acting() || k.Set.Current() != first {
		t.Errorf("acting %t, the Region lists %v, and %.8s is current", k.Set.Acting(), k.Set.Listed(), k.Set.Current())
	}
	if k := b.key(id); k.State != keystate.PendingImport {
		t.Errorf("the key that lacks what was imported elsewhere is %s", k.State)
	}
	w.must(b.importMaterial(id, other, importing{}))
	if _, err := w.open(b.run, w.letters[0]); err != nil {
		t.Error(err)
	}
	w.heal()
}

// A Region that was promoted hears that the former one, which was cut off, has released
// imported material without the others and encrypted with it. Nobody else is given the bytes, and
// nothing is listed on its word: its status says what to import where the primary key is.
func TestImportedAndReleasedByTheFenced(t *testing.T) {
	w, id, first := releasedByTheFenced(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	second, err := material.Parse(w.letters[0].material)
	w.must(err)
	if row := b.status(id, a.name); row.Status != replication.StatusFailed || row.Cause != string(mrk.CauseMaterialMismatch) {
		t.Errorf("the status is %+v", row)
	}
	existing := importing{as: keyops.ExistingKeyMaterial}
	if err := c.importMaterial(id, second, existing); !errors.Is(err, keyops.ErrIncorrectKeyMaterial) {
		t.Errorf("imported at a replica key first: %v", err)
	}
	if err := b.importMaterial(id, w.invent(id), existing); !errors.Is(err, keyops.ErrIncorrectKeyMaterial) {
		t.Errorf("what nobody has used is imported as existing material: %v", err)
	}
	w.must(b.importMaterial(id, second, existing))
	w.settle()
	if st := b.key(id).Set.State(); st.Current != first || !st.Pending.IsZero() || len(st.Materials) != 2 {
		t.Errorf("of %d materials %.8s is current, %.8s is pending", len(st.Materials), st.Current, st.Pending)
	}
	w.must(c.importMaterial(id, second, existing))
	w.settle()
	for _, n := range []region.Name{a.name, c.name} {
		if row := b.status(id, n); row.Status != replication.StatusSynchronized {
			t.Errorf("in the end the status is %+v", row)
		}
	}
	w.heal() // and everybody opens what was encrypted
}

// releasedByTheFenced has the first Region release material that the others lack, and encrypt
// with it, before it hears that the second one was promoted.
func releasedByTheFenced(t *testing.T) (w *world, id arn.KeyID, first material.ID) {
	t.Helper()
	w = scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id, first = w.imported(a)
	for _, n := range []*node{b, c} {
		w.must(a.replicateTo(id, n))
		w.settle()
		w.must(n.importMaterial(id, first, importing{}))
	}
	w.settle()
	w.isolate(a)
	if !w.promoteOne(b, id, a.name) {
		t.Fatal("not promoted")
	}
	second := w.invent(id)
	w.must(a.importMaterial(id, second, importing{as: keyops.NewKeyMaterial}))
	for _, n := range []*node{b, c} {
		if !w.suspendOne(a, id, n) {
			t.Fatal("not suspended")
		}
	}
	_, err := a.run.svc.RotateKeyOnDemand(t.Context(), caller(), keyops.RotateKeyOnDemandInput{KeyID: string(id)})
	w.must(err)
	if !w.encryptAt(a, a.run, id) || w.letters[0].material != second.String() {
		t.Fatal("the Region that is cut off does not rotate")
	}
	w.net.heal()
	w.settle()
	return w, id, first
}

// The same, but the owner has lost the bytes: deleted where they are, the material is written off.
func TestImportedByTheFencedAndLost(t *testing.T) {
	w, id, _ := releasedByTheFenced(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	second, err := material.Parse(w.letters[0].material)
	w.must(err)
	if w.writeOffOne(b, id, second) {
		t.Error("what is in a token is written off")
	}
	_, err = a.run.svc.DeleteImportedKeyMaterial(t.Context(), caller(), keyops.DeleteImportedKeyMaterialInput{KeyID: string(id), KeyMaterialID: second.String()})
	w.must(err)
	w.settle()
	if k := a.key(id); k.State != keystate.PendingImport {
		t.Errorf("the key that lacks what it has used is %s", k.State)
	}
	if !w.writeOffOne(b, id, second) {
		t.Error("not written off")
	}
	w.settle()
	for _, n := range []*node{a, b, c} {
		if k := n.key(id); k.State != keystate.Enabled {
			t.Errorf("without what was written off the key in %s is %s", n.name, k.State)
		}
	}
	w.heal()
}
