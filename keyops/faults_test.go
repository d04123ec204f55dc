package keyops_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/storetest"
)

// scenario is one write, on a Region that was made ready for it.
type scenario struct {
	name string
	// ready makes the Region and returns the write.
	ready func(t *testing.T) (*keyopstest.Region, func() error)
	// applied says whether the write is to be seen.
	applied func(t *testing.T, r *keyopstest.Region) bool
}

func keyCount(t *testing.T, r *keyopstest.Region) int {
	t.Helper()
	out, err := r.ListKeys(context.Background(), admin(), keyops.ListKeysInput{})
	if err != nil {
		t.Fatal(explain(err))
	}
	return len(out.Keys)
}

func createScenario(name string, in keyops.CreateKeyInput) scenario {
	return scenario{name,
		func(t *testing.T) (*keyopstest.Region, func() error) {
			r := keyopstest.New(t, keyopstest.Options{})
			return r, func() error { return second(r.CreateKey(context.Background(), admin(), in)) }
		},
		func(t *testing.T, r *keyopstest.Region) bool { return keyCount(t, r) == 1 },
	}
}

// theKey returns the ID of a Region's only key.
func theKey(t *testing.T, r *keyopstest.Region) string {
	t.Helper()
	out, err := r.ListKeys(context.Background(), admin(), keyops.ListKeysInput{})
	if err != nil || len(out.Keys) != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	return string(out.Keys[0].KeyID)
}

// rotations returns how often a key was rotated.
func rotations(t *testing.T, r *keyopstest.Region, id string) int {
	t.Helper()
	out, err := r.ListKeyRotations(context.Background(), admin(), keyops.ListKeyRotationsInput{KeyID: id})
	if err != nil {
		t.Fatal(explain(err))
	}
	return len(out.Rotations)
}

