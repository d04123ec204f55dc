package mrk_test

import (
	"context"
	"maps"
	"slices"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// ghost is what nobody in a deployment knows and the invariants need. What they excuse is
// the list of the protocol's section 5.
type ghost struct {
	max     mrk.Epoch             // the highest in which anybody acted
	refused map[mrk.Epoch]bool    // by the Region to which it was offered
	burnt   map[number]regionName // of refused epochs
	bogus   map[mrk.Epoch]bool    // offered by a Region that did not mean it
	// suspended has, by the Region that wrote it and the one that it is about, the state that
	// says so since when.
	suspended map[[2]regionName]*mrk.State
	forced    bool // somebody was promoted
	rolled    bool // some store was restored
	faulty    bool // some token was lost
	dead      bool // the primary key was destroyed, and with it the set
	ever      ids  // encrypted, anywhere
	nodes     map[regionName]*nodeGhost
}

type nodeGhost struct {
	deleted  uint64 // incarnation that was destroyed here
	restored bool
	liar     bool // said that it holds what it need not hold, or lives, or does not
	absent   bool // said that it has deleted its key, and had not
	stale    bool // restored, and not in a new epoch or activated since
	old      ids  // what had encrypted anywhere when this Region was restored
	out      map[regionName]bool
	lost     ids // by a fault, and not regained
	// missed is what each other Region knew and had said when this one started last: it has to
	// hear of it before it may rely on what it knows itself.
	missed map[regionName]word
	last   *deed
}

type ids map[material.ID]bool

func (a ids) without(b ids) ids {
	out := maps.Clone(a)
	maps.DeleteFunc(out, func(id material.ID, _ bool) bool { return b[id] })
	return out
}

func newGhost() *ghost {
	g := &ghost{
		refused: map[mrk.Epoch]bool{}, burnt: map[number]regionName{}, bogus: map[mrk.Epoch]bool{}, suspended: map[[2]regionName]*mrk.State{},
		ever: ids{}, nodes: map[regionName]*nodeGhost{},
	}
	for _, r := range allRegions {
		g.nodes[r] = &nodeGhost{old: ids{}, out: map[regionName]bool{}, lost: ids{}}
	}
	return g
}

// began notes that a Region's new epoch began.
func (w *world) began(r regionName) {
	g := w.ghost
	if g == nil {
		return
	}
	e := w.nodes[r].set.Epoch()
	if e.Compare(g.max) >= 0 {
		g.nodes[r].stale = false
		g.max = e
	}
	if g.refused[e] && !g.rolled {
		w.t.Fatalf("%s acts in epoch %s, which it had refused", r, e)
	}
	if e.Line.Generation > 0 && e.Number == 0 {
		g.forced = true
	}
}

func (n *node) exists() bool { return n.set != nil && n.state != "Gone" }

func (n *node) usable() ids {
	out := ids{}
	for _, id := range n.held() {
		out[id] = true
	}
	return out
}

func (w *world) acting(r regionName) bool {
	n := w.nodes[r]
	return n.exists() && n.set.Acting() && (n.state == "Enabled" || n.state == "Updating")
}

// top returns the Region that knows the highest state; at a tie one that acts.
func (w *world) top() regionName {
	best := regionName("")
	for _, r := range allRegions {
		n := w.nodes[r]
		if n.set == nil || n.set.State() == nil {
			continue
		}
		if best == "" {
			best = r
			continue
		}
		c := n.set.State().Compare(w.nodes[best].set.State())
		if c > 0 || c == 0 && w.acting(r) && !w.acting(best) {
			best = r
		}
	}
	return best
}

// memberNow reports whether the state that top knows calls a Region active, and it works.
func (w *world) memberNow(top, r regionName) bool {
	n, t := w.nodes[r], w.nodes[top].set
	e := t.Entry(r)
	f := t.Fact(r)
	gone := f != nil && f.Deleted && f.Incarnation >= e.Incarnation
	return n.set != nil && e.Status == mrk.Active && !gone && (n.state == "Enabled" || n.state == "Updating") && e.Incarnation == n.set.Incarnation()
}

// invariants fails if one of the protocol's invariants does not hold.
func (w *world) invariants() {
	w.t.Helper()
	w.deeds()
	w.onePrimary()
	w.activeDecrypt()
	w.nothingLost()
	for _, r := range allRegions {
		n, g := w.nodes[r], w.ghost.nodes[r]
		if n.exists() && g.deleted != 0 && n.set.Incarnation() <= g.deleted && !g.restored {
			w.t.Fatalf("%s deleted its replica, and it is back", r)
		}
		for id := range n.usable() {
			delete(g.lost, id)
		}
	}
}

func (w *world) onePrimary() {
	w.t.Helper()
	var acting []regionName
	for _, r := range allRegions {
		if !w.acting(r) {
			continue
		}
		for _, other := range acting {
			if w.nodes[other].set.Epoch().Compare(w.nodes[r].set.Epoch()) == 0 {
				w.t.Fatalf("%s and %s act in epoch %s", other, r, w.nodes[r].set.Epoch())
			}
		}
		acting = append(acting, r)
	}
	if len(acting) > 1 && !w.ghost.forced && !w.ghost.rolled {
		w.t.Fatalf("%v act, without a forced promotion or a restore", acting)
	}
}

// activeDecrypt is D2 among the active members of the newest state that is known anywhere.
func (w *world) activeDecrypt() {
	w.t.Helper()
	top := w.top()
	st := w.nodes[top].set.State()
	if st.Epoch.Compare(w.ghost.max) < 0 {
		return // the newest epoch has been forgotten by all
	}
	p := st.Epoch.Region
	writer := w.ghost.nodes[p]
	for _, a := range allRegions {
		ga := w.ghost.nodes[a]
		if !w.memberNow(top, a) || ga.stale && (a != p || !w.acting(a)) {
			continue
		}
		for _, b := range allRegions {
			if a == b || w.ghost.nodes[b].liar || !w.memberNow(top, b) || ga.stale && ga.out[b] {
				continue
			}
			miss := ids(w.nodes[a].wrote).without(w.nodes[b].usable())
			if w.ghost.dead {
				maps.DeleteFunc(miss, func(id material.ID, _ bool) bool { return !w.anywhere(id) })
			}
			if ga.restored {
				miss = miss.without(ga.old)
			}
			if writer.stale {
				miss = miss.without(writer.old)
			}
			for id := range miss {
				if !w.ghost.nodes[b].lost[id] || w.knowsLost(p, b, id) {
					w.t.Fatalf("%s encrypted with %.8s, which %s, also active, cannot decrypt", a, id, b)
				}
			}
		}
	}
}

// knowsLost reports whether the acting primary Region has heard that a member lost a
// material, and would go on calling it active.
func (w *world) knowsLost(p, b regionName, id material.ID) bool {
	n := w.nodes[p]
	f := n.set.Fact(b)
	if !w.acting(p) || w.ghost.nodes[p].stale || n.set.Frozen() != nil || f != nil && f.Holds(id) {
		return false
	}
	next := n.set.Clone()
	_, _, err := next.Step(context.Background(), w.signer(p), w.contact(n))
	w.must(err)
	return next.Entry(b).Status == mrk.Active
}

func (w *world) anywhere(id material.ID) bool {
	return slices.ContainsFunc(allRegions, func(r regionName) bool { return w.nodes[r].token[id] })
}

func (w *world) nothingLost() {
	w.t.Helper()
	if w.ghost.dead {
		return
	}
	for id := range w.ghost.ever {
		if !w.anywhere(id) {
			w.t.Fatalf("%.8s encrypted and is in no token", id)
		}
	}
}

// frozenAnywhere reports whether some living Region has seen a fork.
func (w *world) frozenAnywhere() bool {
	return slices.ContainsFunc(allRegions, func(r regionName) bool {
		n := w.nodes[r]
		return n.exists() && n.set.Frozen() != nil
	})
}

// settled fails unless everybody agrees, after everything has arrived.
func (w *world) settled() {
	w.t.Helper()
	g := w.ghost
	if w.frozenAnywhere() {
		if !g.rolled {
			w.t.Fatalf("frozen without a restore: %+v", w.nodes[w.top()].set.Frozen())
		}
		return
	}
	var acting []regionName
	for _, r := range allRegions {
		if w.acting(r) {
			acting = append(acting, r)
		}
		n, ng := w.nodes[r], g.nodes[r]
		if n.exists() && ng.deleted != 0 && n.set.Incarnation() <= ng.deleted && n.state != "PendingDeletion" && !(ng.restored && !w.remembered(r)) {
			w.t.Fatalf("%s deleted its replica, and it is back after healing", r)
		}
	}
	switch {
	case len(acting) > 1:
		w.t.Fatalf("%v act after healing", acting)
	case len(acting) == 0:
		w.stuck()
		return
	}
	w.agreed(acting[0])
}

// remembered reports whether anybody knows that a Region deleted its incarnation.
func (w *world) remembered(r regionName) bool {
	return slices.ContainsFunc(allRegions, func(other regionName) bool {
		o := w.nodes[other]
		if o.set == nil || o.set.Fact(r) == nil {
			return false
		}
		return o.set.Fact(r).Deleted && o.set.Fact(r).Incarnation >= w.nodes[r].set.Incarnation()
	})
}

// stuck fails if nobody acts although the primary Region lives and could.
func (w *world) stuck() {
	w.t.Helper()
	if w.ghost.dead || !slices.ContainsFunc(allRegions, func(r regionName) bool { return w.nodes[r].exists() }) {
		return
	}
	st := w.nodes[w.top()].set.State()
	o := w.nodes[st.Epoch.Region]
	if !o.exists() || o.mute || o.state == "Disabled" || o.state == "PendingDeletion" || w.ghost.nodes[o.name].absent {
		return // operators have to promote somebody; to who says to have left, nobody sends anything
	}
	w.t.Fatalf("nobody acts, and %s, primary Region of epoch %s, lives and is %s", o.name, st.Epoch, o.state)
}

func (w *world) agreed(primary regionName) {
	w.t.Helper()
	p, g := w.nodes[primary], w.ghost
	st := p.set.State()
	if g.refused[st.Epoch] {
		w.t.Fatalf("the primary Region is %s, which had refused", primary)
	}
	if g.forced && !g.rolled && !g.faulty && st.Epoch.Line.Generation == 0 {
		w.t.Fatal("the primary Region does not follow from the forced promotion")
	}
	if !st.Pending.IsZero() && p.state == "Enabled" {
		w.t.Fatal("the rotation never ends")
	}
	missing := g.ever.without(p.usable())
	for _, r := range allRegions {
		if n := w.nodes[r]; r != primary && n.exists() && n.state == "Disabled" {
			missing = missing.without(n.usable()) // still in an evicted key
		}
	}
	if len(missing) > 0 && !g.dead {
		w.t.Fatalf("the primary Region lacks %d materials that encrypted", len(missing))
	}
	for _, r := range allRegions {
		w.agrees(p, r)
	}
}

func (w *world) agrees(p *node, r regionName) {
	w.t.Helper()
	n, e := w.nodes[r], p.set.Entry(r)
	if r == p.name {
		return
	}
	if !n.exists() {
		if e.Status.In() && n.state == "Gone" {
			w.t.Fatalf("%s is listed as %s, and is gone", r, e.Status)
		}
		return
	}
	if e.Status == mrk.Evicted || w.ghost.nodes[r].absent {
		return
	}
	if n.set.State().Hash() != p.set.State().Hash() {
		w.t.Fatalf("%s knows state %d of %s, the primary Region %d of %s", r, n.set.State().Seq, n.set.State().Epoch, p.set.State().Seq, p.set.State().Epoch)
	}
	if e.Status != mrk.Active {
		for id := range n.used {
			if !w.anywhere(id) {
				return // MATERIAL_LOST: waits for operators to write it off
			}
			if _, known := p.set.Known(id); !known && w.ghost.nodes[r].restored {
				return // no state that is left lists it: waits for operators to promote its Region
			}
		}
		w.t.Fatalf("%s lives, incarnation %d, %s, told %v, holding %d, and is %s, incarnation %d", r, n.set.Incarnation(), n.state, n.set.Told(), len(n.held()), e.Status, e.Incarnation)
	}
	if !maps.Equal(n.usable(), p.usable()) {
		w.t.Fatalf("%s holds %d materials, the primary Region %d", r, len(n.usable()), len(p.usable()))
	}
	if n.current != p.current && n.state == "Enabled" {
		w.t.Fatalf("%s encrypts with %.8s, the primary Region with %.8s", r, n.current, p.current)
	}
}
