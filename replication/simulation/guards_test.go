package simulation

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// What single guards keep from happening to whole deployments, each in a situation of its own:
// schedules come to these too rarely.

// rotates asks for a rotation.
func (n *node) rotates(id arn.KeyID, alone bool) error {
	_, err := n.run.svc.RotateKeyOnDemand(n.w.t.Context(), caller(), keyops.RotateKeyOnDemandInput{KeyID: string(id), AcceptAlone: alone})
	return err
}

// handsOver offers the key to another Region.
func (n *node) handsOver(id arn.KeyID, to *node) error {
	_, err := n.run.svc.UpdatePrimaryRegion(n.w.t.Context(), caller(), keyops.UpdatePrimaryRegionInput{KeyID: string(id), PrimaryRegion: string(to.name)})
	return err
}

// tries lets a Region do what it does by itself, for an hour in which nobody else does anything.
func (n *node) tries() {
	for range 6 {
		n.w.now = n.w.now.Add(10 * time.Minute)
		for _, o := range n.w.nodes {
			if o != n {
				n.run.repl.Round(n.w.t.Context(), o.name)
			}
		}
		n.run.repl.Step(n.w.t.Context())
		n.w.check()
	}
}

// Where a member stands in an epoch that is over says nothing about what it encrypts with: the
// promoted Region releases nothing on such a word.
func TestWordOfAnEarlierEpochReleasesNothing(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	b.stop() // so that nobody else's word releases it in the old epoch
	w.must(a.rotates(id, false))
	w.settle()
	w.must(b.start())
	w.net.join(b, c)
	w.isolate(a)
	w.net.join(b, c)
	b.tries()
	c.tries()
	pending := b.key(id).Set.Pending()
	if pending.IsZero() || b.key(id).Material(pending) == nil || !b.key(id).Set.Fact(c.name).Holds(pending) {
		t.Fatal("the material has not reached both")
	}
	w.isolate(c)
	if !w.promoteOne(b, id, a.name) {
		t.Fatal("not promoted")
	}
	b.tries()
	if got := b.key(id).Set.Pending(); got != pending {
		t.Error("the material is current before the other Region has joined the epoch")
	}
	w.net.heal()
	w.heal()
}

// A snapshot of the disk of a primary Region is put back, of before it had any replica. It acts,
// since nothing shows that, and releases nothing to itself alone before it has heard the others.
func TestRolledBackReleasesNothingAlone(t *testing.T) {
	w := scene(t)
	a := w.nodes[0]
	id := w.key(a)
	old := w.save(a)
	w.must(a.replicateTo(id, w.nodes[1]))
	w.settle()
	w.isolate(a)
	w.rollBackTo(old, false)
	if !a.key(id).Set.Acting() {
		t.Fatal("the Region knows that it was rolled back")
	}
	w.must(a.rotates(id, true))
	a.tries()
	if a.key(id).Set.Pending().IsZero() {
		t.Error("it has released a material of which a member knows nothing")
	}
	w.net.heal()
	w.heal()
}

// A Region whose store or token is not what it was acts for nobody before it has heard all
// others.
func TestWhoWentBackActsNotAlone(t *testing.T) {
	for name, back := range map[string]func(*world, backup){
		"a restored store":                  (*world).restoreTo,
		"a material that no row knows":      func(w *world, b backup) { w.rollBackTo(b, false) },
		"a store that was put back, in use": func(w *world, b backup) { w.restoreTo(b); w.nodes[0].stop(); w.must(w.nodes[0].start()) },
	} {
		t.Run(name, func(t *testing.T) {
			w := scene(t)
			a := w.nodes[0]
			id := w.withReplicas()
			old := w.save(a)
			w.must(a.rotates(id, false))
			w.settle()
			w.isolate(a)
			back(w, old)
			a.tries()
			if a.key(id).Set.Acting() {
				t.Error("it acts")
			}
			w.net.heal()
			w.heal()
			if p, _ := w.acting(id); p != a {
				t.Error("it does not act again")
			}
		})
	}
}

// Two Regions have taken over one epoch, which needs a rollback. Whoever sees both manages
// nothing until operators promote somebody.
func TestForkManagesNothing(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	w.isolate(b)
	w.must(a.rotates(id, false))
	if !w.suspendOne(a, id, b) {
		t.Fatal("not suspended")
	}
	w.settle()
	old := w.save(a) // which need not hear from the suspended Region
	w.isolate(c)
	w.net.join(a, b)
	w.settle()
	w.must(a.handsOver(id, b))
	w.settle()
	w.rollBackTo(old, false)
	w.isolate(b)
	w.net.join(a, c)
	w.settle()
	w.must(a.handsOver(id, c))
	w.settle()
	if !b.key(id).Set.Acting() || !c.key(id).Set.Acting() {
		t.Fatal("not both have taken it over")
	}
	w.net.heal()
	w.settle()
	for _, n := range []*node{b, c} {
		if n.key(id).Set.Frozen() == nil {
			t.Errorf("%s has not noticed the fork", n.name)
		}
		if err := n.rotates(id, false); n.key(id).Set.Acting() && err == nil {
			t.Errorf("%s rotates a key that has forked", n.name)
		}
	}
	w.heal()
}