var scenarios = []scenario{
	createScenario("create single-Region", keyops.CreateKeyInput{}),
	createScenario("create multi-Region", keyops.CreateKeyInput{MultiRegion: true}),
	createScenario("create key pair", keyops.CreateKeyInput{KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify}),
	{"disable", func(t *testing.T) (*keyopstest.Region, func() error) {
		r := keyopstest.New(t, keyopstest.Options{})
		k := create(t, r, keyops.CreateKeyInput{MultiRegion: true})
		return r, func() error {
			return second(r.DisableKey(context.Background(), admin(), keyops.DisableKeyInput{KeyID: k.ARN}))
		}
	}, func(t *testing.T, r *keyopstest.Region) bool {
		k, err := r.SharedKey(r.SharedKeys()[0])
		if err != nil {
			t.Fatal(err)
		}
		if own := k.Set.Own(); own.KeyState != string(k.State) {
			t.Errorf("the key is %s, its member fact says %s", k.State, own.KeyState)
		}
		return k.State == "Disabled"
	}},
	{"move alias", func(t *testing.T) (*keyopstest.Region, func() error) {
		r := keyopstest.New(t, keyopstest.Options{})
		a, b := create(t, r, keyops.CreateKeyInput{}), create(t, r, keyops.CreateKeyInput{Description: "second"})
		if _, err := r.CreateAlias(context.Background(), admin(), keyops.CreateAliasInput{AliasName: "alias/a", TargetKeyID: a.ARN}); err != nil {
			t.Fatal(err)
		}
		return r, func() error {
			return second(r.UpdateAlias(context.Background(), admin(), keyops.UpdateAliasInput{AliasName: "alias/a", TargetKeyID: b.ARN}))
		}
	}, func(t *testing.T, r *keyopstest.Region) bool {
		list, err := r.ListAliases(context.Background(), admin(), keyops.ListAliasesInput{})
		if err != nil || len(list.Aliases) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		out, err := r.DescribeKey(context.Background(), admin(), keyops.DescribeKeyInput{KeyID: "alias/a"})
		if err != nil {
			t.Fatal(explain(err))
		}
		return out.KeyMetadata.Description == "second"
	}},
	{"rotate", func(t *testing.T) (*keyopstest.Region, func() error) {
		r := keyopstest.New(t, keyopstest.Options{})
		k := create(t, r, keyops.CreateKeyInput{})
		return r, func() error {
			return second(r.RotateKeyOnDemand(context.Background(), admin(), keyops.RotateKeyOnDemandInput{KeyID: k.ARN}))
		}
	}, func(t *testing.T, r *keyopstest.Region) bool {
		return rotations(t, r, theKey(t, r)) == 1
	}},
	{"rotate multi-Region", func(t *testing.T) (*keyopstest.Region, func() error) {
		r := keyopstest.New(t, keyopstest.Options{})
		k := create(t, r, keyops.CreateKeyInput{MultiRegion: true})
		return r, func() error {
			return second(r.RotateKeyOnDemand(context.Background(), admin(), keyops.RotateKeyOnDemandInput{KeyID: k.ARN}))
		}
	}, func(t *testing.T, r *keyopstest.Region) bool {
		k, err := r.SharedKey(r.SharedKeys()[0])
		if err != nil {
			t.Fatal(err)
		}
		if len(k.Held()) != len(k.Set.Listed()) || k.Current != k.Set.Current() {
			t.Errorf("the key holds %v, its state lists %v", k.Held(), k.Set.Listed())
		}
		return rotations(t, r, string(k.ID)) == 1
	}},
	{"schedule deletion", func(t *testing.T) (*keyopstest.Region, func() error) {
		r := keyopstest.New(t, keyopstest.Options{})
		k := create(t, r, keyops.CreateKeyInput{})
		return r, func() error {
			return second(r.ScheduleKeyDeletion(context.Background(), admin(), keyops.ScheduleKeyDeletionInput{KeyID: k.ARN}))
		}
	}, func(t *testing.T, r *keyopstest.Region) bool {
		out, err := r.DescribeKey(context.Background(), admin(), keyops.DescribeKeyInput{KeyID: theKey(t, r)})
		if err != nil {
			t.Fatal(explain(err))
		}
		pending := out.KeyMetadata.KeyState == "PendingDeletion"
		if pending == out.KeyMetadata.DeletionDate.IsZero() {
			t.Errorf("a key that is %s has the deletion date %s", out.KeyMetadata.KeyState, out.KeyMetadata.DeletionDate)
		}
		return pending
	}},
	{"delete", func(t *testing.T) (*keyopstest.Region, func() error) {
		clock := newClock()
		r := keyopstest.New(t, keyopstest.Options{Clock: clock.now})
		k := create(t, r, keyops.CreateKeyInput{})
		if _, err := r.ScheduleKeyDeletion(context.Background(), admin(), keyops.ScheduleKeyDeletionInput{KeyID: k.ARN, PendingWindowInDays: 7}); err != nil {
			t.Fatal(explain(err))
		}
		return r, func() error {
			clock.advance(8 * 24 * time.Hour)
			return r.Work(context.Background())
		}
	}, func(t *testing.T, r *keyopstest.Region) bool {
		return keyCount(t, r) == 0
	}},
	{"install", func(t *testing.T) (*keyopstest.Region, func() error) {
		w := newTwo(t)
		k := w.replicate(t, keyops.CreateKeyInput{})
		w.tell(t, k.KeyID, w.paris, w.tokyo)
		w.tell(t, k.KeyID, w.tokyo, w.paris)
		id, err := material.Parse(k.CurrentKeyMaterialID)
		if err != nil {
			t.Fatal(err)
		}
		blob, err := w.paris.WrapMaterial(context.Background(), k.KeyID, id, w.tokyo.Descriptor.Descriptor)
		if err != nil {
			t.Fatal(explain(err))
		}
		return w.tokyo, func() error { return w.tokyo.InstallMaterial(context.Background(), k.KeyID, blob) }
	}, func(t *testing.T, r *keyopstest.Region) bool {
		k, err := r.SharedKey(r.SharedKeys()[0])
		if err != nil {
			t.Fatal(err)
		}
		if own := k.Set.Own(); len(own.Held) != len(k.Held()) {
			t.Errorf("the key holds %v, its member fact says %v", k.Held(), own.Held)
		}
		return len(k.Held()) == 1
	}},
}

