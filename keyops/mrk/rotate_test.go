package mrk_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

func TestRotateIntoOneTokenNeedsAcceptance(t *testing.T) {
	listed := func(w *world) mrk.Listed { return mrk.Listed{ID: w.material()} }
	w := newWorld(t)
	a := w.nodes[regionA]
	w.must(a.set.Clone().Rotate(ctx(), testSigner(regionA), listed(w))) // never replicated: nothing changes by it
	w.must(w.replicate(regionA, regionB))
	if err := a.set.Clone().Rotate(ctx(), testSigner(regionA), listed(w)); !errors.Is(err, mrk.ErrAlone) {
		t.Errorf("while the only other member is joining: %v", err)
	}
	w.heal()
	w.must(a.set.Clone().Rotate(ctx(), testSigner(regionA), listed(w)))
	w.must(w.suspend(regionA, regionB))
	if err := a.set.Clone().Rotate(ctx(), testSigner(regionA), listed(w)); !errors.Is(err, mrk.ErrAlone) {
		t.Errorf("while the only other member is suspended: %v", err)
	}
	w.must(a.set.Clone().RotateAlone(ctx(), testSigner(regionA), listed(w)))
}

// A rotation that others leave after it has begun waits for acceptance, too.
func TestReleaseIntoOneTokenNeedsAcceptance(t *testing.T) {
	w := newWorld(t)
	w.must(w.replicate(regionA, regionB))
	w.heal()
	a := w.nodes[regionA]
	if err := a.set.AcceptAlone(); !errors.Is(err, mrk.ErrNothing) {
		t.Errorf("accepting nothing: %v", err)
	}
	id := w.material()
	w.must(a.set.Rotate(ctx(), testSigner(regionA), mrk.Listed{ID: id}))
	a.token[id], a.rows[id] = true, true
	w.settle(a)
	w.must(w.suspend(regionA, regionB))
	if events := w.step(regionA); len(events) != 0 {
		t.Fatalf("A did %v", events)
	}
	if p, ok := a.set.Progress(); !ok || !p.Alone {
		t.Errorf("progress %+v", p)
	}
	w.must(a.set.AcceptAlone())
	w.settle(a)
	events := w.step(regionA)
	if len(events) != 1 || events[0].Kind != mrk.EventReleased || events[0].Holders != 1 {
		t.Errorf("after the acceptance A did %+v", events)
	}
	w.heal()
	w.converged(regionA, regionB)
}

func TestRotateRefused(t *testing.T) {
	w := withReplicas(t)
	a := w.nodes[regionA]
	a.state = "Disabled"
	w.settle(a)
	if err := a.set.Rotate(ctx(), testSigner(regionA), mrk.Listed{ID: w.material()}); !errors.Is(err, mrk.ErrNotEnabled) {
		t.Errorf("rotating a disabled key: %v", err)
	}
	if err := w.nodes[regionB].set.Rotate(ctx(), testSigner(regionB), mrk.Listed{ID: w.material()}); !errors.Is(err, mrk.ErrNotPrimary) {
		t.Errorf("rotating at a replica: %v", err)
	}
}

// Disabling the key blocks the start of a rotation, not its end.
func TestDisabledKeyFinishesItsRotation(t *testing.T) {
	w := withReplicas(t)
	w.must(w.rotate(regionA))
	a := w.nodes[regionA]
	a.state = "Disabled"
	w.settle(a)
	w.heal()
	if !a.set.Pending().IsZero() {
		t.Error("the rotation waits for the key to be enabled")
	}
}

