package simulation

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/store/storetest"
)

// Regions that are initialised again, with a new token and an empty store: other instances.

// pin takes over who is there, and who is no more, as operators say it at this Region.
func (n *node) pin() {
	n.pinned = shortVerifier{pinned: map[region.Name]region.Descriptor{}, former: map[region.InstanceID]region.Descriptor{}}
	for _, o := range n.w.nodes {
		n.pinned.pinned[o.name] = o.plant.descriptor.Descriptor
	}
	for _, d := range n.w.gone {
		n.pinned.former[d.Instance] = d
	}
}

// outdated reports whether the Region has pinned an instance that is no more.
func (n *node) outdated() bool { return len(n.pinned.former) < len(n.w.gone) }

// pinAnew lets operators do so now.
func (n *node) pinAnew() {
	if !n.outdated() {
		return
	}
	if n.running() {
		n.stop()
	}
	n.pin()
	n.w.note("%s: pins anew", n.name)
	n.w.must(n.start())
}

func (w *world) pinSome() { pick(w, w.nodes).pinAnew() }

// beginAgain puts a new instance in the place of a Region's, which is gone with its token,
// its store and its audit log. Others learn of it now or later.
func (w *world) beginAgain() {
	n := pick(w, w.nodes)
	if !w.survivable(n) {
		return
	}
	w.must(w.beginAgainAt(n))
	for _, o := range w.nodes {
		if w.chance(50) {
			o.pinAnew()
		}
	}
}

// beginAgainAt does so in one Region, once, unless its token is the last that has something.
func (w *world) beginAgainAt(n *node) error {
	all, err := plants()
	if err != nil {
		return err
	}
	heir := all[n.name][generations-1]
	if n.plant.descriptor.Instance == heir.descriptor.Instance || !w.spared(n, heir.token) {
		return nil
	}
	if n.running() {
		n.stop()
	}
	n.doubt(true)
	n.unaware, n.out = false, nil
	w.gone = append(w.gone, n.plant.descriptor.Descriptor)
	n.plant = heir
	n.file = storetest.NewMemory(heir.descriptor.Instance)
	n.last = map[arn.KeyID]*keyops.Key{}
	n.fake = hsmtest.NewFake(n, hsmtest.Options{Label: string(n.name)})
	n.fake.Restore(heir.token)
	logs, err := filepath.Glob(filepath.Join(n.audit, "*"))
	w.must(err)
	for _, name := range logs {
		w.must(os.Remove(name))
	}
	w.note("%s: begins again as another instance", n.name)
	n.pin()
	first := slices.Index(w.nodes, n)
	kept := slices.DeleteFunc(slices.Clone(w.backups[len(w.nodes):]), func(b backup) bool { return b.of == n })
	w.backups = append(w.backups[:len(w.nodes):len(w.nodes)], kept...)
	w.backups[first] = w.save(n)
	return n.start()
}

// survivable reports whether every key that a Region has can be managed without it.
func (w *world) survivable(n *node) bool {
	for _, id := range w.keys {
		if k := n.key(id); k == nil || k.Gone() {
			continue
		}
		if w.heir(id, n) == nil {
			return false
		}
	}
	return true
}

// heir returns a Region that operators can promote, other than one: that with the newest state.
func (w *world) heir(id arn.KeyID, but *node) (best *node) {
	for _, o := range w.up() {
		k := o.key(id)
		if o == but || o.hostile || k == nil || o.frozen() || k.State != keystate.Enabled && k.State != keystate.Updating || k.Set.State() == nil || k.Set.Told() || k.Set.Shut() || !slices.Contains(k.Held(), k.Current) {
			continue
		}
		if best == nil || k.Set.State().Compare(best.key(id).Set.State()) > 0 {
			best = o
		}
	}
	return best
}

// present reports whether an instance is the one that its Region has now.
func (w *world) present(r region.Name, instance region.InstanceID) bool {
	n := w.node(r)
	return n != nil && n.plant.descriptor.Instance == instance
}

// renew does what operators do after a Region has begun again: they promote another one where
// it had the primary key, end the membership of the instance that is no more, and replicate to
// the new one.
func (w *world) renew() {
	for _, id := range w.keys {
		if len(w.gone) == 0 && w.pair == nil || w.ledger.over[id] {
			continue
		}
		p, k := w.acting(id)
		top := w.newest(id)
		if p == nil || p.frozen() || top != nil && top.Compare(k.Set.State()) > 0 {
			w.succeed(id) // also if some believe an instance that others know to be no more (ADR 0033)
			continue
		}
		if k.State != keystate.Enabled {
			continue
		}
		for _, n := range w.nodes {
			e := p.key(id).Set.Entry(n.name)
			at := membership{id, n.name}
			if n == p || e.Instance == "" || w.present(n.name, e.Instance) {
				continue
			}
			if e.Status.In() && !w.evictOne(p, id, n) {
				continue
			}
			if e.Status.In() {
				w.ledger.renewed[at] = true
			}
			if w.ledger.renewed[at] {
				r := p.run
				w.answered(p, r, "replicate to the new instance of "+string(n.name), p.replicateTo(id, n))
			}
		}
	}
}

// succeed promotes a Region if the one that has the primary key, or to which it was offered, is
// an instance that is no more.
func (w *world) succeed(id arn.KeyID) {
	top, h := w.newest(id), w.heir(id, w.frozen())
	if top == nil || h == nil {
		return
	}
	lost := !w.present(top.Epoch.Region, top.Entry(top.Epoch.Region).Instance) || w.node(top.Epoch.Region).frozen()
	if p := w.node(top.Epoch.Region); !lost && p.key(id) != nil {
		o, offered := p.key(id).Set.Offered()
		lost = offered && (!w.present(o.Certificate.Epoch.Region, o.Certificate.Instance) || w.node(o.Certificate.Epoch.Region).frozen())
	}
	if lost || w.cutOff(id, w.node(top.Epoch.Region), h) {
		w.promoteOne(h, id)
	}
}

// cutOff reports whether a primary Region has lost what it encrypts with, which is the one at the
// other end of a severed pair alone: its transport keys are destroyed, so nothing brings it back.
func (w *world) cutOff(id arn.KeyID, n, h *node) bool {
	p := w.pair
	if p == nil || !p.there(w) || !p.severed || !(n == p.primary && h == p.replica || n == p.replica && h == p.primary) {
		return false
	}
	lacks := func(o *node) bool {
		k := o.key(id)
		return k == nil || k.Gone() || !slices.Contains(k.Held(), h.key(id).Current)
	}
	return lacks(n) && !slices.ContainsFunc(w.nodes, func(o *node) bool { return o != h && !lacks(o) })
}

// orphaned reports whether nobody is left whom operators could promote for a key, with which
// nothing was encrypted that anybody was promised to read: its primary Region is another instance
// now, or is frozen and was restored from a backup of before the key, which it does not make again.
func (w *world) orphaned(id arn.KeyID) bool {
	top := w.newest(id)
	p := w.node(top.Epoch.Region)
	lost := !w.present(p.name, top.Entry(p.name).Instance) || p.frozen() && p.key(id) == nil
	return w.heir(id, nil) == nil && lost &&
		!slices.ContainsFunc(w.letters, func(l letter) bool { return l.key == id && !l.excused })
}
