package mrk_test

import (
	"slices"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// A deed is what one Region was, and what it is after something happened.
type deed struct {
	node    *node
	ghost   *nodeGhost
	seen    *mrk.Set // as pointed to then; another one is put in its place by every change
	old     *mrk.Set
	state   string // of the key, before
	usable  ids    // before
	current material.ID
}

// now is what the Region knows after it.
func (d deed) now() *mrk.Set { return d.node.set }

func (d deed) enabled() bool { return d.state == "Enabled" || d.state == "Updating" }

// deeds compares what each Region is with what it was when this was asked last, and fails if
// no rule leads from the one to the other. Who puts a backup back clears what was seen.
func (w *world) deeds() {
	w.t.Helper()
	for _, r := range allRegions {
		n, g := w.nodes[r], w.ghost.nodes[r]
		if n.set == nil || g.last != nil && g.last.seen == n.set && g.last.state == n.state {
			continue
		}
		if g.last != nil {
			w.judge(*g.last)
		}
		g.last = &deed{node: n, ghost: g, seen: n.set, old: n.set.Clone(), state: n.state, usable: n.usable(), current: n.current}
		w.proofs(n)
	}
}

func (w *world) judge(d deed) {
	w.t.Helper()
	w.forgetsNothing(d)
	w.chained(d.now())
	if d.old.State() == nil {
		return
	}
	if _, before := d.old.Offered(); !before {
		if o, yes := d.now().Offered(); yes {
			w.offers(d, o)
		}
	}
	switch {
	case !d.now().Acting():
	case d.now().Epoch() != d.old.Epoch():
		w.begins(d)
	case d.old.Acting():
		w.manages(d)
	}
	w.writes(d)
}

// forgetsNothing is about what a Region knows: it only grows, but for what a backup takes away.
func (w *world) forgetsNothing(d deed) {
	w.t.Helper()
	name, old, now := d.node.name, d.old, d.now()
	if now.Epoch().Compare(old.Epoch()) < 0 {
		w.t.Fatalf("%s goes back from epoch %s to %s", name, old.Epoch(), now.Epoch())
	}
	if old.State() != nil && now.State().Compare(old.State()) < 0 {
		w.t.Fatalf("%s goes back from state %d of %s to %d of %s", name, old.State().Seq, old.State().Epoch, now.State().Seq, now.State().Epoch)
	}
	for _, r := range allRegions {
		was, is := old.Fact(r), now.Fact(r)
		if was != nil && was.Deleted && (is.Incarnation < was.Incarnation || is.Incarnation == was.Incarnation && !is.Deleted) {
			w.t.Fatalf("%s knew that %s has deleted incarnation %d, and believes that it lives", name, r, was.Incarnation)
		}
	}
	if mrk.StalePermit(now) {
		w.t.Fatalf("%s keeps the permit of an epoch that is over, in %s", name, now.Epoch())
	}
	if own := now.Own(); now.Destroying() && own != nil && len(own.Held) > 0 {
		w.t.Fatalf("%s is destroying its key, and says that it holds %d materials", name, len(own.Held))
	}
}

// chained is about the certificates that a Region believes: each follows the one before.
func (w *world) chained(s *mrk.Set) {
	w.t.Helper()
	chain := s.Facts(mrk.Hash{}).Certificates
	for i, c := range chain {
		if i > 0 && c.Parent != chain[i-1].Hash() {
			w.t.Fatalf("%s believes epoch %s, which does not follow %s", s.Self().Region, c.Epoch, chain[i-1].Epoch)
		}
		if !mrk.Approves(c) {
			w.t.Fatalf("%s believes epoch %s, which operators have approved after something else", s.Self().Region, c.Epoch)
		}
		if r, burnt := w.ghost.burnt[number{c.Epoch.Line, c.Epoch.Number}]; burnt && !w.ghost.rolled {
			w.t.Fatalf("%s believes epoch %s, whose number %s has refused", s.Self().Region, c.Epoch, r)
		}
	}
}

// number is what an epoch is called within its line, by which Region and nonce soever.
type number struct {
	line   mrk.Line
	number uint64
}

// offers is rule 12: what is handed over is Enabled, and goes to who is as good as the Region
// that offers it.
func (w *world) offers(d deed, o mrk.Offer) {
	w.t.Helper()
	name, to := d.node.name, o.Certificate.Epoch.Region
	if !d.enabled() {
		w.t.Fatalf("%s hands its key over, which is %s", name, d.state)
	}
	if e := d.old.Entry(to); e.Status != mrk.Active {
		w.t.Fatalf("%s hands its key over to %s, which is %s", name, to, e.Status)
	}
	w.remembers(d, "hands its key over")
}

// begins is about a Region that acts in an epoch of its own.
func (w *world) begins(d deed) {
	w.t.Helper()
	name, st := d.node.name, d.now().State()
	chain := d.now().Facts(mrk.Hash{}).Certificates
	c := chain[len(chain)-1]
	_, forced := c.ForcedBy()
	if !st.Current.IsZero() && !d.node.usable()[st.Current] {
		w.t.Fatalf("%s begins epoch %s, and lacks what it says to encrypt with", name, st.Epoch)
	}
	switch {
	case forced:
		if !d.enabled() {
			w.t.Fatalf("%s was promoted while its key is %s", name, d.state)
		}
		if d.old.Acting() && d.old.Frozen() == nil {
			w.t.Fatalf("%s was promoted, and acted already", name)
		}
		if d.current.IsZero() || !d.usable[d.current] {
			w.t.Fatalf("%s was promoted without the material that it encrypts with", name)
		}
		if g := st.Epoch.Line.Generation; g <= d.old.Epoch().Line.Generation {
			w.t.Fatalf("%s was promoted to generation %d, which is known already", name, g)
		}
	case d.old.Primary() != name:
		w.takesOver(d, c)
	default:
		if _, offered := d.old.Offered(); !offered {
			w.remembers(d, "renews")
		}
	}
}

// takesOver is rule 13: the new epoch goes on where the one before ended, at a member that was
// as good as the one that offered the key.
func (w *world) takesOver(d deed, c mrk.Certificate) {
	w.t.Helper()
	name, e := d.node.name, d.old.Entry(d.node.name)
	if !d.enabled() {
		w.t.Fatalf("%s took the key over, which is %s", name, d.state)
	}
	if c.Final != d.old.State().Hash() {
		w.t.Fatalf("%s took the key over without knowing what it is", name)
	}
	if e.Status != mrk.Active || e.Incarnation != d.old.Incarnation() {
		w.t.Fatalf("%s took the key over, and was incarnation %d, listed is %d, %s", name, d.old.Incarnation(), e.Incarnation, e.Status)
	}
	for _, m := range d.old.Listed() {
		if !m.WrittenOff && !d.usable[m.ID] {
			w.t.Fatalf("%s took the key over, and lacks %.8s", name, m.ID)
		}
	}
}

// manages is about what an acting Region writes in its epoch.
func (w *world) manages(d deed) {
	w.t.Helper()
	name, old, st := d.node.name, d.old.State(), d.now().State()
	if st == old || st.Hash() == old.Hash() {
		return
	}
	if st.Pending != old.Pending && !st.Pending.IsZero() {
		if !d.enabled() {
			w.t.Fatalf("%s rotates its key, which is %s", name, d.state)
		}
		if !old.Pending.IsZero() {
			w.t.Fatalf("%s rotates its key while another rotation is under way", name)
		}
	}
	if st.Current != old.Current {
		w.remembers(d, "releases a material")
	}
	for _, m := range st.Materials {
		i := slices.IndexFunc(old.Materials, func(o mrk.Listed) bool { return o.ID == m.ID })
		if m.WrittenOff && (i < 0 || !old.Materials[i].WrittenOff) {
			w.writesOff(d, m.ID)
		}
	}
}

// writesOff is what operators may decide about a material that nobody has any more.
func (w *world) writesOff(d deed, id material.ID) {
	w.t.Helper()
	name, st := d.node.name, d.old.State()
	if id == st.Current || id == st.Pending {
		w.t.Fatalf("%s gives %.8s up, which is in use", name, id)
	}
	for _, r := range allRegions {
		n, known := w.nodes[r], d.now().Fact(r)
		if known != nil && n.exists() && n.usable()[id] && n.set.Own().Hash() == known.Hash() {
			w.t.Fatalf("%s gives %.8s up, which %s holds", name, id, r)
		}
	}
	w.remembers(d, "gives a material up")
}

// word is what a Region knows, and what it has said of itself.
type word struct {
	state *mrk.State
	own   *mrk.Member
}

// starts notes what the others know and have said when a Region starts.
func (w *world) starts(r regionName) {
	g := w.ghost.nodes[r]
	g.missed = map[regionName]word{}
	for _, other := range allRegions {
		if o := w.nodes[other]; other != r && o.set != nil && o.set.State() != nil && o.set.Concerns(r) {
			g.missed[other] = word{o.set.State(), o.set.Own()}
		}
	}
}

// goesBack notes that a backup was put back in a Region: it starts, what it has seen does not
// count, and what others had heard of it may be known no more.
func (w *world) goesBack(r regionName) {
	for _, g := range w.ghost.nodes {
		delete(g.missed, r)
	}
	w.ghost.nodes[r].last = nil
	w.starts(r)
}

// remembers fails if a Region does, before it knows what the others knew when it started, what
// it may only do when it has heard them.
func (w *world) remembers(d deed, what string) {
	w.t.Helper()
	for r, missed := range d.ghost.missed {
		switch d.old.Entry(r).Status {
		case mrk.Suspended, mrk.Evicted, mrk.Retained:
			continue
		}
		if d.old.State().Compare(missed.state) < 0 {
			w.t.Fatalf("%s %s, and does not know state %d of %s, which %s knew when it started", d.node.name, what, missed.state.Seq, missed.state.Epoch, r)
		}
		if m := d.old.Fact(r); missed.own != nil && (m == nil || m.Compare(missed.own) < 0) {
			w.t.Fatalf("%s %s, and has not heard what %s had said when it started", d.node.name, what, r)
		}
	}
}

// writes is about what an acting Region says of members, in its epoch or as it begins one.
func (w *world) writes(d deed) {
	w.t.Helper()
	name, st := d.node.name, d.now().State()
	if !d.now().Acting() || st.Hash() == d.old.State().Hash() {
		return
	}
	for _, r := range allRegions {
		was, is := d.old.Entry(r), d.now().Entry(r)
		if was.Status != is.Status || was.Incarnation != is.Incarnation {
			w.becomes(d, was, is)
		}
		if key := [2]regionName{name, r}; is.Status == mrk.Suspended && was.Status != mrk.Suspended {
			w.ghost.suspended[key] = st
		} else if is.Status != mrk.Suspended {
			delete(w.ghost.suspended, key)
		}
	}
}

// becomes fails if a member cannot become what a state says of it.
func (w *world) becomes(d deed, was, is mrk.Entry) {
	w.t.Helper()
	r := is.Region
	fail := func(why string) {
		w.t.Helper()
		w.t.Fatalf("%s says that %s, incarnation %d, is %s; it was incarnation %d, %s: %s",
			d.node.name, r, is.Incarnation, is.Status, was.Incarnation, was.Status, why)
	}
	switch {
	case r == d.node.name:
	case is.Incarnation < was.Incarnation:
		fail("incarnations grow")
	case !was.Status.In() && is.Status != mrk.Removed && !is.Status.In():
		fail("only a member can be evicted")
	case !was.Status.In() && is.Incarnation == was.Incarnation && is.Status.In() && was.Status != mrk.Removed:
		fail("who was evicted is replicated to again")
	case was.Status == mrk.Suspended && is.Status == mrk.Active:
		since, n := w.ghost.suspended[[2]regionName{d.node.name, r}], w.nodes[r]
		if since != nil && !w.ghost.nodes[r].restored && n.set.State().Compare(since) < 0 {
			fail("it has not heard since that it was suspended")
		}
	}
}

// proofs asks the rule by which members become active about all of them, whatever the order in
// which the rules are applied: who is proven lives, and has used nothing that others lack.
func (w *world) proofs(n *node) {
	w.t.Helper()
	if !n.set.Acting() || n.set.Frozen() != nil {
		return
	}
	for _, r := range allRegions {
		e, m := n.set.Entry(r), n.set.Fact(r)
		if r == n.name || !e.Status.In() || m == nil || !mrk.Proven(n.set, r) {
			continue
		}
		if m.Deleted {
			w.t.Fatalf("%s calls %s proven, which has deleted its key", n.name, r)
		}
		for _, y := range allRegions {
			other, its := n.set.Entry(y), n.set.Fact(y)
			if y == r || y == n.name || other.Status != mrk.Active || its == nil || its.Deleted && its.Incarnation >= other.Incarnation {
				continue
			}
			for _, id := range m.Used {
				l := slices.IndexFunc(n.set.Listed(), func(l mrk.Listed) bool { return l.ID == id && l.WrittenOff })
				if l < 0 && !its.Holds(id) {
					w.t.Fatalf("%s calls %s proven, which has used %.8s, which %s, also active, lacks", n.name, r, id, y)
				}
			}
		}
	}
}

// readied is rule 6, at the moment in which a replica leaves Creating.
func (w *world) readied(n *node) {
	w.t.Helper()
	if w.ghost == nil {
		return
	}
	for _, m := range n.set.Listed() {
		if !m.WrittenOff && !n.usable()[m.ID] {
			w.t.Fatalf("%s is ready, and lacks %.8s", n.name, m.ID)
		}
	}
}

// destroys is rule 22: what a replica held is, at this moment, where somebody acts.
func (w *world) destroys(n *node) {
	w.t.Helper()
	if w.ghost == nil {
		return
	}
	held := n.usable()
	if n.set.Primary() == n.name && !n.set.Told() {
		w.t.Fatalf("%s destroys the primary key as if it were a replica", n.name)
	}
	if len(held) > 0 && !slices.ContainsFunc(allRegions, func(r regionName) bool {
		o := w.nodes[r]
		return r != n.name && o.exists() && o.set.Acting() && len(held.without(o.usable())) == 0
	}) {
		w.t.Fatalf("%s destroys %d materials, which nobody holds who acts", n.name, len(held))
	}
}

// destroysSet is rule 24: nobody else has the key, or is to have it, but who was evicted, or has
// deleted it and does not remember.
func (w *world) destroysSet(n *node) {
	w.t.Helper()
	for _, r := range allRegions {
		e, m := n.set.Entry(r), n.set.Fact(r)
		switch {
		case r == n.name:
		case e.Status.In() && (m == nil || !m.Deleted || m.Incarnation < e.Incarnation):
			w.t.Fatalf("%s destroys the primary key, and lists %s as %s", n.name, r, e.Status)
		case e.Status != mrk.Evicted && w.nodes[r].exists() && !w.nodes[r].set.Told():
			w.t.Fatalf("%s destroys the primary key, which %s, listed as %s, has, too", n.name, r, e.Status)
		}
	}
}
