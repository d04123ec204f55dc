package simulation

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/replication"
)

// The counterexamples of the protocol, each as it was found, on the real code. Those about
// the rules alone are in package mrk.

// withReplicas makes a key that every Region has.
func (w *world) withReplicas() arn.KeyID {
	w.t.Helper()
	id := w.key(w.nodes[0])
	for _, n := range w.nodes[1:] {
		w.must(w.nodes[0].replicateTo(id, n))
	}
	w.settle()
	return id
}

// restoreTo puts a backup of the store back, as operators do.
func (w *world) restoreTo(b backup) {
	w.t.Helper()
	if b.of.running() {
		b.of.stop()
	}
	b.of.doubt(true)
	w.putBackup(b)
	w.must(b.of.start())
	b.of.recallOut()
}

// CE1: a hand-over and a forced promotion at once. Two Regions act, in two epochs, and one of
// them stops as soon as it hears of the other.
func TestCE1EqualEpochs(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	w.isolate(c)
	if _, err := a.run.svc.UpdatePrimaryRegion(t.Context(), caller(), keyops.UpdatePrimaryRegionInput{KeyID: string(id), PrimaryRegion: string(b.name)}); err != nil {
		t.Fatal(err)
	}
	if !w.promoteOne(c, id, a.name) {
		t.Fatal("the Region that is cut off is not promoted")
	}
	w.settle()
	if !b.key(id).Set.Acting() || !c.key(id).Set.Acting() || b.key(id).Set.Epoch() == c.key(id).Set.Epoch() {
		t.Fatalf("%s acts in %s, %s in %s", b.name, b.key(id).Set.Epoch(), c.name, c.key(id).Set.Epoch())
	}
	w.heal()
	if p, _ := w.acting(id); p != c || b.key(id).Set.Acting() {
		t.Error("the Region that operators promoted does not act alone")
	}
}

// CE2: whoever was handed the key often does not outrank whom operators have promoted.
func TestCE2ForcedOutranks(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	w.isolate(c)
	for _, to := range []*node{b, a} {
		from, _ := w.acting(id)
		_, err := from.run.svc.UpdatePrimaryRegion(t.Context(), caller(), keyops.UpdatePrimaryRegionInput{KeyID: string(id), PrimaryRegion: string(to.name)})
		w.must(err)
		w.settle()
	}
	if !a.key(id).Set.Acting() || a.key(id).Set.Epoch().Number != 2 {
		t.Fatalf("the key did not go there and back: %s", a.key(id).Set.Epoch())
	}
	if !w.promoteOne(c, id, a.name) {
		t.Fatal("not promoted")
	}
	w.heal()
	if p, _ := w.acting(id); p != c {
		t.Error("the Region that operators promoted is outranked")
	}
}

// CE4: a Region is promoted that has never heard of a member. The member is not forgotten.
func TestCE4Ghost(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.key(a)
	w.must(a.replicateTo(id, b))
	w.settle()
	w.isolate(b)
	w.must(a.replicateTo(id, c))
	w.settle()
	if c.key(id).State != keystate.Enabled || !w.promoteOne(b, id, a.name) {
		t.Fatal("the scene is not set")
	}
	w.heal()
	if e := b.key(id).Set.Entry(c.name); e.Status != mrk.Active {
		t.Errorf("%s, which %s had never heard of, is %s", c.name, b.name, e.Status)
	}
}

// CE7: a deleted replica is not brought back by what was on its way, and can be made again.
func TestCE7Resurrection(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	w.must(b.scheduleDeletion(id))
	w.settle()
	late := w.facts(a, b) // lists the replica
	w.now = w.now.Add(8 * day)
	w.settle()
	w.must(b.run.svc.Work(t.Context()))
	if !b.buried(id) {
		t.Fatal("the replica is not deleted")
	}
	for range 3 {
		for _, p := range late {
			_, _ = w.receive(p.from, p.to, p.message)
		}
		w.settle()
	}
	if !b.buried(id) || a.key(id).Set.Entry(b.name).Status != mrk.Removed || c.key(id).Set.Entry(b.name).Status != mrk.Removed {
		t.Fatalf("what was deleted is back, or still listed as %s", a.key(id).Set.Entry(b.name).Status)
	}
	w.must(a.replicateTo(id, b))
	w.heal()
	if k := b.key(id); k.Gone() || k.Set.Incarnation() != 2 || k.State != keystate.Enabled {
		t.Errorf("made again, it is %s in incarnation %d", k.State, k.Set.Incarnation())
	}
}

// facts lets one Region speak to another, and records what it says.
func (w *world) facts(from, to *node) []parcel {
	w.t.Helper()
	w.tap = &[]parcel{}
	defer func() { w.tap = nil }()
	w.now = w.now.Add(day) // a digest is due
	from.run.repl.Round(w.t.Context(), to.name)
	return *w.tap
}

