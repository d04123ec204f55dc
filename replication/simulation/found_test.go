package simulation

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// Each of these was found by a schedule, and is told here in the fewest steps. A seed would
// do something else as soon as the code draws one random number more.

// scene is a deployment of three Regions to which nothing happens but what a test does.
func scene(t *testing.T) *world {
	t.Helper()
	return sceneOf(t, 3)
}

func sceneOf(t *testing.T, regions int) *world {
	t.Helper()
	dir, err := os.MkdirTemp(shm, "keyferry-simulation-")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, dir, 1, settings{regions: regions})
	w.faults = false
	t.Cleanup(func() {
		w.end()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		if w.failed != "" {
			t.Error(w.failed)
		}
	})
	return w
}

// key makes a multi-Region key.
func (w *world) key(at *node) arn.KeyID {
	w.t.Helper()
	id, err := at.createKey()
	w.must(err)
	w.check()
	return id
}

// settle lets the Regions exchange what they have to say, as far as links go.
func (w *world) settle() {
	for range 4 {
		for _, n := range w.up() {
			for _, peer := range w.nodes {
				if n != peer {
					n.run.repl.Round(w.t.Context(), peer.name)
				}
			}
			w.now = w.now.Add(30 * time.Second)
			w.check()
		}
	}
}

func (w *world) isolate(n *node) {
	for _, o := range w.nodes {
		w.net.cut[[2]region.Name{n.name, o.name}] = true
		w.net.cut[[2]region.Name{o.name, n.name}] = true
	}
}

// A primary Region is restored from a backup of before it asked for a replica. The Region
// that was asked never got the request, but a third one knows of it. The primary Region has
// to act again all the same: who says that it knows nothing of a key has been heard.
func TestForgottenRequest(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.key(a)
	w.must(a.replicateTo(id, b))
	w.settle()
	old, err := a.file.Backup(a.clock())
	w.must(err)
	w.isolate(c)
	w.must(a.replicateTo(id, c))
	w.settle()
	a.stop()
	a.doubt(true)
	a.file = old
	w.must(a.start())
	w.heal()
	if _, k := w.acting(id); k == nil || k.Set.Primary() != a.name {
		t.Error("the restored Region does not act")
	}
}

// Senders and marks remember the time of the next try. If the clock is put back, that try
// is not put off until the clock has caught up.
func TestClockPutBack(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.key(a)
	w.must(a.replicateTo(id, b))
	w.settle()
	w.net.cut[[2]region.Name{a.name, c.name}] = true
	w.net.cut[[2]region.Name{c.name, a.name}] = true
	w.must(a.replicateTo(id, c))
	w.settle()
	// The second Region knows that the third one should have the key, and asks it in vain.
	if m := b.marks(); len(m) != 1 || m[0].Peer != c.name || m[0].Attempts == 0 {
		t.Fatalf("no failed try is recorded: %+v", m)
	}
	b.offset -= 24 * time.Hour
	w.heal()
}

// Two Regions write at once, for an hour, across a rotation.
func TestActiveActive(t *testing.T) {
	w := scene(t)
	id := w.key(w.nodes[0])
	for _, n := range w.nodes[1:] {
		w.must(w.nodes[0].replicateTo(id, n))
	}
	w.settle()
	for minute := range 60 {
		for _, n := range w.nodes {
			if !w.encryptAt(n, n.run, id) {
				t.Fatalf("%s cannot encrypt after %d minutes", n.name, minute)
			}
		}
		if minute == 20 {
			w.rotate()
		}
		n, peer := pick(w, w.nodes), pick(w, w.nodes)
		if n != peer {
			n.run.repl.Round(t.Context(), peer.name)
		}
		w.now = w.now.Add(time.Minute)
		w.check()
	}
	used := map[string]bool{}
	for _, l := range w.letters {
		used[l.material] = true
	}
	if len(used) != 2 {
		t.Errorf("%d materials encrypted, want the one before and the one after the rotation", len(used))
	}
	w.heal()
}

// One member never acknowledges the new material: every Region goes on with the old one, and
// the rotation ends when the member can be reached again.
func TestHeldAcknowledgement(t *testing.T) {
	w := scene(t)
	a, c := w.nodes[0], w.nodes[2]
	id := w.key(a)
	for _, n := range w.nodes[1:] {
		w.must(a.replicateTo(id, n))
	}
	w.settle()
	old := a.key(id).Current
	w.isolate(c)
	w.rotate()
	w.settle()
	for range 1000 {
		for _, n := range w.nodes {
			if !w.encryptAt(n, n.run, id) || w.letters[len(w.letters)-1].material != old.String() {
				t.Fatalf("%s encrypts with new material that %s does not hold", n.name, c.name)
			}
		}
	}
	w.heal()
	if a.key(id).Current == old {
		t.Error("the rotation did not end")
	}
}

