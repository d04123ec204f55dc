package mrk_test

import (
	"context"
	"testing"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// spend lets a Region say how often it has used the first material.
func (w *world) spend(n *node, times uint64) {
	w.t.Helper()
	own := n.own()
	own.Spent = mrk.Counts{testMaterial(0): times}
	_, err := n.set.Reissue(context.Background(), testSigner(n.name), own)
	w.must(err)
	stored, err := mrk.Unmarshal(n.set.Marshal())
	w.must(err)
	n.set = stored
}

// TestSpentIsToldAndKept: what the others have used adds up, and no count is forgotten.
func TestSpentIsToldAndKept(t *testing.T) {
	w := withReplicas(t)
	a, b, c := w.nodes[regionA], w.nodes[regionB], w.nodes[regionC]
	id := testMaterial(0)
	backup := b.set.Clone()
	w.spend(a, 1)
	w.spend(b, 20)
	w.spend(c, 300)
	w.heal()
	for n, want := range map[*node]uint64{a: 320, b: 301, c: 21} {
		if got := n.set.SpentElsewhere(id); got != want {
			t.Errorf("%s hears of %d, want %d", n.name, got, want)
		}
	}
	if got := b.set.Spent(id); got != 20 {
		t.Errorf("own count %d, want 20", got)
	}
	w.spend(b, 5) // as a row says that was restored
	if got := b.set.Spent(id); got != 20 {
		t.Errorf("the count fell to %d", got)
	}
	// The whole set was restored: the others know better.
	b.set = backup
	w.sync(regionA, regionB)
	if got := b.set.Spent(id); got != 20 {
		t.Errorf("after a restore the count is %d, want what the others have heard, 20", got)
	}
	w.heal()
	if got := a.set.SpentElsewhere(id); got != 320 {
		t.Errorf("after the restore A hears of %d, want 320", got)
	}
	// Nobody counts what was never listed, and so nobody keeps it for a hostile peer.
	own := c.own()
	own.Spent = mrk.Counts{material.ID{99}: 7, id: 1 << 57}
	if _, err := c.set.Reissue(context.Background(), testSigner(regionC), own); err != nil {
		t.Fatal(err)
	}
	if c.set.Spent(material.ID{99}) != 0 || c.set.Spent(id) != 300 {
		t.Errorf("counts of %d and %d were taken", c.set.Spent(material.ID{99}), c.set.Spent(id))
	}
}