// CE8: a whole set is deleted when nobody has a key of it any more, and not before.
func TestCE8Deletion(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	if !w.encryptAt(a, a.run, id) {
		t.Fatal("cannot encrypt")
	}
	w.must(a.scheduleDeletion(id))
	w.must(b.scheduleDeletion(id))
	w.settle()
	w.isolate(c)
	for range 3 {
		w.now = w.now.Add(20 * day)
		w.settle()
		for _, n := range w.nodes {
			_ = n.run.svc.Work(t.Context()) // what cannot be confirmed is an error for the log
			w.check()
		}
	}
	if !b.buried(id) || a.buried(id) || c.buried(id) {
		t.Fatalf("deleted: %t, %t, %t; want the replica whose deletion was asked for", a.buried(id), b.buried(id), c.buried(id))
	}
	w.net.heal()
	w.must(c.scheduleDeletion(id))
	for range 6 {
		w.now = w.now.Add(20 * day)
		w.settle()
		for _, n := range w.nodes {
			_ = n.run.svc.Work(t.Context())
			w.check()
		}
	}
	if !c.buried(id) || !a.buried(id) {
		t.Errorf("deleted: %t, %t; want the whole set", a.buried(id), c.buried(id))
	}
}

// CE20: a Region is restored from a backup of before a replica. The key comes back from the
// others with its materials, and open to nobody but administrators.
func TestCE20PolicyLost(t *testing.T) {
	for _, tt := range []struct {
		name string
		at   int // whose store goes back
	}{{"replica", 1}, {"primary", 0}} {
		t.Run(tt.name, func(t *testing.T) {
			w := scene(t)
			n := w.nodes[tt.at]
			id := w.withReplicas()
			if !w.encryptAt(n, n.run, id) {
				t.Fatal("cannot encrypt")
			}
			before := w.letters[0]
			w.restoreTo(w.backups[tt.at])
			if n.key(id) != nil {
				t.Fatal("the backup has the key")
			}
			w.settle()
			k := n.key(id)
			if k == nil || k.State != keystate.Disabled || !k.PolicyLost() || k.Set.Incarnation() != 1 || len(k.Held()) != 1 {
				t.Fatalf("the key came back as %+v", k)
			}
			if _, err := w.open(n.run, before); !errors.Is(err, keyops.ErrAccessDenied) && !errors.Is(err, keyops.ErrDisabled) {
				t.Errorf("its use is %v, want it refused", err)
			}
			if _, err := n.run.svc.EnableKey(t.Context(), caller(), keyops.EnableKeyInput{KeyID: string(id)}); !errors.Is(err, keyops.ErrAccessDenied) {
				t.Errorf("EnableKey without another policy is %v", err)
			}
			rows := n.run.repl.Status(id)
			i := slices.IndexFunc(rows, func(r replication.RegionStatus) bool { return r.Region == n.name })
			if i < 0 || rows[i].Status != replication.StatusFailed || rows[i].Cause != string(mrk.CausePolicyLost) || !strings.Contains(rows[i].Text, "put a key policy") {
				t.Errorf("the status is %+v", rows)
			}
			w.heal() // puts a policy and enables the key
			if got, err := w.open(n.run, before); err != nil || string(got) != string(before.plaintext) {
				t.Errorf("what was encrypted before opens as %x, %v", got, err)
			}
		})
	}
}

// A key that this Region has deleted, or was never a member of, is not made again by its
// peers' word.
func TestNotRecreated(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	w.must(b.scheduleDeletion(id))
	w.now = w.now.Add(8 * day)
	w.settle()
	w.must(b.run.svc.Work(t.Context()))
	w.settle()
	if !b.buried(id) {
		t.Fatal("the replica is not deleted")
	}
	w.restoreTo(w.backups[1])
	if !w.evictOne(a, id, c) {
		t.Fatal("not evicted")
	}
	w.settle()
	w.restoreTo(w.backups[2])
	w.settle()
	if b.key(id) != nil || c.key(id) != nil {
		t.Errorf("deleted %v, evicted %v: want neither back", b.key(id), c.key(id))
	}
	if m := slices.Concat(a.marks(), b.marks(), c.marks()); len(m) != 0 {
		t.Errorf("somebody is still to be told: %+v", m)
	}
}

// A Region is promoted that has never seen the request for a replica, which never reached its
// destination either. ReplicateKey asks for it again.
func TestRequestForgottenInPromotion(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.key(a)
	w.must(a.replicateTo(id, b))
	w.settle()
	w.isolate(c)
	w.must(a.replicateTo(id, c))
	w.settle()
	if err := a.replicateTo(id, c); !errors.Is(err, keyops.ErrAlreadyExists) {
		t.Errorf("a request that is kept, made again: %v", err)
	}
	w.isolate(a)
	if !w.promoteOne(b, id, a.name) {
		t.Fatal("not promoted")
	}
	w.net.heal()
	w.isolate(a)
	w.settle()
	if c.key(id) != nil || !b.key(id).Set.Forgotten(c.name) {
		t.Fatal("the request is not forgotten")
	}
	w.must(b.replicateTo(id, c))
	w.settle()
	if k := c.key(id); k == nil || k.State != keystate.Enabled || k.Set.Incarnation() != 2 {
		t.Errorf("asked for again, it is %+v", k)
	}
	w.heal()
}