func TestProgress(t *testing.T) {
	w := withReplicas(t)
	a := w.nodes[regionA].set
	if _, ok := a.Progress(); ok {
		t.Fatal("progress without a rotation")
	}
	w.must(w.rotate(regionA))
	pending := testMaterial(1)
	check := func(want mrk.Progress) {
		t.Helper()
		got, _ := w.nodes[regionA].set.Progress()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	check(mrk.Progress{Pending: pending, Holding: []regionName{regionA}, Awaited: []regionName{regionC, regionB}})
	w.sync(regionA, regionB)
	w.sync(regionA, regionB)
	w.sync(regionB, regionA)
	check(mrk.Progress{Pending: pending, Holding: []regionName{regionA, regionB}, Awaited: []regionName{regionC}})
	w.must(w.suspend(regionA, regionC))
	check(mrk.Progress{Pending: pending, Holding: []regionName{regionA, regionB}, Out: []regionName{regionC}})
	if got, ok := w.nodes[regionB].set.Progress(); !ok || got.Pending != pending {
		t.Errorf("B sees %+v", got) // a replica sees what the primary Region said last
	}
}

// One acknowledgement held back for ever: everybody goes on with the old material, progress
// names the Region, and lifting the hold finishes the rotation.
func TestHeldBackAcknowledgement(t *testing.T) {
	w := withReplicas(t)
	w.must(w.rotate(regionA))
	for range 1000 {
		w.sync(regionA, regionB)
		w.sync(regionB, regionA)
		w.nodes[regionA].heard[regionC] = true
		w.step(regionA)
		for _, r := range allRegions {
			if !w.encrypt(r) || w.nodes[r].current != testMaterial(0) {
				t.Fatalf("%s encrypts with %.8s", r, w.nodes[r].current)
			}
		}
	}
	if p, _ := w.nodes[regionA].set.Progress(); !cmp.Equal(p.Awaited, []regionName{regionC}) {
		t.Fatalf("awaited: %v", p.Awaited)
	}
	w.heal()
	w.converged(regionA, regionB, regionC)
}

func TestSharedRotationSetting(t *testing.T) {
	w := withReplicas(t)
	setting := mrk.Rotation{Enabled: true, Days: 180, Last: 1700000000}
	if err := w.nodes[regionB].set.SetRotation(ctx(), testSigner(regionB), setting); !errors.Is(err, mrk.ErrNotPrimary) {
		t.Errorf("setting at a replica: %v", err)
	}
	a := w.nodes[regionA]
	w.must(a.set.SetRotation(ctx(), testSigner(regionA), setting))
	seq := a.set.State().Seq
	w.must(a.set.SetRotation(ctx(), testSigner(regionA), setting))
	if a.set.State().Seq != seq {
		t.Error("a setting that is there already is written again")
	}
	w.settle(a)
	w.heal()
	if got := w.nodes[regionC].set.State().Rotation; got != setting {
		t.Errorf("C has %+v", got)
	}
}

// imported has an EXTERNAL key in A and B, of which only A has the material.
func imported(t *testing.T) *world {
	w := newWorld(t)
	a := w.nodes[regionA]
	nonce, _ := w.nonce()
	set, err := mrk.Create(ctx(), testSigner(regionA), a.self(), mrk.Properties{
		Key: testKey, Account: "111122223333", Spec: "SYMMETRIC_DEFAULT", Usage: "ENCRYPT_DECRYPT", Origin: "EXTERNAL", Created: 1700000000,
	}, mrk.Listed{}, nonce)
	w.must(err)
	clear(a.token)
	clear(a.rows)
	clear(a.used)
	a.set, a.state, a.current = set, "PendingImport", material.ID{}
	w.settle(a)
	w.must(a.set.ListImported(ctx(), testSigner(regionA), mrk.Listed{ID: testMaterial(0), Created: 1700000000, Reason: mrk.ReasonImport}))
	w.importInto(regionA, testMaterial(0))
	w.must(w.replicate(regionA, regionB))
	w.heal()
	w.nodes[regionB].state = "PendingImport" // as keyops has it of an EXTERNAL replica
	w.settle(w.nodes[regionB])
	w.heal()
	if n := len(w.nodes[regionB].held()); n != 0 || w.nodes[regionB].set.Entry(regionB).Status != mrk.Active {
		t.Fatalf("B holds %d materials that nobody imported there", n)
	}
	return w
}

func (w *world) importInto(r regionName, id material.ID) {
	n := w.nodes[r]
	n.token[id], n.rows[id], n.state = true, true, "Enabled"
	w.settle(n)
}

func TestImportedKeys(t *testing.T) {
	w := imported(t)
	a := w.nodes[regionA]
	w.importInto(regionB, testMaterial(0))
	w.heal()
	second := mrk.Listed{ID: testMaterial(1), Created: 1700000000, Reason: mrk.ReasonImport}
	release := func() error {
		_, err := a.set.ReleaseImported(ctx(), testSigner(regionA), w.contact(a))
		return err
	}
	if err := release(); !errors.Is(err, mrk.ErrNothing) {
		t.Errorf("releasing nothing: %v", err)
	}
	w.must(a.set.ListImported(ctx(), testSigner(regionA), second))
	w.importInto(regionA, second.ID)
	w.heal()
	if a.set.Pending() != second.ID || a.current != testMaterial(0) {
		t.Fatalf("pending %.8s, current %.8s", a.set.Pending(), a.current)
	}
	if err := a.set.ListImported(ctx(), testSigner(regionA), mrk.Listed{ID: testMaterial(2)}); !errors.Is(err, mrk.ErrPending) {
		t.Errorf("a third import: %v", err)
	}
	if err := release(); !errors.Is(err, mrk.ErrAwaited) {
		t.Errorf("releasing before B has imported: %v", err)
	}
	w.must(a.set.CancelPending(ctx(), testSigner(regionA)))
	if err := a.set.CancelPending(ctx(), testSigner(regionA)); !errors.Is(err, mrk.ErrNothing) {
		t.Errorf("cancelling twice: %v", err)
	}
	w.settle(a)
	w.heal()
	if b := w.nodes[regionB].set; !b.Pending().IsZero() || len(b.Listed()) != 1 {
		t.Errorf("B lists %d materials after the import was taken back", len(b.Listed()))
	} else if n := len(b.Facts(mrk.Hash{}).Earlier); n != 0 {
		t.Errorf("B shows %d states that list an import which was taken back", n)
	}
	w.must(a.set.ListImported(ctx(), testSigner(regionA), second))
	w.settle(a)
	w.heal()
	w.importInto(regionB, second.ID)
	w.sync(regionB, regionA)
	clear(a.heard)
	if err := release(); !errors.Is(err, mrk.ErrNotHeard) {
		t.Errorf("releasing before B was heard: %v", err)
	}
	w.heal()
	if a.current != testMaterial(0) {
		t.Fatal("an import became current without its owner's word")
	}
	w.must(release())
	w.settle(a)
	w.heal()
	if got := w.nodes[regionB].current; got != second.ID || a.set.Listed()[1].Holders != 2 {
		t.Errorf("B encrypts with %.8s, %d holders", got, a.set.Listed()[1].Holders)
	}
	if err := withReplicas(t).nodes[regionA].set.ListImported(ctx(), testSigner(regionA), second); !errors.Is(err, mrk.ErrMaterial) {
		t.Errorf("importing into a key that is made here: %v", err)
	}
}

func TestOnlyImportsAreTakenBack(t *testing.T) {
	w := withReplicas(t)
	w.must(w.rotate(regionA))
	if err := w.nodes[regionA].set.CancelPending(ctx(), testSigner(regionA)); !errors.Is(err, mrk.ErrPending) {
		t.Errorf("got %v", err)
	}
}
