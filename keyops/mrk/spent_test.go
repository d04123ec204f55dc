package mrk_test

import (
	"context"
	"testing"

	"github.com/keyferry/keyferry/keyops/mrk"
)

// spend lets a Region say how often it has used the first material.
func (w *world) spend(n *node, times uint64) {
	w.t.Helper()
	own := n.own()
	own.Spent = mrk.Counts{testMaterial(0): times}
	_, err := n.set.Reissue(context.Background(), w.signer(n.name), own)
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
	// What is out of bounds is not taken.
	own := c.own()
	own.Spent = mrk.Counts{id: 1 << 57}
	if _, err := c.set.Reissue(context.Background(), w.signer(regionC), own); err != nil {
		t.Fatal(err)
	}
	if c.set.Spent(id) != 300 {
		t.Errorf("a count of %d was taken", c.set.Spent(id))
	}
}

// TestSpentSurvivesTheKey: a Region that was made a member again, and knows nothing, learns
// from the others how far it had come.
func TestSpentSurvivesTheKey(t *testing.T) {
	w := withReplicas(t)
	c, id := w.nodes[regionC], testMaterial(0)
	w.spend(c, 77)
	w.must(w.replicateAgain(regionA))
	w.sync(regionA, regionB)
	facts := w.nodes[regionA].set.Facts(mrk.Hash{})
	req, ok := w.nodes[regionA].set.Request(regionC)
	if !ok {
		t.Fatal("no create request is outstanding")
	}
	again, err := mrk.Join(c.self(), w.verifier(), facts, req)
	w.must(err)
	if got := again.Spent(id); got != 77 {
		t.Errorf("the count begins again at %d, want 77", got)
	}
	stored, err := mrk.Unmarshal(again.Marshal())
	w.must(err)
	if got := stored.Spent(id); got != 77 {
		t.Errorf("stored, the count is %d, want 77", got)
	}
}