// sound checks the whole state of a Region after a start: rows and objects name each other,
// every key works, and the next start finds nothing to do.
func sound(t *testing.T, r *keyopstest.Region) {
	t.Helper()
	if o := r.Reconciliation(); len(o.Orphans)+len(o.Lost)+len(o.TakenBack) != 0 {
		t.Errorf("the start found %+v", o)
	}
	r.Restart(t)
	if o := r.Reconciliation(); !reflect.DeepEqual(o, keyops.Reconciliation{}) {
		t.Errorf("the second start found %+v", o)
	}
	materials := 0
	for _, o := range r.Token.Objects() {
		if o.Spec.Material() {
			materials++
		}
	}
	out, err := r.ListKeys(context.Background(), admin(), keyops.ListKeysInput{})
	if err != nil {
		t.Fatal(explain(err))
	}
	listed := 0
	for _, e := range out.Keys {
		md, err := r.DescribeKey(context.Background(), admin(), keyops.DescribeKeyInput{KeyID: e.KeyARN})
		if err != nil {
			t.Fatal(explain(err))
		}
		if md.KeyMetadata.KeyState == "Creating" {
			k, err := r.SharedKey(e.KeyID)
			if err != nil {
				t.Fatal(err)
			}
			listed += len(k.Materials)
			continue
		}
		if md.KeyMetadata.KeyState == "PendingImport" {
			continue
		}
		listed++
		if md.KeyMetadata.KeySpec == keyops.SymmetricDefault {
			all, err := r.ListKeyRotations(context.Background(), admin(), keyops.ListKeyRotationsInput{KeyID: e.KeyARN, IncludeKeyMaterial: keyops.AllKeyMaterial})
			if err != nil {
				t.Fatal(explain(err))
			}
			listed += len(all.Rotations) - 1
		}
		if !md.KeyMetadata.Enabled {
			continue
		}
		switch md.KeyMetadata.KeyUsage {
		case keyops.EncryptDecrypt:
			enc, err := r.Encrypt(context.Background(), admin(), keyops.EncryptInput{KeyID: e.KeyARN, Plaintext: x})
			if err != nil {
				t.Fatal(explain(err))
			}
			if _, err := r.Decrypt(context.Background(), admin(), keyops.DecryptInput{CiphertextBlob: enc.CiphertextBlob}); err != nil {
				t.Error(explain(err))
			}
		case keyops.SignVerify:
			sig, err := r.Sign(context.Background(), admin(), keyops.SignInput{KeyID: e.KeyARN, Message: x, SigningAlgorithm: keyops.AlgorithmECDSASHA256})
			if err != nil {
				t.Fatal(explain(err))
			}
			if _, err := r.Verify(context.Background(), admin(), keyops.VerifyInput{KeyID: e.KeyARN, Message: x, Signature: sig.Signature, SigningAlgorithm: keyops.AlgorithmECDSASHA256}); err != nil {
				t.Error(explain(err))
			}
		}
	}
	if listed != materials {
		t.Errorf("%d materials in rows, %d in the token", listed, materials)
	}
}

// TestStoreFaults fails each store transaction of each write: before it, within it, and
// after it became durable; with a store that goes on, and with one that is gone from there.
func TestStoreFaults(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			points := storePoints(t, sc)
			if len(points) < 3 {
				t.Fatalf("points of failure: %v", points)
			}
			for i, p := range points {
				for _, crash := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s crash=%v", p, crash), func(t *testing.T) { storeFault(t, sc, i, crash) })
				}
			}
		})
	}
}

// withHook starts the Region again on a store with this hook.
func withHook(t *testing.T, r *keyopstest.Region, hook func(storetest.Point) error) {
	t.Helper()
	r.Options.Store = func(s store.Store) store.Store { return storetest.NewFaulty(s, hook) }
	r.Restart(t)
}

func storePoints(t *testing.T, sc scenario) (points []storetest.Point) {
	r, write := sc.ready(t)
	on := false
	withHook(t, r, func(p storetest.Point) error {
		if on {
			points = append(points, p)
		}
		return nil
	})
	on = true
	if err := write(); err != nil {
		t.Fatal(explain(err))
	}
	on = false
	return points
}

func storeFault(t *testing.T, sc scenario, at int, crash bool) {
	r, err := failingAt(t, sc, at, crash)
	if err == nil {
		t.Error("the failed write was answered with success")
	}
	sc.applied(t, r)
	sound(t, r)
}

// failingAt writes with a store that fails at one of its points, and starts the Region again.
func failingAt(t *testing.T, sc scenario, at int, crash bool) (r *keyopstest.Region, err error) {
	r, write := sc.ready(t)
	n, on := 0, false
	withHook(t, r, func(storetest.Point) error {
		if !on {
			return nil
		}
		n++
		switch {
		case n-1 != at:
			return nil
		case crash:
			return storetest.ErrCrash
		}
		return errors.New("the disk says no")
	})
	on = true
	err = write()
	on = false
	r.Options.Store = nil
	r.Restart(t)
	return r, err
}

// TestTokenFaults fails each call of the token within each write: before it has any effect,
// after it, and for good.
func TestTokenFaults(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			r, write := sc.ready(t)
			var ops []string
			r.Fake.SetHook(func(c hsmtest.Call) hsmtest.Fault { ops = append(ops, c.Op); return hsmtest.Fault{} })
			if err := write(); err != nil {
				t.Fatal(explain(err))
			}
			r.Fake.SetHook(nil)
			if !sc.applied(t, r) {
				t.Fatal("the write has no effect")
			}
			for i, op := range ops {
				for _, how := range []string{"not applied", "but applied", "and gone"} {
					t.Run(fmt.Sprintf("%d %s failed, %s", i, op, how), func(t *testing.T) { tokenFault(t, sc, i, how) })
				}
			}
		})
	}
}

