package simulation

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/replication"
)

// What schedules have found about Regions that backups made forget something.

// A Region rotates alone, encrypts, and is restored from a backup of before. Another one is
// promoted, which has never heard of that material, and takes it in on nobody's word. The
// status says what is wrong, and to promote the Region that has the material mends it.
func TestEncryptedWithWhatNobodyLists(t *testing.T) {
	w := scene(t)
	a, b := w.nodes[0], w.nodes[1]
	id := w.key(a)
	w.must(a.replicateTo(id, b))
	w.settle()
	old := w.save(a)
	w.isolate(a)
	if !w.suspendOne(a, id, b) {
		t.Fatal("not suspended")
	}
	_, err := a.run.svc.RotateKeyOnDemand(t.Context(), caller(), keyops.RotateKeyOnDemandInput{KeyID: string(id), AcceptAlone: true})
	w.must(err)
	a.run.repl.Step(t.Context())
	if before := b.key(id).Current; a.key(id).Current == before || !w.encryptAt(a, a.run, id) {
		t.Fatal("the Region that is alone does not rotate")
	}
	w.restoreTo(old)
	if !w.promoteOne(b, id) {
		t.Fatal("not promoted")
	}
	w.net.heal()
	w.settle()
	row := b.status(id, a.name)
	if row.Status != replication.StatusFailed || row.Cause != string(mrk.CauseMaterialMismatch) {
		t.Errorf("the status is %+v", row)
	}
	w.heal() // promotes it
	if p, _ := w.acting(id); p != a {
		t.Errorf("%s acts", p.name)
	}
}

func (n *node) status(id arn.KeyID, of region.Name) replication.RegionStatus {
	rows := n.run.repl.Status(id)
	i := slices.IndexFunc(rows, func(r replication.RegionStatus) bool { return r.Region == of })
	if i < 0 {
		return replication.RegionStatus{}
	}
	return rows[i]
}

// recorded counts the records of the audit log with all these words.
func (n *node) recorded(words ...string) (count int) {
	files, err := filepath.Glob(filepath.Join(n.audit, "*.jsonl"))
	n.w.must(err)
	for _, f := range files {
		b, err := os.ReadFile(f)
		n.w.must(err)
		for line := range strings.Lines(string(b)) {
			if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
				count++
			}
		}
	}
	return count
}

// Every Region was restored, and together they have forgotten that one of them has the key,
// and who admitted it. ReplicateKey to it lists it again.
func TestForgottenByEverybody(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.key(a)
	w.must(a.replicateTo(id, b))
	w.settle()
	old := w.save(b)
	w.must(a.replicateTo(id, c))
	w.settle()
	w.restoreTo(w.backups[2])
	w.settle()
	if k := c.key(id); k == nil || !k.PolicyLost() || k.Set.Admission() != nil {
		t.Fatalf("the Region that was restored has %+v", k)
	}
	w.isolate(c)
	w.isolate(a)
	w.restoreTo(old)
	if !w.promoteOne(b, id, a.name) {
		t.Fatal("not promoted")
	}
	w.restoreTo(w.backups[0])
	w.net.heal()
	w.settle()
	if b.key(id).Set.Entry(c.name).Status.In() {
		t.Fatal("the replica is not forgotten")
	}
	tagged := keyops.ReplicateKeyInput{KeyID: string(id), ReplicaRegion: string(c.name), Description: "another"}
	if _, err := b.run.svc.ReplicateKey(t.Context(), caller(), tagged); !errors.Is(err, keyops.ErrAlreadyExists) {
		t.Errorf("to replicate it with another description is %v", err)
	}
	w.must(b.replicateTo(id, c))
	w.settle()
	if k := c.key(id); k.State != keystate.Disabled || !k.PolicyLost() || k.Set.Incarnation() != 2 {
		t.Errorf("the key that nobody there has enabled is %s, incarnation %d", k.State, k.Set.Incarnation())
	}
	w.heal()
	if e := b.key(id).Set.Entry(c.name); e.Status != mrk.Active {
		t.Errorf("listed again, the replica is %s", e.Status)
	}
}

