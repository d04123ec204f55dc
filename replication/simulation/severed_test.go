package simulation

import (
	"context"
	"slices"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/synchronization"
	"github.com/keyferry/keyferry/keyops/transport"
)

// A primary instance that keeps a replica instance supplied, and disassociates it for good.

// pair is the one association of a schedule.
type pair struct {
	primary, replica *node
	id               synchronization.ID
	of               [2]region.InstanceID // primary's, replica's
	severed          bool                 // the call was made, and perhaps had no effect
}

// there reports whether both instances are still those of their Regions.
func (p *pair) there(w *world) bool {
	return w.present(p.primary.name, p.of[0]) && w.present(p.replica.name, p.of[1])
}

// associate makes one Region supply another with all its keys.
func (w *world) associate(p, r *node) {
	ctx := context.Background()
	w.everybody() // a replica instance has to answer
	made, err := p.run.svc.CreateSynchronization(ctx, caller(), keyops.CreateSynchronizationInput{})
	w.must(err)
	_, err = p.run.svc.AssociateReplicaInstance(ctx, caller(), keyops.AssociateReplicaInstanceInput{
		SynchronizationID: string(made.Synchronization.ID), ReplicaInstance: string(r.name), SynchronizationType: synchronization.AllResources,
	})
	w.must(err)
	w.note("%s supplies %s", p.name, r.name)
	w.pair = &pair{primary: p, replica: r, id: made.Synchronization.ID, of: [2]region.InstanceID{p.plant.descriptor.Instance, r.plant.descriptor.Instance}}
}

// disassociate ends it, with the approvals of the replica instance's operators.
func (w *world) disassociate() {
	if p := w.pair; p != nil && p.primary.running() && p.there(w) {
		w.disassociateOnce()
	}
}

func (w *world) disassociateOnce() bool {
	n, replica := w.pair.primary, w.pair.replica
	r := n.run
	in := keyops.DisassociateReplicaInstanceInput{
		SynchronizationID: string(w.pair.id), ReplicaInstance: string(replica.name), ConfirmInstanceID: string(w.pair.of[1]),
	}
	call := func(a keyops.Approvals) (keyops.DisassociateReplicaInstanceOutput, error) {
		in.Approvals = a
		return r.svc.DisassociateReplicaInstance(context.Background(), caller(), in)
	}
	out, err := call(keyops.Approvals{Request: true})
	if err == nil {
		var q approval.Request
		w.must(statement.UnmarshalJSON(out.ApprovalRequest, &q))
		files := replica.approvals(q)
		w.meanwhile(20)
		if r.dead {
			return false
		}
		_, err = call(keyops.Approvals{Files: files})
	}
	done := w.answered(n, r, "disassociate "+string(replica.name), err)
	w.pair.severed = w.pair.severed || done || r.dead
	return done
}

// disassociateAgain repeats the call that the replica instance has not accepted, or that the
// primary instance has forgotten before anybody else knew.
func (w *world) disassociateAgain() {
	if w.pair == nil {
		return
	}
	r := w.pair.replica
	for _, id := range w.keys {
		p, k := w.acting(id)
		if p == nil || p == r || !r.frozen() || !k.Set.Entry(r.name).Status.In() {
			continue
		}
		if its := r.key(id); its == nil || its.Gone() {
			w.evictOne(p, id, r) // which was listed while nobody could know that it takes no key any more
		}
	}
	if !w.pair.there(w) {
		return
	}
	if s, known := w.pair.known(w.pair.primary); w.pair.severed && !(known && s.Frozen()) {
		for _, id := range w.keys {
			if k := r.key(id); k != nil && !k.Gone() && k.Set.Primary() == r.name {
				if h := w.heir(id, r); h != nil {
					w.promoteOne(h, id) // or it refuses, since nobody could manage the key any more
				}
			}
		}
		w.disassociateOnce()
	}
}

// evictSevered ends memberships in which nothing can come to what the pair has left: the transport
// keys between the two are destroyed, also where backups have made everybody forget why
// (docs/synchronization.md). The new instance of a Region has transport keys of its own.
func (w *world) evictSevered() {
	if w.pair == nil || !w.pair.there(w) || !w.pair.severed || w.pair.replica.frozen() {
		return
	}
	for _, id := range w.keys {
		p, k := w.acting(id)
		if p != w.pair.primary && p != w.pair.replica {
			continue
		}
		other := w.pair.primary
		if p == other {
			other = w.pair.replica
		}
		row := p.status(id, other.name)
		gone := row.Cause == string(mrk.CauseReplicaFrozen) || row.Cause == string(mrk.CauseTransportKeyMissing)
		if e := k.Set.Entry(other.name); gone && e.Status.In() && e.Status != mrk.Active {
			w.evictOne(p, id, other)
		}
	}
}

// known returns what a Region knows of the severance.
func (p *pair) known(n *node) (synchronization.Severed, bool) {
	list := n.run.svc.Severed()
	i := slices.IndexFunc(list, func(s synchronization.Severed) bool {
		return s.Primary.Instance == p.of[0] && s.Replica.Instance == p.of[1]
	})
	if i < 0 {
		return synchronization.Severed{}, false
	}
	return list[i], true
}

