package simulation

import (
	"context"
	"slices"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/replication"
)

// ledger is what the invariants remember of a schedule.
type ledger struct {
	states  map[stateName]*written
	objects map[string]map[place]bool // by material ID: where it was ever seen

	buried     map[membership]bool // keys that are deleted
	evicted    map[membership]bool // by operators, ever
	over       map[arn.KeyID]bool  // sets that were deleted as a whole
	writtenOff map[string]bool     // materials
	rolls      map[region.Name]int // how often a Region was rolled back without noticing
	back       map[membership]back // what a Region's store knew when it was restored last
	renewed    map[membership]bool // replicas that a new instance was given again
	wentBack   bool                // some store, ever

	frozen map[membership]*mrk.State // by which a Region acts whose management is frozen
}

// written is what there is of states with one number.
type written struct {
	states map[mrk.Hash]bool
	rolls  int // of their writer, when the last one was written
	backs  int // likewise
}

// back is how often a store was restored, and the epoch that it then knew.
type back struct {
	times int
	epoch mrk.Epoch
}

type membership struct {
	key arn.KeyID
	at  region.Name
}

type stateName struct {
	key   arn.KeyID
	epoch mrk.Epoch
	seq   uint64
}

type place struct {
	node   *node
	key    arn.KeyID
	object hsm.ID
}

func newLedger() ledger {
	return ledger{
		states: map[stateName]*written{}, frozen: map[membership]*mrk.State{}, objects: map[string]map[place]bool{},
		buried: map[membership]bool{}, evicted: map[membership]bool{}, over: map[arn.KeyID]bool{}, writtenOff: map[string]bool{}, rolls: map[region.Name]int{}, back: map[membership]back{}, renewed: map[membership]bool{},
	}
}

// check looks at every invariant of DESIGN 15 that can be seen from outside.
func (w *world) check() {
	for _, id := range w.keys {
		if w.failed != "" {
			return
		}
		w.record(id)
		w.authentic(id)
		w.funerals(id)
		w.onePrimary(id)
		w.unmanaged(id)
		w.proven(id)
		w.readable(id)
		w.nothingLost(id)
	}
	for _, n := range honest(w.nodes) {
		n.believe()
	}
	w.keepsWhatItHas()
}

// record writes down what everybody has, and compares numbers: no Region writes two states
// with one number. One that was rolled back and has not heard so may use those once more which
// it has forgotten (rule 20 is about what it has heard). So may one that was restored in an
// epoch of which it has forgotten everything: only a hand-over gives it the same one again, if
// the Region that offers it has not heard that it was accepted (rule 13). No other one ever.
func (w *world) record(id arn.KeyID) {
	for _, n := range honest(w.nodes) {
		k := n.key(id)
		if k == nil {
			continue
		}
		for _, m := range k.Materials {
			at := w.ledger.objects[m.ID.String()]
			if at == nil {
				at = map[place]bool{}
				w.ledger.objects[m.ID.String()] = at
			}
			at[place{n, id, m.Object}] = true
		}
		st := k.Set.State()
		if st == nil {
			continue
		}
		name := stateName{id, st.Epoch, st.Seq}
		all, rolls := w.ledger.states[name], w.ledger.rolls[st.Epoch.Region]
		was := w.ledger.back[membership{id, st.Epoch.Region}]
		switch {
		case all == nil:
			w.ledger.states[name] = &written{map[mrk.Hash]bool{st.Hash(): true}, rolls, was.times}
			continue
		case all.states[st.Hash()]:
			continue
		case w.node(st.Epoch.Region).hostile:
			// Contradicts itself as it likes: who meets both freezes the key.
		case rolls == all.rolls && (was.times == all.backs || was.epoch.Compare(st.Epoch) >= 0):
			w.break_("two states %d of epoch %s of %s", st.Seq, st.Epoch, id)
		}
		all.states[st.Hash()], all.rolls, all.backs = true, rolls, was.times
	}
}

// unmanaged is that a Region which knows of contradictions writes no state: it makes nobody
// active, releases nothing and admits nobody. Only operators, who promote it, open a line in which
// it goes on (rule 17).
func (w *world) unmanaged(id arn.KeyID) {
	for _, n := range honest(w.nodes) {
		k, at := n.key(id), membership{id, n.name}
		if k == nil || k.Set.Frozen() == nil || !k.Set.Acting() {
			delete(w.ledger.frozen, at)
			continue
		}
		st := k.Set.State()
		if before := w.ledger.frozen[at]; before != nil && before.Epoch.Line == st.Epoch.Line && before.Hash() != st.Hash() {
			w.break_("%s manages %s, which is frozen", n.name, id)
		}
		w.ledger.frozen[at] = st
	}
}

