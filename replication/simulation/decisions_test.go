package simulation

import (
	"context"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// What the owners of keys and the operators decide: deletions, and what to do about Regions
// that are lost.

const day = 24 * time.Hour

// operatorsDecide runs what operators have approved at the Region that acts.
func (w *world) operatorsDecide(n *node, id arn.KeyID, what string, fn func(*mrk.Set) error) bool {
	r := n.run
	err := r.svc.UpdateShared(context.Background(), id, keyops.Cause{Event: "Decision"}, func(k *keyops.Key) error { return fn(k.Set) })
	w.note("%s: %s: %v", n.name, what, err)
	return err == nil && !r.dead
}

// evict ends a membership (rule 25).
func (w *world) evict() {
	id := w.anyKey()
	n, k := w.acting(id)
	if n == nil {
		return
	}
	if to := pick(w, w.nodes); to != n && k.Set.Entry(to.name).Status.In() {
		w.evictOne(n, id, to)
	}
}

func (w *world) evictOne(n *node, id arn.KeyID, to *node) bool {
	// What only the evicted Region holds the others need not have.
	for i, l := range w.letters {
		if l.key == id && l.from == to.name {
			w.letters[i].excused = true
		}
	}
	w.ledger.evicted[membership{id, to.name}] = true
	return w.operatorsDecide(n, id, fmt.Sprintf("evict %s", to.name), func(s *mrk.Set) error {
		return s.Evict(context.Background(), n.run.svc.Signer(), to.name, false)
	})
}

// writeOff gives up a material. It is refused for what anybody is known to hold.
func (w *world) writeOff() {
	id := w.anyKey()
	n, k := w.acting(id)
	if n == nil || len(k.Set.Listed()) == 0 {
		return
	}
	w.writeOffOne(n, id, pick(w, k.Set.Listed()).ID)
}

func (w *world) writeOffOne(n *node, id arn.KeyID, m material.ID) bool {
	done := w.operatorsDecide(n, id, fmt.Sprintf("write %.8s off", m), func(s *mrk.Set) error {
		return s.WriteOff(context.Background(), n.run.svc.Signer(), m, n.run.repl.Contact(id))
	})
	if done || n.run.dead {
		w.ledger.writtenOff[m.String()] = true
	}
	return done
}

// promote makes a Region primary without the consent of the one that is (rule 17). Operators
// believe that some Regions are dark, rightly or wrongly.
func (w *world) promote() {
	n, _ := w.anyUp()
	id := w.anyKey()
	if n == nil || id == "" || n.key(id) == nil {
		return
	}
	var dark []region.Name
	for _, o := range w.nodes {
		if o != n && w.chance(30) {
			dark = append(dark, o.name)
		}
	}
	w.promoteOne(n, id, dark...)
}

func (w *world) promoteOne(n *node, id arn.KeyID, dark ...region.Name) bool {
	k := n.key(id)
	// Who approves remembers what was approved, and goes no lower. Operators of two Regions
	// that cannot talk to each other may choose the same number.
	w.generation = max(w.generation+uint64(w.rng.IntN(2)), k.Set.NextGeneration())
	list, err := mrk.NewKeyList([]mrk.ListedKey{{Key: id, Head: k.Set.Head()}})
	w.must(err)
	proof, _ := list.Prove(id)
	p := mrk.Promotion{
		Target: n.name, Instance: n.plant.descriptor.Instance, Generation: w.generation, Suspend: dark, Keys: 1, Root: list.Root(),
		Serial: approval.NewSerial(), Expires: n.clock().Add(time.Hour).Truncate(time.Second).UTC(),
	}
	files, err := n.plant.approve(context.Background(), p.Request())
	w.must(err)
	a := mrk.Approved{Promotion: p, Proof: proof, Approvals: files, Roster: n.plant.descriptor.Operators, Now: n.clock()}
	return w.operatorsDecide(n, id, fmt.Sprintf("promote, without %v", dark), func(s *mrk.Set) error {
		_, err := s.Promote(context.Background(), n.run.svc.Signer(), a, n.run.repl.Contact(id))
		return err
	})
}

// scheduleDeletion switches a replica key or a whole set off.
func (w *world) scheduleDeletion() {
	n, r := w.anyUp()
	id := w.anyKey()
	if n == nil || id == "" || n.key(id) == nil {
		return
	}
	w.answered(n, r, "schedule deletion", n.scheduleDeletion(id))
}

func (n *node) scheduleDeletion(id arn.KeyID) error {
	_, err := n.run.svc.ScheduleKeyDeletion(context.Background(), caller(), keyops.ScheduleKeyDeletionInput{KeyID: string(id), PendingWindowInDays: 7})
	return err
}

func (w *world) cancelDeletion() {
	n, r := w.anyUp()
	id := w.anyKey()
	if n == nil || id == "" || n.key(id) == nil {
		return
	}
	w.answered(n, r, "cancel deletion", n.cancelDeletion(id))
}

func (n *node) cancelDeletion(id arn.KeyID) error {
	_, err := n.run.svc.CancelKeyDeletion(context.Background(), caller(), keyops.CancelKeyDeletionInput{KeyID: string(id)})
	return err
}

// rotateByItself switches automatic rotation on.
func (w *world) rotateByItself() {
	id := w.anyKey()
	n, _ := w.acting(id)
	if n == nil {
		return
	}
	r := n.run
	_, err := r.svc.EnableKeyRotation(context.Background(), caller(), keyops.EnableKeyRotationInput{KeyID: string(id), RotationPeriodInDays: 90})
	w.answered(n, r, "rotate by itself", err)
}

// days lets waiting periods pass: that of a deletion, and that after a doubtful clock. Every
// Region that is up does what has come due, in some order.
func (w *world) days() {
	for range 2 + w.rng.IntN(4) {
		w.now = w.now.Add(time.Duration(30+w.rng.IntN(20*24)) * time.Hour)
		for range 2 {
			w.work()
		}
	}
}

// buried reports whether a key was deleted in a Region.
func (n *node) buried(id arn.KeyID) bool {
	k := n.key(id)
	return k != nil && k.Gone()
}

// funerals checks each key that is deleted somewhere now and was not before.
func (w *world) funerals(id arn.KeyID) {
	for _, n := range w.nodes {
		at := membership{id, n.name}
		if !n.buried(id) {
			delete(w.ledger.buried, at)
			continue
		}
		if w.ledger.buried[at] {
			continue
		}
		w.ledger.buried[at] = true
		if k := n.key(id); k.Set.Primary() == n.name {
			w.setDeleted(n, k)
		}
	}
}

// setDeleted is D7 of a whole set: nobody has a key of it but those whom operators have
// evicted.
func (w *world) setDeleted(n *node, k *keyops.Key) {
	w.ledger.over[k.ID] = true
	for _, o := range w.nodes {
		its := o.key(k.ID)
		if o == n || its == nil || its.Gone() || its.Set.Told() || o.doubted || w.ledger.evicted[membership{k.ID, o.name}] {
			continue
		}
		w.break_("%s has deleted the whole set of %s, and %s has a key in state %s", n.name, k.ID, o.name, its.State)
	}
}

// undecide takes back what heal does not wait for: deletions that nobody has carried out.
func (n *node) undecide() {
	for _, id := range n.w.keys {
		k := n.key(id)
		if k == nil || k.Gone() || k.Set.Told() || k.Set.Destroying() {
			continue
		}
		if k.State == keystate.PendingDeletion || k.State == keystate.PendingReplicaDeletion {
			n.w.must(n.cancelDeletion(id))
		}
	}
}