// A primary Region that was rolled back has forgotten a replica, and cannot reach it. It
// deletes no set of which another Region may have a key.
func TestForgottenReplicaKeepsTheSet(t *testing.T) {
	w := scene(t)
	a, c := w.nodes[0], w.nodes[2]
	id := w.key(a)
	old := w.save(a)
	w.must(a.replicateTo(id, c))
	w.settle()
	w.rollBackTo(old, false)
	w.isolate(c)
	w.must(a.scheduleDeletion(id))
	for range 4 {
		w.now = w.now.Add(10 * day)
		w.settle()
		_ = a.run.svc.Work(t.Context()) // refused, for the log
		w.check()
	}
	if a.buried(id) {
		t.Error("the set is deleted")
	}
	w.net.heal()
	w.heal()
}

// Only a Region that acts confirms that a replica may be destroyed: what a former one holds may
// be all that it will ever hold.
func TestOnlyWhoActsConfirms(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	w.must(b.scheduleDeletion(id))
	old := w.save(a)
	w.isolate(c)
	w.restoreTo(old) // and cannot renew its term without the third
	for range 3 {
		w.now = w.now.Add(10 * day)
		w.settle()
		_ = b.run.svc.Work(t.Context())
		w.check()
	}
	if a.key(id).Set.Acting() || b.buried(id) {
		t.Errorf("acting %t, buried %t", a.key(id).Set.Acting(), b.buried(id))
	}
	w.net.heal()
	w.heal()
}

// A replica was deleted, and its store restored from before that. Its own word, which others
// hold, keeps it out of use.
func TestRestoredAfterItsDeletion(t *testing.T) {
	w := scene(t)
	c := w.nodes[2]
	id := w.withReplicas()
	old := w.save(c)
	w.must(c.scheduleDeletion(id))
	w.now = w.now.Add(8 * day)
	w.settle()
	w.must(c.run.svc.Work(t.Context()))
	w.settle()
	if !c.buried(id) {
		t.Fatal("the replica is not deleted")
	}
	w.restoreTo(old)
	w.settle()
	if k := c.key(id); !k.Gone() && (!k.Set.Told() || k.State != keystate.PendingDeletion) {
		t.Errorf("the key that was deleted is %s", k.State)
	}
	if w.encryptAt(c, c.run, id) {
		t.Error("it encrypts")
	}
}

// While a rotation is under way no other one begins, and none ends in one token only that
// nobody has accepted.
func TestRotationsOneByOne(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	w.isolate(a)
	w.must(a.rotates(id, false))
	pending := a.key(id).Set.Pending()
	if err := a.rotates(id, false); err == nil {
		t.Error("a second rotation begins beside the first")
	}
	for _, n := range []*node{b, c} {
		if w.writeOffOne(a, id, pending) || w.writeOffOne(a, id, a.key(id).Set.Current()) {
			t.Error("what is in use is written off")
		}
		if !w.suspendOne(a, id, n) {
			t.Fatal("not suspended")
		}
	}
	a.tries()
	if a.key(id).Set.Pending() != pending {
		t.Error("the material is current in one token only")
	}
	w.net.heal()
	w.heal()
	if !w.suspendOne(a, id, b) || !w.suspendOne(a, id, c) {
		t.Fatal("not suspended")
	}
	if err := a.rotates(id, false); err == nil {
		t.Error("a rotation begins in one token only")
	}
	w.heal()
}

// A primary Region that waits for its replicas to be deleted is fenced: then no clock runs in
// which its key would be destroyed.
func TestFencedDeletesNothing(t *testing.T) {
	w := scene(t)
	a, b := w.nodes[0], w.nodes[1]
	id := w.withReplicas()
	w.must(a.scheduleDeletion(id))
	w.isolate(a)
	if k := a.key(id); k.State != keystate.PendingReplicaDeletion {
		t.Fatalf("the primary key is %s", k.State)
	}
	if !w.promoteOne(b, id, a.name) {
		t.Fatal("not promoted")
	}
	w.net.heal()
	w.settle()
	if k := a.key(id); k.State != keystate.Disabled {
		t.Errorf("the fenced primary key is %s", k.State)
	}
	w.heal()
}

// Two states with one number, which needs a rollback: who has met both freezes the key.
func TestTwoStatesOfOneNumberFreeze(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	every := func(days int) {
		_, err := a.run.svc.EnableKeyRotation(t.Context(), caller(), keyops.EnableKeyRotationInput{KeyID: string(id), RotationPeriodInDays: days})
		w.must(err)
		w.settle()
	}
	old := w.save(a)
	w.isolate(c)
	every(90)
	w.rollBackTo(old, false)
	w.isolate(b)
	w.net.join(a, c)
	every(180)
	w.isolate(a)
	w.net.join(b, c)
	w.settle()
	frozen := slices.ContainsFunc([]*node{b, c}, func(n *node) bool {
		f := n.key(id).Set.Frozen()
		return f != nil && f.Cause == mrk.CauseEquivocation
	})
	if !frozen {
		t.Error("nobody has noticed")
	}
	w.net.heal()
	w.heal()
}

// What operators have to approve is refused without them.
func TestNothingWithoutApprovals(t *testing.T) {
	w := scene(t)
	a, b := w.nodes[0], w.nodes[1]
	id := w.withReplicas()
	_, suspend := a.run.svc.SuspendReplica(t.Context(), caller(), keyops.SuspendReplicaInput{KeyID: string(id), ReplicaRegion: string(b.name)})
	_, evict := a.run.svc.EvictReplica(t.Context(), caller(), keyops.EvictReplicaInput{KeyID: string(id), ReplicaRegion: string(b.name)})
	if !errors.Is(suspend, keyops.ErrAccessDenied) || !errors.Is(evict, keyops.ErrAccessDenied) {
		t.Errorf("suspending is %v, evicting %v", suspend, evict)
	}
}
