package mrk_test

import (
	"testing"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement"
)

// However often a key is promoted and renewed, and whatever earlier epochs listed, all facts
// fit into one message: a Region that could not be told of a promotion would not be fenced.
func TestLongHistoryFitsIntoOneStatement(t *testing.T) {
	w := createWorld(t, true)
	w.must(w.replicate(regionA, regionB))
	w.must(w.replicate(regionA, regionC))
	w.heal()
	longest := 0
	for round := range 10 { // more lines than a chain keeps
		r := allRegions[round%3]
		n := w.nodes[r]
		n.set.DropPermit()
		before := w.nodes[allRegions[(round+1)%3]]
		if before.set.Acting() { // it lists what nobody else hears of, and is shown as an earlier epoch
			w.must(w.suspendAll(before.name))
			_ = w.rotate(before.name)
			w.step(before.name)
		}
		w.must(w.force(r))
		for range 4 { // a Region that loses its permit again and again
			n.set.DropPermit()
			w.settle(n)
			w.step(r)
		}
		for range 2 {
			for _, x := range allRegions {
				w.sync(r, x)
				w.sync(x, r)
			}
		}
		for _, x := range allRegions {
			b := w.nodes[x].set.Facts(mrk.Hash{}).Marshal()
			longest = max(longest, len(b))
			if _, err := mrk.ParseFacts(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	const beside = 192 << 10
	if longest+beside > statement.MaxPayload {
		t.Errorf("%d bytes of facts, %d fit", longest, statement.MaxPayload-beside)
	}
	t.Logf("%d bytes at most", longest)
	w.heal()
	w.check()
}

// suspendAll suspends every other member.
func (w *world) suspendAll(p regionName) error {
	for _, r := range allRegions {
		if r == p {
			continue
		}
		if err := w.suspend(p, r); err != nil {
			return err
		}
	}
	return nil
}
