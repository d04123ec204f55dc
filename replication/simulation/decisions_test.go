package simulation

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// What the owners of keys and the operators decide: deletions, and what to do about Regions
// that are lost.

const day = 24 * time.Hour

// approved makes a call that takes approvals: it asks what is to be approved, has operators
// approve that, and calls again. Meanwhile the world goes on.
func (n *node) approved(r *run, call func(keyops.Approvals) ([]byte, error)) error {
	request, err := call(keyops.Approvals{Request: true})
	if err != nil {
		return err
	}
	var q approval.Request
	if err := statement.UnmarshalJSON(request, &q); err != nil {
		return err
	}
	files := n.approvals(q)
	n.w.meanwhile(20)
	if r.dead {
		return errDied
	}
	_, err = call(keyops.Approvals{Files: files})
	return err
}

// approvals are those of enough operators of the Region, and sometimes of all.
func (n *node) approvals(q approval.Request) [][]byte {
	d := n.plant.descriptor.Operators
	many := d.Threshold
	if n.w.chance(20) {
		many = len(d.Operators)
	}
	var files [][]byte
	for _, i := range n.w.rng.Perm(len(d.Operators))[:many] {
		f, err := approval.Sign(context.Background(), n.plant.operators[i], q)
		n.w.must(err)
		b, err := statement.MarshalJSON(f)
		n.w.must(err)
		files = append(files, b)
	}
	return files
}

// suspend does what operators do with a Region that is dark for long.
func (w *world) suspend() {
	id := w.anyKey()
	n, k := w.acting(id)
	if n == nil {
		return
	}
	if to := pick(w, w.nodes); to != n && k.Set.Entry(to.name).Status.In() {
		w.suspendOne(n, id, to)
	}
}

func (w *world) suspendOne(n *node, id arn.KeyID, to *node) bool {
	r := n.run
	return w.answered(n, r, fmt.Sprintf("suspend %s", to.name), n.approved(r, func(a keyops.Approvals) ([]byte, error) {
		out, err := r.svc.SuspendReplica(context.Background(), caller(), keyops.SuspendReplicaInput{KeyID: string(id), ReplicaRegion: string(to.name), Approvals: a})
		return out.ApprovalRequest, err
	}))
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
	r := n.run
	done := w.answered(n, r, fmt.Sprintf("evict %s", to.name), n.approved(r, func(a keyops.Approvals) ([]byte, error) {
		out, err := r.svc.EvictReplica(context.Background(), caller(), keyops.EvictReplicaInput{KeyID: string(id), ReplicaRegion: string(to.name), Approvals: a})
		return out.ApprovalRequest, err
	}))
	if !done && !r.dead {
		return false
	}
	// What only the evicted Region holds the others need not have.
	for i, l := range w.letters {
		if l.key == id && l.from == to.name {
			w.letters[i].excused = true
		}
	}
	w.ledger.evicted[membership{id, to.name}] = true
	return done
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
	r := n.run
	done := w.answered(n, r, fmt.Sprintf("write %.8s off", m), n.approved(r, func(a keyops.Approvals) ([]byte, error) {
		out, err := r.svc.WriteOffKeyMaterial(context.Background(), caller(), keyops.WriteOffKeyMaterialInput{KeyID: string(id), KeyMaterialID: m.String(), Approvals: a})
		return out.ApprovalRequest, err
	}))
	if done || r.dead {
		w.ledger.writtenOff[m.String()] = true
	}
	return done
}

// promote makes a Region primary without the consent of the one that is (rule 17), for one
// key, or for all in one approval. Operators believe that some Regions are dark, rightly or
// wrongly.
func (w *world) promote() {
	n, _ := w.anyUp()
	id := w.anyKey()
	if n == nil || id == "" || n.key(id) == nil || n.key(id).Set.Acting() && w.chance(95) {
		return
	}
	var dark []region.Name
	for _, o := range w.nodes {
		if o != n && w.chance(30) {
			dark = append(dark, o.name)
		}
	}
	ids := []arn.KeyID{id}
	if w.chance(30) {
		ids = slices.DeleteFunc(slices.Clone(w.keys), func(id arn.KeyID) bool { return n.key(id) == nil })
	}
	w.promoteAll(n, ids, dark)
}

func (w *world) promoteOne(n *node, id arn.KeyID, dark ...region.Name) bool {
	return w.promoteAll(n, []arn.KeyID{id}, dark)
}

// promoteAll lets operators approve one list of keys, and promotes each.
func (w *world) promoteAll(n *node, ids []arn.KeyID, dark []region.Name) bool {
	r := n.run
	var keys []mrk.ListedKey
	for _, id := range ids {
		k := n.key(id)
		// Who approves remembers what was approved, and goes no lower. Operators of two Regions
		// that cannot talk to each other may choose the same number.
		w.generation = max(w.generation+uint64(w.rng.IntN(2)), k.Set.NextGeneration())
		keys = append(keys, mrk.ListedKey{Key: id, Head: k.Set.Head()})
	}
	list, err := mrk.NewKeyList(keys)
	w.must(err)
	p := mrk.Promotion{
		Target: n.name, Instance: n.plant.descriptor.Instance, Generation: w.generation, Suspend: dark, Keys: uint64(len(list)), Root: list.Root(),
		Roster: n.plant.descriptor.Operators.Version, Serial: approval.NewSerial(), Expires: n.clock().Add(time.Hour).Truncate(time.Second).UTC(),
	}
	if w.testimony != nil {
		w.testimony.approved[p.Serial] = true
	}
	files := n.approvals(p.Request())
	all := true
	for _, id := range ids {
		w.meanwhile(20)
		if r.dead {
			return false
		}
		in := promotion(list, id)
		in.Approvals = files
		for _, name := range dark {
			in.SuspendRegions = append(in.SuspendRegions, string(name))
		}
		_, err := r.svc.PromoteKey(context.Background(), caller(), in)
		all = w.answered(n, r, fmt.Sprintf("promote, without %v", dark), err) && all
	}
	return all
}

// promotion names one key of an approved list.
func promotion(list mrk.KeyList, id arn.KeyID) keyops.PromoteKeyInput {
	proof, _ := list.Prove(id)
	return keyops.PromoteKeyInput{KeyID: string(id), KeyPlace: keyopstest.Place(proof)}
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
	r := n.run
	call := func(a keyops.Approvals) ([]byte, error) {
		out, err := r.svc.ScheduleKeyDeletion(context.Background(), caller(), keyops.ScheduleKeyDeletionInput{KeyID: string(id), PendingWindowInDays: 7, Approvals: a})
		return out.ApprovalRequest, err
	}
	if n.key(id).Set.Primary() == n.name {
		return n.approved(r, call)
	}
	_, err := call(keyops.Approvals{})
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
	for _, n := range honest(w.nodes) {
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
		if o == n || o.hostile || its == nil || its.Gone() || its.Set.Told() || o.doubted || w.ledger.evicted[membership{k.ID, o.name}] || w.pair != nil && w.pair.replica == o && w.pair.severed {
			continue
		}
		w.break_("%s has deleted the whole set of %s, and %s has a key in state %s", n.name, k.ID, o.name, its.State)
	}
}

// undecide takes back what heal does not wait for: deletions that nobody has carried out.
func (n *node) undecide() {
	if n.frozen() {
		return
	}
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