// A key whose new material waits to be imported is not handed over to a Region that has not
// imported it, and could not while both keys are Updating.
func TestHandOverDuringAnImport(t *testing.T) {
	w := scene(t)
	a, b := w.nodes[0], w.nodes[1]
	id, first := w.imported(a)
	w.must(a.replicateTo(id, b))
	w.settle()
	w.must(b.importMaterial(id, first, importing{}))
	w.must(a.importMaterial(id, w.invent(id), importing{as: keyops.NewKeyMaterial}))
	w.settle()
	handOver := func() error {
		_, err := a.run.svc.UpdatePrimaryRegion(t.Context(), caller(), keyops.UpdatePrimaryRegionInput{KeyID: string(id), PrimaryRegion: string(b.name)})
		return err
	}
	if err := handOver(); !errors.Is(err, keyops.ErrInvalidState) || a.key(id).State != keystate.Enabled {
		t.Errorf("the hand-over is %v, and the key %s", err, a.key(id).State)
	}
	w.heal() // imports it
	w.must(handOver())
	w.heal()
	if p, _ := w.acting(id); p != b {
		t.Errorf("%s acts after the hand-over", p.name)
	}
}

// A snapshot of the disk puts store and audit log of a primary Region back, which nothing shows.
// It writes another state with a number that it has used, and two members have taken one each.
// As soon as it hears of that it goes on above both.
func TestRolledBackUnaware(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.key(a)
	w.must(a.replicateTo(id, b))
	w.must(a.replicateTo(id, c))
	w.settle()
	rotateEvery := func(days int) {
		_, err := a.run.svc.EnableKeyRotation(t.Context(), caller(), keyops.EnableKeyRotationInput{KeyID: string(id), RotationPeriodInDays: days})
		w.must(err)
		w.settle()
	}
	old := w.save(a)
	w.isolate(c)
	rotateEvery(90)
	w.rollBackTo(old, false)
	w.isolate(b)
	w.net.join(a, c)
	if !a.key(id).Set.Acting() {
		t.Fatal("the Region knows that it was rolled back")
	}
	rotateEvery(180)
	if x, y := b.key(id).Set.State(), c.key(id).Set.State(); x.Epoch != y.Epoch || x.Seq != y.Seq || x.Rotation == y.Rotation {
		t.Fatal("the members have heard the same")
	}
	w.heal()
	if p, _ := w.acting(id); p != a {
		t.Error("the Region does not act again")
	}
}

// A Region is promoted that knows of new material and does not hold it, so its state lists it no
// more. Those who hold it are restored from backups of before, and find it in their tokens
// without knowing what it is. The promoted Region tells them.
func TestKnownToThePromotedAlone(t *testing.T) {
	w := scene(t)
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	id := w.withReplicas()
	before := []backup{w.save(a), w.save(c)}
	w.net.cut[[2]region.Name{a.name, b.name}] = true
	w.net.cut[[2]region.Name{b.name, a.name}] = true
	_, err := a.run.svc.RotateKeyOnDemand(t.Context(), caller(), keyops.RotateKeyOnDemandInput{KeyID: string(id)})
	w.must(err)
	w.now = w.now.Add(time.Second)
	a.run.repl.Round(t.Context(), c.name)
	w.now = w.now.Add(time.Second)
	c.run.repl.Round(t.Context(), b.name)
	k := b.key(id)
	pending := k.Set.Pending()
	if m := k.Material(pending); pending.IsZero() || m != nil {
		t.Fatalf("the Region knows of %.8s, and holds it: %t", pending, m != nil)
	}
	w.isolate(b)
	if !w.promoteOne(b, id) {
		t.Fatal("not promoted")
	}
	for _, old := range before {
		w.restoreTo(old)
	}
	w.heal()
	if p, k := w.acting(id); p != b || k.Material(pending) == nil {
		t.Errorf("%s acts, and the material is lost", p.name)
	}
}

