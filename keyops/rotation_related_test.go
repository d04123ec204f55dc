package keyops_test

import (
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// TestAutomaticRotationOfRelatedKeys: the date is shared, and only the primary key's Region
// rotates when it comes; until every Region has the new material all encrypt with the old, and
// both ends say for whom the rotation waits.
func TestAutomaticRotationOfRelatedKeys(t *testing.T) {
	now := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	w := guarded(t, func() time.Time { return now })
	id := w.shared(t)
	ref, both := string(id), []*keyopstest.Region{w.paris, w.tokyo}
	if err := enableRotation(w.paris, ref, 90); err != nil {
		t.Fatal(explain(err))
	}
	w.sync(t, id)
	old, due := describe(t, w.paris, ref).CurrentKeyMaterialID, now.Add(90*aDay)
	for _, r := range both {
		if got := status(t, r, ref); !got.KeyRotationEnabled || !got.NextRotationDate.Equal(due) {
			t.Errorf("%s: %+v, want the next rotation on %s", r.Options.Name, got, due)
		}
	}
	work := func(r *keyopstest.Region) {
		t.Helper()
		if err := r.Work(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	now = due.Add(-time.Second)
	work(w.paris)
	now = due
	work(w.tokyo)
	if p := status(t, w.paris, ref).Progress; p != nil {
		t.Fatalf("rotated early, or by the replica key's Region: %+v", p)
	}
	work(w.paris)
	w.tell(t, id, w.paris, w.tokyo)
	for _, r := range both {
		got := status(t, r, ref)
		p := got.Progress
		if p == nil || p.Type != keyops.RotationAutomatic || !p.Started.Equal(due) || p.KeyMaterialID == old || len(p.Holding) != 1 || p.Holding[0] != "eu-paris-1" ||
			len(p.Awaited) != 1 || p.Awaited[0] != "ap-tokyo-1" || !got.OnDemandRotationStartDate.IsZero() {
			t.Errorf("%s: %+v, progress %+v", r.Options.Name, got, p)
		}
		if md := describe(t, r, ref); md.CurrentKeyMaterialID != old {
			t.Errorf("%s encrypts with material that is not everywhere", r.Options.Name)
		}
	}
	w.sync(t, id)
	for _, r := range both {
		list, err := r.ListKeyRotations(t.Context(), admin(), keyops.ListKeyRotationsInput{KeyID: ref})
		if err != nil || len(list.Rotations) != 1 {
			t.Fatalf("%s lists %+v, %v", r.Options.Name, list.Rotations, err)
		}
		one := list.Rotations[0]
		if md := describe(t, r, ref); md.CurrentKeyMaterialID == old || md.CurrentKeyMaterialID != one.KeyMaterialID || one.RotationType != keyops.RotationAutomatic || one.Holders != 2 {
			t.Errorf("%s encrypts with %s and lists %+v", r.Options.Name, md.CurrentKeyMaterialID, one)
		}
		if got := status(t, r, ref); got.Progress != nil || !got.NextRotationDate.Equal(due.Add(90*aDay)) {
			t.Errorf("%s: %+v", r.Options.Name, got)
		}
	}
}

// A replica key is refused as one also while it takes new material in, and not with a word
// about a rotation that its owner has not asked for there.
func TestRotateReplicaThatTakesMaterialIn(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	w.sync(t, k.KeyID)
	id := string(k.KeyID)
	if err := rotate(w.paris, id); err != nil {
		t.Fatal(explain(err))
	}
	w.tell(t, k.KeyID, w.paris, w.tokyo)
	asked := false
	w.tokyo.Fake.SetHook(func(c hsmtest.Call) hsmtest.Fault {
		if c.Op == "Unwrap" && !asked {
			asked = true
			want(t, rotate(w.tokyo, id), keyops.ErrUnsupportedOperation, "The primary key is in Region eu-paris-1: call there.")
		}
		return hsmtest.Fault{}
	})
	w.sync(t, k.KeyID)
	if !asked {
		t.Error("no material was taken in")
	}
}