// onePrimary is D1: in one epoch one Region acts.
func (w *world) onePrimary(id arn.KeyID) {
	acting := map[mrk.Epoch]region.Name{}
	for _, n := range honest(w.up()) {
		k := n.key(id)
		if k == nil || !k.Set.Acting() {
			continue
		}
		if other, ok := acting[k.Set.Epoch()]; ok {
			w.break_("%s and %s act in epoch %s of %s", other, n.name, k.Set.Epoch(), id)
		}
		acting[k.Set.Epoch()] = n.name
	}
}

// proven is that nobody is counted active but by a fact of this epoch which shows that both
// sides hold what either may have used.
func (w *world) proven(id arn.KeyID) {
	for _, n := range honest(w.up()) {
		k := n.key(id)
		if k == nil || !k.Set.Acting() || k.Set.Frozen() != nil || w.spoilt(id) {
			continue // nobody is demoted while contradictions last, and nobody made active: unmanaged
		}
		st, held := k.Set.State(), k.Set.Own().Held
		for _, e := range st.Members {
			if e.Region == n.name || e.Status != mrk.Active || w.node(e.Region).hostile {
				continue // who lies about itself harms itself (PROTOCOL.md 2, acks)
			}
			f := k.Set.Fact(e.Region)
			// Rule 11 demotes nobody whose store went back to an earlier epoch: it is awaited until it
			// has joined again (rule 8), and what it encrypts before is excused (PROTOCOL.md 5, 2).
			// Nor one that follows a promotion of an instance that is no more, which is not believed
			// here (ADR 0033): nobody acts in that epoch, and operators have yet to promote another.
			left := f != nil && f.Joined != st.Epoch && !w.node(e.Region).doubted && !n.disbelieves(f.Joined, st.Epoch)
			if f == nil || left || f.Incarnation != e.Incarnation {
				w.break_("%s counts %s active, which has not joined epoch %s of %s", n.name, e.Region, st.Epoch, id)
				return
			}
			if w.external[id] {
				continue // imported material comes and goes: it proves nothing
			}
			for _, m := range held {
				if m != st.Pending && !f.Holds(m) {
					w.break_("%s counts %s active, which lacks %.8s of %s", n.name, e.Region, m, id)
				}
			}
			for _, m := range f.Used {
				if !slices.Contains(held, m) {
					w.break_("%s counts %s active, whose %.8s of %s it lacks itself", n.name, e.Region, m, id)
				}
			}
		}
	}
}

// disbelieves reports whether operators have said here that an instance is no more, whose higher
// epoch somebody follows.
func (n *node) disbelieves(joined, known mrk.Epoch) bool {
	for _, d := range n.pinned.former {
		if d.Region == joined.Region && joined.Compare(known) > 0 {
			return true
		}
	}
	return false
}

// readable is D2 and D3: what an active member encrypted, every active member decrypts.
func (w *world) readable(id arn.KeyID) {
	for _, l := range w.letters {
		if l.key != id || w.ledger.writtenOff[l.material] {
			continue
		}
		for _, n := range honest(w.nodes) {
			if !w.reads(n, l) {
				continue
			}
			k := n.key(id)
			held := slices.ContainsFunc(k.Materials, func(m keyops.Material) bool { return m.ID.String() == l.material && n.holds(k, m) })
			if !held {
				w.break_("%s, active, does not hold %.8s, with which %s, active, encrypted", n.name, l.material, l.from)
				return
			}
		}
	}
}

// reads reports whether a Region has to be able to decrypt a letter.
func (w *world) reads(n *node, l letter) bool {
	from := w.node(l.from)
	if l.excused || w.spoilt(l.key) || n.hostile || from.hostile || n.doubted || from.doubted || from.out[l.key][n.name] {
		return false
	}
	top := w.newest(l.key)
	if w.external[l.key] && top != nil && n != from && !listsMaterial(top, l.material) {
		return false // whose bytes only the owner can bring, when the status has said so: checked after healing
	}
	return w.active(top, n, l.key) && (n == from || w.active(top, from, l.key))
}

func listsMaterial(st *mrk.State, m string) bool {
	return slices.ContainsFunc(st.Materials, func(l mrk.Listed) bool { return l.ID.String() == m })
}