// A replica is deleted and asked for again. The Region learns of that from a third one first, so
// that it knows all there is to know before the request is sent: it is sent all the same.
func TestAskedAgainByAThird(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	w.must(c.scheduleDeletion(id))
	for range 4 {
		w.now = w.now.Add(4 * day)
		w.settle()
		w.must(c.run.svc.Work(t.Context()))
	}
	w.settle()
	w.net.cut[[2]region.Name{a.name, c.name}] = true
	w.net.cut[[2]region.Name{c.name, a.name}] = true
	w.must(a.replicateTo(id, c))
	w.settle()
	if k := c.key(id); !k.Gone() || k.Set.Hash() != b.key(id).Set.Hash() {
		t.Fatalf("the Region that is asked is %s, and knows of it: %t", k.State, k.Set.Hash() == b.key(id).Set.Hash())
	}
	w.heal()
	if k := c.key(id); k.Gone() || k.State != keystate.Enabled {
		t.Errorf("asked for again, the replica is %s", k.State)
	}
}

// A Region that is outranked keeps a request for a replica that exists, and waits for nobody to
// act on it.
func TestRequestOfTheOutranked(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	w.isolate(b)
	w.isolate(c)
	if !w.evictOne(a, id, c) {
		t.Fatal("not evicted")
	}
	w.must(a.replicateTo(id, c)) // as another incarnation
	if !w.promoteOne(b, id, a.name) {
		t.Fatal("not promoted")
	}
	w.heal()
	if p, k := w.acting(id); p != b || k.Set.Entry(c.name).Status != mrk.Active {
		t.Errorf("%s acts, and %s is %s", p.name, c.name, k.Set.Entry(c.name).Status)
	}
}

// Two Regions are promoted at once. The one that is outranked has made a replica meanwhile,
// of which the other one has never heard, nor of the promotion that allowed it. The replica is
// a member all the same.
func TestAdmittedByTheOutranked(t *testing.T) {
	for _, rotates := range []bool{false, true} {
		w := sceneOf(t, 4)
		a, b, c, d := w.nodes[0], w.nodes[1], w.nodes[2], w.nodes[3]
		id := w.key(a)
		w.must(a.replicateTo(id, b))
		w.must(a.replicateTo(id, c))
		w.settle()
		w.isolate(b)
		if !w.promoteOne(b, id, a.name, c.name) {
			t.Fatal("not promoted")
		}
		w.isolate(c)
		w.net.join(a, c)
		if !w.promoteOne(c, id, a.name, b.name) {
			t.Fatal("not promoted")
		}
		low, high := c, b // of one generation, the later name outranks
		w.net.join(low, d)
		w.must(low.replicateTo(id, d))
		w.settle()
		if k := d.key(id); k == nil || k.State != keystate.Enabled {
			t.Fatal("the Region that is outranked makes no replica")
		}
		if rotates {
			_, err := low.run.svc.RotateKeyOnDemand(t.Context(), caller(), keyops.RotateKeyOnDemandInput{KeyID: string(id)})
			w.must(err)
			w.settle()
		}
		w.heal()
		if p, k := w.acting(id); p != high || k.Set.Entry(d.name).Status != mrk.Active {
			t.Errorf("rotated %t: %s acts, and the replica that %s made is %s", rotates, p.name, low.name, k.Set.Entry(d.name).Status)
		}
	}
}

// A replica of a key whose material is imported is made while new material waits to be
// imported everywhere. The replica takes imports all the same, and the release waits for it.
func TestReplicaDuringAnImport(t *testing.T) {
	w := scene(t)
	a, b := w.nodes[0], w.nodes[1]
	id, first := w.imported(a)
	second := w.invent(id)
	w.must(a.importMaterial(id, second, importing{as: keyops.NewKeyMaterial}))
	w.must(a.replicateTo(id, b))
	w.suspendOne(a, id, b) // before it has said anything
	w.settle()
	release := func() error {
		_, err := a.run.svc.RotateKeyOnDemand(t.Context(), caller(), keyops.RotateKeyOnDemandInput{KeyID: string(id)})
		return err
	}
	w.must(b.importMaterial(id, first, importing{}))
	w.settle()
	if err := release(); !errors.Is(err, keyops.ErrInvalidState) {
		t.Errorf("released before the replica has the material: %v", err)
	}
	w.must(b.importMaterial(id, second, importing{}))
	w.settle()
	w.must(release())
	w.heal()
	if k := b.key(id); k.Current != second || k.State != keystate.Enabled {
		t.Errorf("the replica is %s and encrypts with %.8s", k.State, k.Current)
	}
}

// A replica of a key whose material is imported is evicted and replicated again. What was
// imported there is in its token still, so nobody has anything to import, and nothing else
// happens to the key: it is Enabled at once.
func TestReplicatedAgainWithItsImports(t *testing.T) {
	w := scene(t)
	a, b := w.nodes[0], w.nodes[1]
	id, first := w.imported(a)
	w.must(a.replicateTo(id, b))
	w.settle()
	w.must(b.importMaterial(id, first, importing{}))
	w.settle()
	if !w.evictOne(a, id, b) {
		t.Fatal("not evicted")
	}
	w.settle()
	w.must(a.replicateTo(id, b))
	w.settle()
	if k := b.key(id); k.State != keystate.Enabled || k.Set.Incarnation() != 2 || !w.encryptAt(b, b.run, id) {
		t.Errorf("incarnation %d of the replica is %s", k.Set.Incarnation(), k.State)
	}
	w.heal()
}
