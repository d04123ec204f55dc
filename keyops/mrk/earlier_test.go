package mrk_test

import (
	"testing"

	"github.com/keyferry/keyferry/keyops/mrk"
)

// B was promoted, rotates, and follows A, which was promoted after it without having heard of the
// new material. Then it follows C, whose backup knows neither promotion. What leads to B's state was
// part of the chain that it leaves, and it shows that, too: C takes the material in.
func TestEarlierStateIsShownAcrossTwoPromotions(t *testing.T) {
	w := withReplicas(t)
	b, c := w.nodes[regionB], w.nodes[regionC]
	old := c.set.Marshal()
	w.must(w.force(regionB))
	w.heal()
	w.must(w.rotate(regionB))
	unheard := b.set.Pending()
	w.must(w.force(regionA))
	w.sync(regionA, regionB)
	if _, known := w.nodes[regionA].set.Known(unheard); known || b.set.Primary() != regionA || len(b.set.Listed()) != 1 {
		t.Fatalf("B follows %s, which knows its material: %t", b.set.Primary(), known)
	}
	w.restore(regionC, old)
	p, list := promotion(c.set)
	p.Generation = 3
	proof, _ := list.Prove(testKey)
	w.must(w.promoteBy(regionC, mrk.Approved{Promotion: p, Proof: proof, Approvals: approve(p, "anna", "cleo"), Roster: testOperators, Now: testNow}))
	w.sync(regionC, regionB)
	if refused := w.sync(regionB, regionC); len(refused) > 0 {
		t.Errorf("C refuses %v", refused)
	}
	if _, known := c.set.Known(unheard); !known || b.set.Primary() != regionC {
		t.Errorf("B follows %s, which knows its material: %t", b.set.Primary(), known)
	}
	w.heal()
	w.check()
	w.converged(regionA, regionB, regionC)
	if got := len(c.set.Listed()); got != 2 {
		t.Errorf("C lists %d materials", got)
	}
}
