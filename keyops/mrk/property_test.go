package mrk_test

import (
	"testing"

	"pgregory.net/rapid"
)

// TestAnyOrderConverges lets facts be lost, repeated, reordered and late while the primary
// Region replicates, rotates and suspends and every Region encrypts and restarts. After
// each step no active member may lack what another one encrypted with; when everything has
// arrived, all must know, hold and use the same.
func TestAnyOrderConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		var late []*message
		replicated := map[regionName]bool{regionA: true}
		for range rapid.IntRange(5, 60).Draw(t, "steps") {
			r := rapid.SampledFrom(allRegions).Draw(t, "region")
			other := rapid.SampledFrom(allRegions).Draw(t, "other")
			n := w.nodes[r]
			switch rapid.IntRange(0, 11).Draw(t, "action") {
			case 0, 1, 2:
				if r != other {
					w.sync(r, other)
				}
			case 3:
				if r != other {
					if m := w.message(r, other); m != nil {
						m.late = true
						late = append(late, m)
					}
				}
			case 4, 5:
				if len(late) > 0 {
					w.deliver(rapid.SampledFrom(late).Draw(t, "late"))
				}
			case 6:
				if r != regionA && w.replicate(regionA, r) == nil {
					replicated[r] = true
				}
			case 7:
				if w.mats < 6 {
					_ = w.rotate(regionA) // refused while one is pending
				}
			case 8:
				_ = w.suspend(regionA, r) // refused for who is no member
			case 9:
				clear(n.heard)
			case 10:
				w.encrypt(r)
			case 11:
				w.step(r)
			}
			w.check()
		}
		w.heal()
		w.check()
		members := []regionName{regionA}
		for _, r := range allRegions[1:] {
			if replicated[r] {
				members = append(members, r)
			}
		}
		w.converged(members...)
	})
}
