package mrk_test

import (
	"testing"

	"pgregory.net/rapid"

	_ "github.com/keyferry/keyferry/keyops/keyopstest/seededtest"
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

// TestFaultsHeal adds what breaks Regions: lost permits, lost tokens, restored stores,
// deleted replicas. While a fault has not healed a Region may lack what others used; once
// everything has arrived nothing that was ever used is lost, and all agree.
func TestFaultsHeal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		backups := map[regionName]backup{}
		for range rapid.IntRange(5, 50).Draw(t, "steps") {
			r := rapid.SampledFrom(allRegions).Draw(t, "region")
			other := rapid.SampledFrom(allRegions).Draw(t, "other")
			n := w.nodes[r]
			switch rapid.IntRange(0, 12).Draw(t, "action") {
			case 0, 1, 2:
				if r != other {
					w.sync(r, other)
				}
			case 3, 4:
				w.step(r)
			case 5:
				_ = w.replicate(regionA, r) // refused for members; forgotten if A is restored before anybody heard
			case 6:
				if w.mats < 6 {
					_ = w.rotate(regionA) // refused while one is pending
				}
			case 7:
				w.encrypt(r)
			case 8: // restarted, its permit in doubt
				clear(n.heard)
				if n.set != nil {
					n.set.DropPermit()
				}
			case 9: // the token is replaced; the fault assumption is that others hold what it held
				if n.set != nil && r != regionA && w.holdsAll(regionA, n) {
					clear(n.token)
					clear(n.rows)
					w.settle(n)
				}
			case 10: // rule 22
				if n.set != nil && r != regionA && n.state != "Gone" && w.nodes[regionA].set.Acting() && w.holdsAll(regionA, n) {
					w.delete(r)
					delete(backups, r) // what a backup of a deleted key brings back has its own test
				}
			case 11:
				if n.set != nil && n.state == "Enabled" {
					backups[r] = backup{n.set.Marshal(), n.set.Incarnation()}
				}
			case 12:
				b, ok := backups[r]
				if ok && n.state != "Gone" && n.set.Incarnation() == b.incarnation {
					w.restore(r, b.set)
					n.state = "Enabled"
					w.takeBack(r)
				}
			}
		}
		w.heal()
		w.check()
		for _, n := range w.nodes {
			for id := range n.wrote {
				if a := w.nodes[regionA]; !a.rows[id] || !a.token[id] {
					t.Fatalf("%.8s encrypted in %s and is lost", id, n.name)
				}
			}
		}
		var in []regionName
		for _, r := range allRegions {
			if n := w.nodes[r]; n.set != nil && n.state != "Gone" {
				in = append(in, r)
			}
		}
		w.converged(in...)
	})
}

type backup struct {
	set         []byte
	incarnation uint64
}

// holdsAll reports whether a Region holds everything that a node holds.
func (w *world) holdsAll(r regionName, n *node) bool {
	for _, id := range n.held() {
		if h := w.nodes[r]; !h.rows[id] || !h.token[id] {
			return false
		}
	}
	return true
}