// A Region offers its key, and a snapshot of its disk is put back before the other one can
// decide: nobody knows of the offer any more but the Region that would have to be asked again. As
// soon as that one hears so, its key is Updating no more, and the next offer is as good as any.
func TestOfferForgotten(t *testing.T) {
	w := scene(t)
	a, b := w.nodes[0], w.nodes[1]
	id := w.withReplicas()
	old := w.save(a)
	b.stop()
	w.must(b.start()) // it takes the key over only when it has heard who offers it
	handOver := func() error {
		_, err := a.run.svc.UpdatePrimaryRegion(t.Context(), caller(), keyops.UpdatePrimaryRegionInput{KeyID: string(id), PrimaryRegion: string(b.name)})
		return err
	}
	w.must(handOver())
	for range 3 {
		w.now = w.now.Add(time.Minute)
		a.run.repl.Round(t.Context(), b.name)
	}
	if k := b.key(id); k.State != keystate.Updating || k.Set.Acting() {
		t.Fatalf("the key is %s where it is offered, and the offer accepted: %t", k.State, k.Set.Acting())
	}
	w.rollBackTo(old, false)
	w.heal()
	if p, _ := w.acting(id); p != a || a.key(id).Set.Epoch().Number != 0 {
		t.Fatalf("where the offer was made is epoch %s", a.key(id).Set.Epoch())
	}
	if got := b.recorded(`"event":"UpdatePrimaryRegion"`, `"outcome":"Error"`, string(id)); got != 1 {
		t.Errorf("%d records of the refusal", got)
	}
	w.must(handOver())
	w.heal()
	if p, _ := w.acting(id); p != b {
		t.Error("the second offer is not accepted")
	}
}

// A Region makes new material, and its store, audit log and token go back to before. Nothing
// shows that, and it numbers past the state that listed the material before the members that
// hold it are heard. They show that state, so the material is listed again, whether they have
// encrypted with it or not, and operators have nothing to do.
func TestNumberedPastWhatWasListed(t *testing.T) {
	for _, used := range []bool{false, true} {
		w := scene(t)
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		id := w.withReplicas()
		old := w.save(a)
		before := b.key(id).Current
		if !used {
			w.isolate(c)
		}
		_, err := a.run.svc.RotateKeyOnDemand(t.Context(), caller(), keyops.RotateKeyOnDemandInput{KeyID: string(id)})
		w.must(err)
		w.settle()
		k := b.key(id)
		if len(k.Held()) != 2 || (k.Current != before) != used {
			t.Fatalf("used %t: the member holds %d materials", used, len(k.Held()))
		}
		w.isolate(a)
		w.rollBackTo(old, true)
		for days := range 4 {
			_, err := a.run.svc.EnableKeyRotation(t.Context(), caller(), keyops.EnableKeyRotationInput{KeyID: string(id), RotationPeriodInDays: 90 + days})
			w.must(err)
		}
		if x, y := a.key(id).Set.State(), k.Set.State(); x.Epoch != y.Epoch || x.Seq <= y.Seq {
			t.Fatalf("used %t: the Region has written state %d of epoch %s, the member knows state %d of %s", used, x.Seq, x.Epoch, y.Seq, y.Epoch)
		}
		w.heal()
		p, k := w.acting(id)
		if p != a || len(k.Held()) != 2 || k.Set.Epoch().Line.Generation != 0 {
			t.Errorf("used %t: %s acts, in epoch %s, and holds %d materials", used, p.name, k.Set.Epoch(), len(k.Held()))
		}
	}
}

// A Region is promoted that has not heard of a hand-over, and of whom the new primary Region has
// admitted since. Nobody believes that replica to be a member, but it has told what it knows, so
// that the promoted Region goes on when its token was lost.
func TestRenewsBesideAStranger(t *testing.T) {
	w := sceneOf(t, 4)
	a, b, c, d := w.nodes[0], w.nodes[1], w.nodes[2], w.nodes[3]
	id := w.key(a)
	w.must(a.replicateTo(id, b))
	w.must(a.replicateTo(id, c))
	w.settle()
	w.isolate(c)
	w.isolate(d)
	_, err := a.run.svc.UpdatePrimaryRegion(t.Context(), caller(), keyops.UpdatePrimaryRegionInput{KeyID: string(id), PrimaryRegion: string(b.name)})
	w.must(err)
	w.settle()
	if p, _ := w.acting(id); p != b {
		t.Fatalf("%s acts after the hand-over", p.name)
	}
	w.net.join(b, d)
	w.must(b.replicateTo(id, d))
	w.settle()
	w.isolate(d)
	if !w.promoteOne(c, id) {
		t.Fatal("not promoted")
	}
	c.stop()
	c.doubt(true)
	c.fake.Restore(c.plant.token)
	w.must(c.start())
	w.heal()
	if p, k := w.acting(id); p != c || k.Set.Epoch().Number == 0 || !k.Set.Entry(d.name).Status.In() {
		t.Errorf("%s acts in epoch %s, and %s is %s", p.name, k.Set.Epoch(), d.name, k.Set.Entry(d.name).Status)
	}
}