func (w *world) active(top *mrk.State, n *node, id arn.KeyID) bool {
	k := n.key(id)
	if k == nil || top == nil || k.State != keystate.Enabled && k.State != keystate.Updating {
		return false
	}
	if w.external[id] && (len(n.wanted(k)) > 0 || k.Set.State() == nil || k.Set.State().Hash() != top.Hash()) {
		return false // waits for an import, or will once it has heard
	}
	e := top.Entry(n.name)
	return e.Status == mrk.Active && e.Incarnation == k.Set.Incarnation()
}

// nothingLost is that whatever encrypted is in some token. Imported material is its owner's to
// delete, and to keep (PROTOCOL.md 2): what was not deleted opens everywhere after healing.
func (w *world) nothingLost(id arn.KeyID) {
	seen := map[string]bool{}
	for _, l := range w.letters {
		if l.key != id || l.excused && w.robbed || w.spoilt(id) || w.external[id] || seen[l.material] || w.ledger.over[id] || w.ledger.writtenOff[l.material] {
			continue
		}
		seen[l.material] = true
		if !w.somewhere(l.material, nil) {
			w.break_("material %.8s of %s encrypted and is in no token", l.material, id)
			return
		}
	}
}

// somewhere reports whether a material is in any token but one.
func (w *world) somewhere(m string, but *node) bool {
	for at := range w.ledger.objects[m] {
		if at.node == but || but != nil && !at.node.keeps(at.key) {
			continue // or it may be gone the next moment
		}
		if _, err := at.node.fake.Lookup(context.Background(), at.object); err == nil {
			return true
		}
	}
	return false
}

// spared reports whether a token can go back to what a snapshot holds without the loss of
// anything that no other token has: that fault nothing survives (PROTOCOL.md 5, 7).
func (w *world) spared(n *node, s hsmtest.Snapshot) bool {
	kept := hsmtest.NewFake(n, hsmtest.Options{})
	kept.Restore(s)
	for m, places := range w.ledger.objects {
		for at := range places {
			if at.node != n {
				continue
			}
			_, had := n.fake.Lookup(context.Background(), at.object)
			_, has := kept.Lookup(context.Background(), at.object)
			if had == nil && has != nil && !w.somewhere(m, n) {
				return false
			}
		}
	}
	return true
}

// doubt excuses a Region whose store or token went back in time, until the primary Region
// knows of it: what it encrypted before others may not have, and it may lack what it had.
func (n *node) doubt(really bool) {
	if !really {
		return
	}
	n.doubted = true
	for i := range n.w.letters {
		if n.w.letters[i].from == n.name {
			n.w.letters[i].excused = true
		}
	}
}

// recallOut notes whom a restored primary Region does not wait for.
func (n *node) recallOut() {
	n.out = map[arn.KeyID]map[region.Name]bool{}
	for _, id := range n.w.keys {
		k := n.key(id)
		if k == nil || k.Set.State() == nil || k.Set.Primary() != n.name {
			continue
		}
		n.out[id] = map[region.Name]bool{}
		for _, o := range n.w.nodes {
			if e := k.Set.Entry(o.name); !e.Status.Awaited() {
				n.out[id][o.name] = true
			}
		}
	}
}

// believe ends a doubt once the primary Region of every key knows the Region's newest word
// and counts it active all the same.
func (n *node) believe() {
	if !n.doubted || !n.running() || n.unaware && !n.informed() {
		return
	}
	n.unaware = false
	for _, id := range n.w.keys {
		k := n.key(id)
		if k == nil {
			if top := n.w.newest(id); top != nil && top.Entry(n.name).Status.In() {
				return // it has yet to hear that it had the key
			}
			continue
		}
		p, its := n.w.acting(id)
		if p == nil || p.doubted && p != n || its.Set.Frozen() != nil {
			return // or it cannot demote whom it knows to have lost something
		}
		known, own := its.Set.Fact(n.name), k.Set.Own()
		if known == nil || own == nil || known.Hash() != own.Hash() ||
			k.Set.State().Hash() != its.Set.State().Hash() || its.Set.Entry(n.name).Status != mrk.Active {
			return
		}
	}
	n.doubted = false
}

// informed reports whether a Region has heard all others since its start.
func (n *node) informed() bool {
	for _, id := range n.w.keys {
		heard := n.run.repl.Contact(id).Heard
		for _, o := range n.w.nodes {
			if o != n && !heard(o.name) {
				return false
			}
		}
	}
	return true
}

