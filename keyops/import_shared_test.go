package keyops_test

import (
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// materialState is what ListKeyRotations says of a material.
func materialState(t *testing.T, r *keyopstest.Region, key, material string) keyops.KeyMaterialState {
	t.Helper()
	out, err := r.ListKeyRotations(t.Context(), admin(), keyops.ListKeyRotationsInput{KeyID: key, IncludeKeyMaterial: keyops.AllKeyMaterial})
	if err != nil {
		t.Fatal(explain(err))
	}
	for _, e := range out.Rotations {
		if e.KeyMaterialID == material {
			return e.KeyMaterialState
		}
	}
	return ""
}

// TestImportSharedKey: the bytes of a multi-Region key of origin EXTERNAL are imported in
// each Region, equal ones only, and a new material is current when all have it.
func TestImportSharedKey(t *testing.T) {
	w := newTwo(t)
	k := external(t, w.paris, keyops.CreateKeyInput{MultiRegion: true})
	id, secret := string(k.KeyID), random(32)
	replicate := func() error {
		return second(w.paris.ReplicateKey(t.Context(), admin(), keyops.ReplicateKeyInput{KeyID: k.ARN, ReplicaRegion: "ap-tokyo-1"}))
	}
	want(t, replicate(), keyops.ErrInvalidState, "is pending import.")
	first := mustImport(t, w.paris, id, secret, nil)
	if md := describeKey(t, w.paris, id); md.KeyState != "Enabled" || md.CurrentKeyMaterialID != first || md.Exportability != keyops.ExportNever {
		t.Fatalf("the primary key is %s with %s, exportability %s", md.KeyState, md.CurrentKeyMaterialID, md.Exportability)
	}
	if err := replicate(); err != nil {
		t.Fatal(explain(err))
	}
	w.sync(t, k.KeyID)
	if md := describeKey(t, w.tokyo, id); md.KeyState != "PendingImport" || objectsOf(w.tokyo, k) != 0 {
		t.Fatalf("the replica key is %s", md.KeyState)
	}
	_, err := importing(t, w.tokyo, id, secret, func(in *keyops.ImportKeyMaterialInput) { in.ImportType = keyops.NewKeyMaterial })
	want(t, err, keyops.ErrUnsupportedOperation, "imported first in Region eu-paris-1")
	_, err = importing(t, w.tokyo, id, random(32), nil)
	want(t, err, keyops.ErrIncorrectKeyMaterial, "exactly the same bytes")
	if got := mustImport(t, w.tokyo, id, secret, nil); got != first {
		t.Errorf("the replica key has %s, the primary key %s", got, first)
	}
	w.sync(t, k.KeyID)
	crosses := func(from, to *keyopstest.Region) {
		t.Helper()
		enc, err := from.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: id, Plaintext: x})
		if err != nil {
			t.Fatal(explain(err))
		}
		if _, err := to.Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: enc.CiphertextBlob}); err != nil {
			t.Error(explain(err))
		}
	}
	crosses(w.paris, w.tokyo)
	crosses(w.tokyo, w.paris)

	// New material waits for every Region, then for its owner's word.
	asNew := func(in *keyops.ImportKeyMaterialInput) { in.ImportType = keyops.NewKeyMaterial }
	newer := random(32)
	pending := mustImport(t, w.paris, id, newer, asNew)
	if s := materialState(t, w.paris, id, pending); s != keyops.MaterialPendingMultiRegionImportRotation {
		t.Errorf("the new material is %s", s)
	}
	rotateNow := func(r *keyopstest.Region) error {
		return second(r.RotateKeyOnDemand(t.Context(), admin(), keyops.RotateKeyOnDemandInput{KeyID: id}))
	}
	want(t, rotateNow(w.paris), keyops.ErrInvalidState, "not imported yet in [ap-tokyo-1]")
	w.sync(t, k.KeyID)
	if md := describeKey(t, w.tokyo, id); md.KeyState != "Enabled" || md.CurrentKeyMaterialID != first {
		t.Errorf("the replica key is %s with %s", md.KeyState, md.CurrentKeyMaterialID)
	}
	if got := mustImport(t, w.tokyo, id, newer, func(in *keyops.ImportKeyMaterialInput) { in.KeyMaterialID = pending }); got != pending {
		t.Errorf("imported %s, want %s", got, pending)
	}
	w.sync(t, k.KeyID)
	if s := materialState(t, w.paris, id, pending); s != keyops.MaterialPendingRotation {
		t.Errorf("the new material is %s", s)
	}
	if md := describeKey(t, w.paris, id); md.CurrentKeyMaterialID != first {
		t.Error("the new material is current before its owner has said so")
	}
	want(t, rotateNow(w.tokyo), keyops.ErrUnsupportedOperation, "eu-paris-1")
	if err := rotateNow(w.paris); err != nil {
		t.Fatal(explain(err))
	}
	w.sync(t, k.KeyID)
	for _, r := range []*keyopstest.Region{w.paris, w.tokyo} {
		if md := describeKey(t, r, id); md.CurrentKeyMaterialID != pending || md.KeyState != "Enabled" {
			t.Errorf("%s: %s with %s", r.Options.Name, md.KeyState, md.CurrentKeyMaterialID)
		}
	}
	crosses(w.paris, w.tokyo)
	crosses(w.tokyo, w.paris)

	// What one Region deletes is gone there only; a pending material that the primary key's
	// Region gives up is gone everywhere.
	if _, err := w.tokyo.DeleteImportedKeyMaterial(t.Context(), admin(), keyops.DeleteImportedKeyMaterialInput{KeyID: id, KeyMaterialID: first}); err != nil {
		t.Fatal(explain(err))
	}
	w.sync(t, k.KeyID)
	if a, b := describeKey(t, w.paris, id), describeKey(t, w.tokyo, id); a.KeyState != "Enabled" || b.KeyState != "PendingImport" {
		t.Errorf("the primary key is %s, the replica key %s", a.KeyState, b.KeyState)
	}
	mustImport(t, w.tokyo, id, secret, nil)
	third := random(32)
	given := mustImport(t, w.paris, id, third, asNew)
	w.sync(t, k.KeyID)
	mustImport(t, w.tokyo, id, third, nil)
	w.sync(t, k.KeyID)
	if _, err := w.paris.DeleteImportedKeyMaterial(t.Context(), admin(), keyops.DeleteImportedKeyMaterialInput{KeyID: id, KeyMaterialID: given}); err != nil {
		t.Fatal(explain(err))
	}
	w.sync(t, k.KeyID)
	if s := materialState(t, w.paris, id, given); s != "" || objectsOf(w.paris, k) != 2 {
		t.Errorf("the material that was given up is %q; %d objects", s, objectsOf(w.paris, k))
	}
	if err := w.tokyo.Work(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*keyopstest.Region{w.paris, w.tokyo} {
		if n := objectsOf(r, k); n != 2 {
			t.Errorf("%s has %d objects", r.Options.Name, n)
		}
		if md := describeKey(t, r, id); md.KeyState != "Enabled" {
			t.Errorf("%s: %s", r.Options.Name, md.KeyState)
		}
	}
}

// TestForgottenMaterialIsDestroyed: a pending material that is deleted has no row any more,
// so an intent names its object until that is destroyed.
func TestForgottenMaterialIsDestroyed(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := external(t, r, keyops.CreateKeyInput{})
	mustImport(t, r, k.ARN, random(32), nil)
	pending := mustImport(t, r, k.ARN, random(32), func(in *keyops.ImportKeyMaterialInput) { in.ImportType = keyops.NewKeyMaterial })
	refuseDestroy(r)
	_, err := r.DeleteImportedKeyMaterial(t.Context(), admin(), keyops.DeleteImportedKeyMaterialInput{KeyID: k.ARN, KeyMaterialID: pending})
	want(t, err, keyops.ErrKeyUnavailable, "")
	r.Fake.SetHook(nil)
	r.Restart(t)
	if got := r.Reconciliation(); len(got.Undone) != 1 || len(got.Orphans) != 0 || objectsOf(r, k) != 1 {
		t.Errorf("the start found %+v; %d objects are left", got, objectsOf(r, k))
	}
	sound(t, r)
}
