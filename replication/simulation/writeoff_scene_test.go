package simulation

import (
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
)

// deletesImported takes imported material out of a Region's token.
func (n *node) deletesImported(id arn.KeyID, m material.ID) {
	_, err := n.run.svc.DeleteImportedKeyMaterial(n.w.t.Context(), caller(), keyops.DeleteImportedKeyMaterialInput{KeyID: string(id), KeyMaterialID: m.String()})
	n.w.must(err)
}

// importedTwice has a key whose second imported material is current, in two Regions.
func importedTwice(t *testing.T) (w *world, id arn.KeyID, first, second material.ID) {
	t.Helper()
	w = scene(t)
	a, b := w.nodes[0], w.nodes[1]
	id, first = w.imported(a)
	w.must(a.replicateTo(id, b))
	w.settle()
	w.must(b.importMaterial(id, first, importing{}))
	w.settle()
	second = w.invent(id)
	w.must(a.importMaterial(id, second, importing{as: keyops.NewKeyMaterial}))
	w.settle()
	w.must(b.importMaterial(id, second, importing{}))
	w.settle()
	w.must(a.rotates(id, false))
	w.settle()
	if got := b.key(id).Set.Current(); got != second {
		t.Fatalf("current is %.8s", got)
	}
	return w, id, first, second
}

// The owner has taken what is current out of every token, to import it again later. It is not
// written off meanwhile, whatever operators approve: the key would encrypt with what was given up.
func TestWhatIsCurrentIsNotWrittenOff(t *testing.T) {
	w, id, _, second := importedTwice(t)
	a, b := w.nodes[0], w.nodes[1]
	for _, n := range []*node{a, b} {
		n.deletesImported(id, second)
	}
	w.settle()
	if w.writeOffOne(a, id, second) {
		t.Error("what is current is written off")
	}
	for _, n := range []*node{a, b} {
		w.must(n.importMaterial(id, second, importing{}))
	}
	w.settle()
	if !w.encryptAt(a, a.run, id) || w.letters[0].material != second.String() {
		t.Error("what was imported again does not encrypt")
	}
	if _, err := w.open(b.run, w.letters[0]); err != nil {
		t.Error(err)
	}
	w.heal()
}

// A material was in no token. The primary Region starts again, and does not hear that another
// one has imported it since: it gives nothing up on what it knew before.
func TestWrittenOffOnceAllAreHeard(t *testing.T) {
	w, id, first, _ := importedTwice(t)
	a, b := w.nodes[0], w.nodes[1]
	for _, n := range []*node{a, b} {
		n.deletesImported(id, first)
	}
	w.settle()
	w.isolate(a)
	w.must(b.importMaterial(id, first, importing{}))
	a.stop()
	w.must(a.start())
	if w.writeOffOne(a, id, first) {
		t.Error("what a Region holds is written off, which was not heard since the start")
	}
	w.net.heal()
	w.settle()
	if w.writeOffOne(a, id, first) {
		t.Error("what a Region holds is written off")
	}
	b.deletesImported(id, first)
	w.settle()
	if !w.writeOffOne(a, id, first) {
		t.Error("what nobody holds is not written off")
	}
	w.heal()
}