// converged is what must be true once nothing goes wrong any more.
func (w *world) converged() {
	w.apart()
	for _, id := range w.keys {
		if w.ledger.over[id] {
			continue
		}
		top := w.newest(id)
		if top == nil {
			continue // lost with the only store that ever knew of it
		}
		p, pk := w.acting(id)
		if p == nil && w.orphaned(id) || (p == nil || p.frozen()) && w.keptByTheFrozen(id) {
			// Nobody can manage it any more, and it is used as it is: a frozen instance changes no shared
			// property and hands nothing over (PROTOCOL.md 2, disassociation). It has it alone only if it
			// forgot that it is frozen, or the others lost it: keepsWhatItHas.
			w.ledger.over[id] = true
			continue
		}
		if p == nil {
			w.break_("nobody acts as the primary Region of %s", id)
			return
		}
		if top.Compare(pk.Set.State()) != 0 {
			w.break_("%s acts by an old state of %s", p.name, id)
		}
		for _, e := range top.Members {
			w.same(id, p, pk, e)
		}
		for _, n := range honest(w.nodes) {
			if w.ledger.renewed[membership{id, n.name}] && !top.Entry(n.name).Status.In() {
				w.break_("%s was given %s again, and does not have it", n.name, id)
			}
		}
		for _, l := range w.letters {
			// Of an import that a restored store has forgotten nothing says what its object is, if no
			// other Region has it either (ADR 0024): its owner imports it anew. What any member says
			// that it has used is listed: same.
			if l.key == id && !w.ledger.writtenOff[l.material] && !(w.external[id] && l.excused && !listsMaterial(top, l.material)) {
				w.readEverywhere(l, top)
			}
		}
	}
	for _, n := range honest(w.nodes) {
		m := slices.DeleteFunc(n.marks(), func(m keyops.Mark) bool {
			return w.ledger.over[m.Key] || n.keepsUnlisted(m.Key) || w.node(m.Peer).hostile
		})
		if len(m) > 0 {
			w.break_("%s still has %d marks, the first for %s: %s %s", n.name, len(m), m[0].Peer, m[0].Cause, m[0].Text)
		}
	}
}

// same compares a member with the primary Region.
func (w *world) same(id arn.KeyID, p *node, pk *keyops.Key, e mrk.Entry) {
	n := w.node(e.Region)
	if !e.Status.In() || n.hostile {
		return
	}
	// A frozen instance imports nothing any more (docs/synchronization.md): what others have
	// imported since may be missing there, and is waited for until operators evict it.
	imports := !w.external[id] || !n.frozen()
	k := n.key(id)
	switch {
	case e.Instance != n.plant.descriptor.Instance:
		w.break_("%s lists an instance of %s that is no more", p.name, n.name)
	case k == nil:
		w.break_("%s lists %s, which does not have %s", p.name, n.name, id)
	case imports && e.Status != mrk.Active:
		w.break_("%s is %s in %s", n.name, e.Status, id)
	case k.Set.Hash() != pk.Set.Hash():
		w.break_("%s and %s know different facts of %s", p.name, n.name, id)
	case k.Set.Frozen() != nil:
		w.break_("%s has %s frozen: %s of %s", n.name, id, k.Set.Frozen().Cause, k.Set.Frozen().Writer)
	case !imports, n.frozen() && k.State != keystate.Enabled:
		return // as it was
	case k.State != keystate.Enabled:
		w.break_("%s in %s is %s", id, n.name, k.State)
	case len(k.Set.Orphans()) > 0:
		w.break_("%s has %.8s of %s used and not listed", n.name, k.Set.Orphans(), id)
	case k.Current != pk.Current || len(k.Held()) != len(pk.Held()):
		w.break_("%s holds %d and uses %.8s, %s holds %d and uses %.8s", n.name, len(k.Held()), k.Current, p.name, len(pk.Held()), pk.Current)
	}
	if w.failed != "" {
		return
	}
	for _, row := range n.run.repl.Status(id) {
		if row.Status != replication.StatusSynchronized && !w.node(row.Region).hostile && !(w.external[id] && w.node(row.Region).frozen()) {
			w.break_("%s shows %s in %s as %s %s %s", n.name, row.Region, id, row.Status, row.Cause, row.Text)
		}
	}
}

// readEverywhere opens a letter at every member.
func (w *world) readEverywhere(l letter, top *mrk.State) {
	for _, n := range w.nodes {
		k := n.key(l.key)
		if k == nil || n.frozen() && k.State != keystate.Enabled {
			continue
		}
		if n.hostile || top.Entry(n.name).Status != mrk.Active || w.failed != "" {
			continue
		}
		if _, err := w.open(n.run, l); err != nil {
			w.break_("after healing %s cannot decrypt what %s encrypted: %v", n.name, l.from, err)
		}
	}
}