// frozen reports whether a Region that is up was disassociated and has accepted it.
func (n *node) frozen() bool {
	p := n.w.pair
	if p == nil || p.replica != n || !p.severed || !n.running() {
		return false
	}
	s, known := p.known(n)
	return known && s.Frozen() && n.w.present(n.name, p.of[1])
}

// keepsUnlisted reports whether a frozen instance has a key of which it is no member any more.
// It is a stranger to those who have forgotten who admitted it, and ReplicateKey to a frozen
// instance is refused: the key stays as it is (docs/synchronization.md), and its peers take
// nothing that it shows of it.
func (n *node) keepsUnlisted(id arn.KeyID) bool {
	top := n.w.newest(id)
	return n.frozen() && top != nil && !top.Entry(n.name).Status.In()
}

// keepsWhatItHas is what a frozen instance promises: it acts for no key. One that had made it
// while its own store, put back, had made it forget that it is frozen stops in its next run of due work:
// apart looks at those after healing.
func (w *world) keepsWhatItHas() {
	if w.failed != "" || w.pair == nil || w.pair.replica.wentBack || !w.pair.replica.frozen() {
		return
	}
	n := w.pair.replica
	for _, id := range w.keys {
		if k := n.key(id); k != nil && k.Set.Acting() && !n.doubted {
			w.break_("%s, which is frozen, acts as the primary Region of %s", n.name, id)
		}
	}
}

// apart is what a disassociation promises once everybody has heard of it: all Regions know
// the pair, the replica instance has accepted it, is a member of no key of the primary
// instance, uses what it has, and refuses changes; and no key between the two is left.
func (w *world) apart() {
	p := w.pair
	if p == nil || !p.there(w) {
		return // who is no more can tell nobody, and need not be told
	}
	var all [][]synchronization.Severed
	for _, n := range w.nodes {
		all = append(all, n.run.svc.Severed())
		if diff := cmp.Diff(all[0], all[len(all)-1]); diff != "" {
			w.break_("%s and %s know other severed pairs: %s", w.nodes[0].name, n.name, diff)
			return
		}
	}
	if len(all[0]) == 0 {
		return
	}
	primary := func(id arn.KeyID) bool {
		k := p.replica.key(id)
		return k != nil && !k.Gone() && k.Set.Primary() == p.replica.name
	}
	// All keys that it has, also those whose CreateKey was never answered.
	if slices.ContainsFunc(p.replica.run.svc.SharedKeys(), primary) {
		return // and nobody else can be: it has not accepted it then
	}
	_, err := p.primary.run.svc.GetSynchronization(context.Background(), caller(), keyops.GetSynchronizationInput{SynchronizationID: string(p.id)})
	if err != nil && !all[0][0].Frozen() {
		return // a store of before it was made is back, and nobody can make the call again
	}
	if !all[0][0].Frozen() {
		w.break_("%s has not accepted that it is disassociated", p.replica.name)
		return
	}
	for _, id := range w.keys {
		if k := p.replica.key(id); k != nil && k.Set.Acting() {
			w.break_("%s, which is frozen, acts as the primary Region of %s", p.replica.name, id)
		}
		if k := p.primary.key(id); k != nil && k.Set.Acting() && k.Set.Entry(p.replica.name).Status.In() {
			w.break_("%s lists %s, from which it is severed, in %s", p.primary.name, p.replica.name, id)
		}
		w.standsStill(p.replica, id)
	}
	for _, pair := range [][2]*node{{p.primary, p.replica}, {p.replica, p.primary}} {
		other := transport.EndOf(pair[1].plant.descriptor.Descriptor)
		for _, k := range pair[0].plant.transport.All() {
			if _, err := pair[0].fake.Lookup(context.Background(), k.ID); err == nil && (k.Name.Source == other || k.Name.Destination == other) {
				w.break_("%s still has transport key %s, with an instance from which it is severed", pair[0].name, k.Name)
				return
			}
		}
	}
}

// standsStill checks that a frozen instance encrypts and decrypts with a key that it has, and
// refuses to change it.
func (w *world) standsStill(n *node, id arn.KeyID) {
	k := n.key(id)
	if k == nil || k.Gone() {
		return
	}
	if _, err := n.run.svc.PutKeyPolicy(context.Background(), caller(), keyops.PutKeyPolicyInput{KeyID: string(id), Policy: openPolicy}); err == nil {
		w.break_("%s, which is frozen, has changed %s", n.name, id)
	}
	for _, m := range k.Materials {
		for _, l := range w.letters {
			if l.key == id && l.material == m.ID.String() && n.holds(k, m) && k.State == "Enabled" {
				if _, err := w.open(n.run, l); err != nil {
					w.break_("%s, which is frozen, does not decrypt what it holds: %v", n.name, err)
				}
			}
		}
	}
}

// frozen returns the Region whose instance is frozen, or nil.
func (w *world) frozen() *node {
	if w.pair == nil || !w.pair.replica.frozen() {
		return nil
	}
	return w.pair.replica
}

// keptByTheFrozen reports whether a frozen instance has a key and nobody else who could be
// promoted does.
func (w *world) keptByTheFrozen(id arn.KeyID) bool {
	n := w.frozen()
	return n != nil && n.key(id) != nil && w.heir(id, n) == nil
}
