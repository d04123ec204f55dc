package mrk_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// Messages of before a promotion arrive after it, in any order: nobody goes back.
func TestMessagesFromBeforeAPromotion(t *testing.T) {
	w := withReplicas(t)
	w.must(w.rotate(regionA))
	var late []*message
	keep := func() {
		for _, x := range allRegions {
			for _, y := range allRegions {
				if m := w.message(x, y); x != y && m != nil {
					m.late = true
					late = append(late, m)
				}
			}
		}
	}
	keep()
	w.must(w.offer(regionA, regionC)) // and an offer that nobody has decided
	keep()
	w.must(w.force(regionB))
	w.heal()
	w.converged(regionA, regionB, regionC)
	epoch := w.nodes[regionB].set.Epoch()
	for i := range late {
		for _, m := range []*message{late[i], late[len(late)-1-i]} {
			w.deliver(m)
			_ = w.accept(m.to) // of what is over
			w.step(m.to)
			w.check()
		}
	}
	for _, r := range allRegions {
		if n := w.nodes[r]; n.set.Epoch() != epoch || n.set.Acting() != (r == regionB) {
			t.Errorf("%s is in %s and acts %v", r, n.set.Epoch(), n.set.Acting())
		}
	}
	w.heal()
	w.converged(regionA, regionB, regionC)
}

// A member that says that it holds what it does not harms the readers in its own Region, and
// the number of Regions that hold the material. Everybody else goes on.
func TestLiarHarmsItself(t *testing.T) {
	w := withReplicas(t)
	w.must(w.rotate(regionA))
	w.sync(regionA, regionC)
	w.sync(regionC, regionA)
	w.sync(regionA, regionC)
	w.sync(regionC, regionA)
	lie := *w.nodes[regionB].set.Own()
	lie.Counter += 10
	lie.Held = append(slices.Clone(lie.Held), testMaterial(1))
	slices.SortFunc(lie.Held, func(a, b material.ID) int { return bytes.Compare(a[:], b[:]) })
	word, err := mrk.SignMember(ctx(), testSigner(regionB), lie)
	w.must(err)
	_, err = w.nodes[regionA].set.Merge(pins{}, mrk.Facts{Key: testKey, Members: []*mrk.Member{word}})
	w.must(err)
	w.step(regionA)
	a, c := w.nodes[regionA], w.nodes[regionC]
	if a.set.Current() != testMaterial(1) {
		t.Fatal("the rotation waits for ever")
	}
	w.sync(regionA, regionC)
	if !w.encrypt(regionA) || !w.encrypt(regionC) || !c.rows[testMaterial(1)] || c.current != testMaterial(1) {
		t.Error("those who do not lie suffer")
	}
	// Nor can it make itself primary by a lie: it has to hold what it counter-signs for, and
	// nobody else has to believe more of it than what its own facts prove.
	if err := w.accept(regionB); !errors.Is(err, mrk.ErrNothing) {
		t.Errorf("it accepts what nobody offers: %v", err)
	}
	// It tells the truth again, and gets what it lacks.
	b := w.nodes[regionB]
	for range 3 {
		w.sync(regionA, regionB) // its own word comes back, and it counts past it
		w.sync(regionB, regionA)
	}
	w.heal()
	w.converged(regionA, regionB, regionC)
	if !b.rows[testMaterial(1)] {
		t.Error("B lacks the material for ever")
	}
}