func tokenFault(t *testing.T, sc scenario, at int, how string) {
	r, write := sc.ready(t)
	n := 0
	r.Fake.SetHook(func(hsmtest.Call) hsmtest.Fault {
		n++
		switch {
		case how == "and gone" && n-1 >= at:
			return hsmtest.Fault{Before: hsmtest.FailedNotApplied}
		case n-1 != at:
			return hsmtest.Fault{}
		case how == "but applied":
			return hsmtest.Fault{After: hsmtest.FailedButApplied}
		}
		return hsmtest.Fault{Before: hsmtest.FailedNotApplied}
	})
	err := write()
	r.Fake.SetHook(nil)
	if before := sc.applied(t, r); before && err != nil {
		// Only the audit record or its checkpoint failed; what is visible stays.
		defer func() {
			if !sc.applied(t, r) {
				t.Error("what was visible is gone after a restart")
			}
		}()
	} else if err == nil && !before {
		t.Error("success was answered and nothing is to be seen")
	}
	r.Restart(t)
	if applied := sc.applied(t, r); err == nil && !applied {
		t.Error("success was answered, and the restart lost it")
	}
	sound(t, r)
}

// TestLateTokenWrite: a token that carries out a write after its caller was told that it
// failed leaves an object that the next start destroys, because the intent is still there.
func TestLateTokenWrite(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	var late hsm.ID
	r.Fake.SetHook(func(c hsmtest.Call) hsmtest.Fault {
		if c.Op != "Generate" {
			return hsmtest.Fault{}
		}
		late = c.ID
		return hsmtest.Fault{Before: hsmtest.FailedButApplied}
	})
	_, err := r.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{})
	want(t, err, keyops.ErrKeyUnavailable, "")
	r.Fake.SetHook(nil)
	spec := hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.AES256, Name: "late"}
	if _, err := r.Fake.Generate(t.Context(), spec, late); err != nil {
		t.Fatal(err)
	}
	r.Restart(t)
	if o := r.Reconciliation(); len(o.Undone) != 1 || len(o.Orphans) != 0 {
		t.Errorf("the start found %+v", o)
	}
	sound(t, r)
}

// TestFullStore: a full disk refuses what would need it, with words, and nothing else.
func TestFullStore(t *testing.T) {
	full := false
	r := keyopstest.New(t, keyopstest.Options{Store: func(s store.Store) store.Store {
		return storetest.NewFaulty(s, func(p storetest.Point) error {
			if full && p.Stage == storetest.Within {
				return store.ErrFull
			}
			return nil
		})
	}})
	k := create(t, r, keyops.CreateKeyInput{})
	full = true
	_, err := r.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{})
	want(t, err, keyops.ErrLimitExceeded, "store is full")
	if _, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: k.ARN, Plaintext: x}); err != nil {
		t.Error(explain(err))
	}
	full = false
	create(t, r, keyops.CreateKeyInput{}) // there is room again, and no restart is needed
	sound(t, r)
}

// TestFailedStopsWrites: after a transaction of unknown outcome nothing is written on a
// guess, and what is in memory still serves.
func TestFailedStopsWrites(t *testing.T) {
	on := false
	r := keyopstest.New(t, keyopstest.Options{Store: func(s store.Store) store.Store {
		return storetest.NewFaulty(s, func(p storetest.Point) error {
			if on && p.Stage == storetest.After {
				return errors.New("the disk went away")
			}
			return nil
		})
	}})
	k := create(t, r, keyops.CreateKeyInput{})
	if r.Failure() != nil {
		t.Fatal(r.Failure())
	}
	on = true
	_, err := r.DisableKey(t.Context(), admin(), keyops.DisableKeyInput{KeyID: k.ARN})
	want(t, err, keyops.ErrInternal, "")
	select {
	case <-r.Failed():
	default:
		t.Error("the service does not know that it cannot write")
	}
	if !errors.Is(r.Failure(), store.ErrOutcomeUnknown) {
		t.Errorf("failure %v", r.Failure())
	}
	on = false
	if _, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: k.ARN, Plaintext: x}); err != nil {
		t.Error(explain(err))
	}
	_, err = r.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{})
	want(t, err, keyops.ErrInternal, "")
	r.Options.Store = nil
	r.Restart(t)
	out, err := r.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: k.ARN})
	if err != nil || out.KeyMetadata.KeyState != "Disabled" {
		t.Errorf("the store has %+v, %v", out.KeyMetadata.KeyState, err)
	}
}
