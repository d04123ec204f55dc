package keyops_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// objectsOf counts the token's objects of a key's material.
func objectsOf(r *keyopstest.Region, k keyops.KeyMetadata) int {
	n := 0
	for _, o := range r.Token.Objects() {
		if o.Spec.Material() && strings.HasPrefix(o.Spec.Name, string(k.KeyID)+"/") {
			n++
		}
	}
	return n
}

// TestDeleteImported: what was deleted is gone from the token, and comes back as the same
// material or not at all.
func TestDeleteImported(t *testing.T) {
	for _, kind := range importKinds {
		t.Run(kind.name, func(t *testing.T) {
			r := keyopstest.New(t, keyopstest.Options{})
			k, secret := external(t, r, kind.in), kind.secret(t)
			id := mustImport(t, r, k.ARN, secret, nil)
			remove := func(material string) (keyops.DeleteImportedKeyMaterialOutput, error) {
				return r.DeleteImportedKeyMaterial(t.Context(), admin(), keyops.DeleteImportedKeyMaterialInput{KeyID: k.ARN, KeyMaterialID: material})
			}
			_, err := remove(strings.Repeat("0", 64))
			want(t, err, keyops.ErrNotFound, "no key material with ID 0000")
			for range 2 { // the second has no effect
				out, err := remove("")
				if err != nil || out.KeyMaterialID != id || out.KeyID != k.ARN {
					t.Fatalf("%+v, %v", out, explain(err))
				}
				if md := describeKey(t, r, k.ARN); md.KeyState != "PendingImport" || md.Enabled || md.ExpirationModel != "" || objectsOf(r, k) != 0 {
					t.Errorf("the key is %s, with %d objects", md.KeyState, objectsOf(r, k))
				}
			}
			r.Restart(t)
			_, err = importing(t, r, k.ARN, kind.secret(t), nil)
			want(t, err, keyops.ErrIncorrectKeyMaterial, "exactly the same bytes")
			_, err = importing(t, r, k.ARN, secret, func(in *keyops.ImportKeyMaterialInput) { in.KeyMaterialID = strings.Repeat("0", 64) })
			want(t, err, keyops.ErrIncorrectKeyMaterial, "no key material with ID")
			if got := mustImport(t, r, k.ARN, secret, nil); got != id {
				t.Errorf("the same bytes have another ID: %s, before %s", got, id)
			}
			kind.works(t, r, k.ARN, secret)
			if _, err := remove(id); err != nil {
				t.Fatal(explain(err))
			}
			if got := mustImport(t, r, k.ARN, secret, func(in *keyops.ImportKeyMaterialInput) {
				in.KeyMaterialID, in.ImportType = id, keyops.ExistingKeyMaterial
			}); got != id || objectsOf(r, k) != 1 {
				t.Errorf("imported %s, %d objects", got, objectsOf(r, k))
			}
			sound(t, r)
		})
	}
}

// refuseDestroy makes the token refuse to destroy objects.
func refuseDestroy(r *keyopstest.Region) {
	r.Fake.SetHook(func(c hsmtest.Call) hsmtest.Fault {
		if c.Op == "Destroy" {
			return hsmtest.Fault{Before: hsmtest.FailedNotApplied}
		}
		return hsmtest.Fault{}
	})
}

// TestDeletedMaterialStaysGone: a token that refuses to destroy the object of deleted
// material is asked again, and a process that dies before has a successor that asks.
func TestDeletedMaterialStaysGone(t *testing.T) {
	for _, by := range []string{"the caller", "the worker", "the next start"} {
		r := keyopstest.New(t, keyopstest.Options{})
		k := external(t, r, keyops.CreateKeyInput{})
		mustImport(t, r, k.ARN, random(32), nil)
		refuseDestroy(r)
		in := keyops.DeleteImportedKeyMaterialInput{KeyID: k.ARN}
		_, err := r.DeleteImportedKeyMaterial(t.Context(), admin(), in)
		want(t, err, keyops.ErrKeyUnavailable, "")
		if md := describeKey(t, r, k.ARN); md.KeyState != "PendingImport" || objectsOf(r, k) != 1 {
			t.Errorf("the key is %s, with %d objects", md.KeyState, objectsOf(r, k))
		}
		r.Fake.SetHook(nil)
		switch by {
		case "the next start":
			r.Restart(t)
		case "the worker":
			if err := r.Work(t.Context()); err != nil {
				t.Fatal(err)
			}
		default:
			if _, err := r.DeleteImportedKeyMaterial(t.Context(), admin(), in); err != nil {
				t.Fatal(explain(err))
			}
		}
		if md := describeKey(t, r, k.ARN); md.KeyState != "PendingImport" || objectsOf(r, k) != 0 {
			t.Errorf("by %s: the key is %s, with %d objects", by, md.KeyState, objectsOf(r, k))
		}
	}
}

// TestImportExpires: unusable at the instant, gone a day later, and back with a new import.
func TestImportExpires(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	r := keyopstest.New(t, keyopstest.Options{Clock: func() time.Time { return now }})
	k, secret := external(t, r, keyops.CreateKeyInput{}), random(32)
	until := now.Add(48 * time.Hour)
	expires := func(in *keyops.ImportKeyMaterialInput) { in.ExpirationModel, in.ValidTo = "", until }
	id := mustImport(t, r, k.ARN, secret, expires)
	md := describeKey(t, r, k.ARN)
	if md.ExpirationModel != keyops.MaterialExpires || !md.ValidTo.Equal(until) || md.KeyState != "Enabled" {
		t.Errorf("%s, %s until %s", md.KeyState, md.ExpirationModel, md.ValidTo)
	}
	blob, err := encryptWith(r, k)
	if err != nil {
		t.Fatal(explain(err))
	}
	now = until.Add(-1)
	if err := decryptWith(r, blob); err != nil {
		t.Error(explain(err))
	}
	for range 2 { // and after a restart
		now = until
		want(t, decryptWith(r, blob), keyops.ErrInvalidState, "is pending import.")
		_, err = encryptWith(r, k)
		want(t, err, keyops.ErrInvalidState, "is pending import.")
		_, err = r.EnableKey(t.Context(), admin(), keyops.EnableKeyInput{KeyID: k.ARN})
		want(t, err, keyops.ErrInvalidState, "is pending import.")
		if md := describeKey(t, r, k.ARN); md.KeyState != "PendingImport" || md.Enabled || md.CurrentKeyMaterialID != id {
			t.Errorf("the key is %s with %s", md.KeyState, md.CurrentKeyMaterialID)
		}
		r.Restart(t)
	}
	work := func() {
		t.Helper()
		if err := r.Work(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	now = until.Add(24*time.Hour - 1)
	work()
	if objectsOf(r, k) != 1 {
		t.Error("the object has gone too early: a clock that was wrong could not be put right")
	}
	// The clock goes back: it was wrong, and nothing is lost.
	now = until.Add(-time.Hour)
	if err := decryptWith(r, blob); err != nil {
		t.Error(explain(err))
	}
	now = until.Add(24 * time.Hour)
	work()
	if md := describeKey(t, r, k.ARN); objectsOf(r, k) != 0 || md.KeyState != "PendingImport" || md.ExpirationModel != "" {
		t.Errorf("%d objects, %s, %s", objectsOf(r, k), md.KeyState, md.ExpirationModel)
	}
	if !strings.Contains(auditText(t, r), `"DeleteExpiredKeyMaterial"`) {
		t.Error("the audit log has no DeleteExpiredKeyMaterial")
	}
	r.Restart(t)
	if md := describeKey(t, r, k.ARN); md.KeyState != "PendingImport" {
		t.Errorf("after a restart the key is %s", md.KeyState)
	}
	until = now.Add(365 * 24 * time.Hour)
	if got := mustImport(t, r, k.ARN, secret, expires); got != id {
		t.Errorf("imported %s, before %s", got, id)
	}
	if err := decryptWith(r, blob); err != nil {
		t.Error(explain(err))
	}
	sound(t, r)
}

// TestImportAgainChangesTheExpiry: the same bytes over the same bytes move the date only.
func TestImportAgainChangesTheExpiry(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	r := keyopstest.New(t, keyopstest.Options{Clock: func() time.Time { return now }})
	k, secret := external(t, r, keyops.CreateKeyInput{}), random(32)
	id := mustImport(t, r, k.ARN, secret, nil)
	object := materialObject(t, r, k.KeyID).ID
	until := now.Add(time.Hour)
	if got := mustImport(t, r, k.ARN, secret, func(in *keyops.ImportKeyMaterialInput) { in.ExpirationModel, in.ValidTo = "", until }); got != id {
		t.Errorf("imported %s, before %s", got, id)
	}
	if md := describeKey(t, r, k.ARN); !md.ValidTo.Equal(until) || objectsOf(r, k) != 1 || materialObject(t, r, k.KeyID).ID != object {
		t.Errorf("valid to %s, %d objects", md.ValidTo, objectsOf(r, k))
	}
	now = until
	if md := describeKey(t, r, k.ARN); md.KeyState != "PendingImport" {
		t.Errorf("the key is %s", md.KeyState)
	}
	mustImport(t, r, k.ARN, secret, nil)
	if md := describeKey(t, r, k.ARN); md.KeyState != "Enabled" || !md.ValidTo.IsZero() {
		t.Errorf("the key is %s until %s", md.KeyState, md.ValidTo)
	}
	sound(t, r)
}

// TestNewImport: a second material of a symmetric key waits for its rotation; other keys
// have one material for life.
func TestNewImport(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	as := func(it keyops.ImportType) func(*keyops.ImportKeyMaterialInput) {
		return func(in *keyops.ImportKeyMaterialInput) { in.ImportType = it }
	}
	k, one, two := external(t, r, keyops.CreateKeyInput{}), random(32), random(32)
	_, err := importing(t, r, k.ARN, one, as(keyops.ExistingKeyMaterial))
	want(t, err, keyops.ErrIncorrectKeyMaterial, "NEW_KEY_MATERIAL")
	first := mustImport(t, r, k.ARN, one, as(keyops.NewKeyMaterial))
	_, err = importing(t, r, k.ARN, one, as(keyops.NewKeyMaterial))
	want(t, err, keyops.ErrIncorrectKeyMaterial, "EXISTING_KEY_MATERIAL")
	second := mustImport(t, r, k.ARN, two, as(keyops.NewKeyMaterial))
	if md := describeKey(t, r, k.ARN); md.CurrentKeyMaterialID != first || md.KeyState != "Enabled" || second == first {
		t.Errorf("current %s, %s; want %s", md.CurrentKeyMaterialID, md.KeyState, first)
	}
	_, err = importing(t, r, k.ARN, random(32), as(keyops.NewKeyMaterial))
	want(t, err, keyops.ErrInvalidState, "because another key material (id: "+second+") is pending rotation.")
	// A pending material that is deleted is forgotten, and the key works on.
	if _, err := r.DeleteImportedKeyMaterial(t.Context(), admin(), keyops.DeleteImportedKeyMaterialInput{KeyID: k.ARN, KeyMaterialID: second}); err != nil {
		t.Fatal(explain(err))
	}
	if md := describeKey(t, r, k.ARN); md.KeyState != "Enabled" || objectsOf(r, k) != 1 {
		t.Errorf("%s, %d objects", md.KeyState, objectsOf(r, k))
	}
	_, err = importing(t, r, k.ARN, two, as(keyops.ExistingKeyMaterial))
	want(t, err, keyops.ErrIncorrectKeyMaterial, "exactly the same bytes")
	mustImport(t, r, k.ARN, random(32), as(keyops.NewKeyMaterial))

	m := external(t, r, importKinds[1].in)
	mustImport(t, r, m.ARN, random(32), nil)
	_, err = importing(t, r, m.ARN, random(32), as(keyops.NewKeyMaterial))
	want(t, err, keyops.ErrUnsupportedOperation, "one key material for life")
}

// TestImportStates: keys made here take no imports, and what waits for one does nothing else.
func TestImportStates(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	made, k := create(t, r, keyops.CreateKeyInput{}), external(t, r, keyops.CreateKeyInput{})
	p := parameters(t, r, k.ARN, keyops.WrapOAEPSHA256)
	for name, err := range map[string]error{
		"parameters": second(r.GetParametersForImport(t.Context(), admin(), keyops.GetParametersForImportInput{KeyID: made.ARN, WrappingAlgorithm: keyops.WrapOAEPSHA1, WrappingKeySpec: keyops.WrappingRSA2048})),
		"import":     second(r.ImportKeyMaterial(t.Context(), admin(), keyops.ImportKeyMaterialInput{KeyID: made.ARN, ImportToken: p.ImportToken, EncryptedKeyMaterial: x, ExpirationModel: keyops.MaterialDoesNotExpire})),
		"delete":     second(r.DeleteImportedKeyMaterial(t.Context(), admin(), keyops.DeleteImportedKeyMaterialInput{KeyID: made.ARN})),
	} {
		t.Run(name, func(t *testing.T) { want(t, err, keyops.ErrUnsupportedOperation, "origin is AWS_KMS") })
	}
	_, err := encryptWith(r, k)
	want(t, err, keyops.ErrInvalidState, "is pending import.")
	_, err = r.DisableKey(t.Context(), admin(), keyops.DisableKeyInput{KeyID: k.ARN})
	want(t, err, keyops.ErrInvalidState, "is pending import.")
	if out, err := r.DeleteImportedKeyMaterial(t.Context(), admin(), keyops.DeleteImportedKeyMaterialInput{KeyID: k.ARN}); err != nil || out.KeyMaterialID != "" {
		t.Errorf("deleting nothing: %+v, %v", out, err)
	}
	secret := random(32)
	mustImport(t, r, k.ARN, secret, nil)
	// A disabled key takes the import, and stays disabled unless it was waiting for it.
	if _, err := r.DisableKey(t.Context(), admin(), keyops.DisableKeyInput{KeyID: k.ARN}); err != nil {
		t.Fatal(explain(err))
	}
	mustImport(t, r, k.ARN, secret, nil)
	if md := describeKey(t, r, k.ARN); md.KeyState != "Disabled" {
		t.Errorf("the key is %s", md.KeyState)
	}
	// Lost to the token, it can be imported again.
	if err := r.Fake.Destroy(t.Context(), materialObject(t, r, k.KeyID).ID); err != nil {
		t.Fatal(err)
	}
	r.Restart(t)
	if md := describeKey(t, r, k.ARN); md.KeyState != "PendingImport" {
		t.Errorf("the key is %s", md.KeyState)
	}
	mustImport(t, r, k.ARN, secret, nil)
	if md := describeKey(t, r, k.ARN); md.KeyState != "Enabled" {
		t.Errorf("the key is %s", md.KeyState)
	}
	worksSymmetric(t, r, k.ARN, secret)
}

// TestImportInputs: each bound one below, at and one above; nothing that is refused here
// costs an attempt.
func TestImportInputs(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	r := keyopstest.New(t, keyopstest.Options{Clock: func() time.Time { return now }})
	k, secret := external(t, r, keyops.CreateKeyInput{}), random(32)
	id := mustImport(t, r, k.ARN, secret, nil)
	year := 365 * 24 * time.Hour
	type change func(*keyops.ImportKeyMaterialInput)
	until := func(d time.Duration) change {
		return func(in *keyops.ImportKeyMaterialInput) { in.ExpirationModel, in.ValidTo = "", now.Add(d) }
	}
	described := func(n int) change {
		return func(in *keyops.ImportKeyMaterialInput) { in.KeyMaterialDescription = strings.Repeat("é", n) }
	}
	for _, tc := range []struct {
		name   string
		change change
		reason keyops.Reason // empty: accepted
		part   string
	}{
		{"no token", func(in *keyops.ImportKeyMaterialInput) { in.ImportToken = nil }, keyops.ErrValidation, "'importToken'"},
		{"token 6144", func(in *keyops.ImportKeyMaterialInput) { in.ImportToken = make([]byte, 6144) }, keyops.ErrInvalidImportToken, ""},
		{"token 6145", func(in *keyops.ImportKeyMaterialInput) { in.ImportToken = make([]byte, 6145) }, keyops.ErrValidation, "6144"},
		{"no material", func(in *keyops.ImportKeyMaterialInput) { in.EncryptedKeyMaterial = nil }, keyops.ErrValidation, "'encryptedKeyMaterial'"},
		{"material 6144", func(in *keyops.ImportKeyMaterialInput) { in.EncryptedKeyMaterial = make([]byte, 6144) }, keyops.ErrInvalidCiphertext, ""},
		{"material 6145", func(in *keyops.ImportKeyMaterialInput) { in.EncryptedKeyMaterial = make([]byte, 6145) }, keyops.ErrValidation, "6144"},
		{"expires, without a date", func(in *keyops.ImportKeyMaterialInput) { in.ExpirationModel = "" }, keyops.ErrValidation, "validTo date must be set"},
		{"does not expire, with a date", func(in *keyops.ImportKeyMaterialInput) { in.ValidTo = now.Add(time.Hour) }, keyops.ErrValidation, "must not be set"},
		{"expires now", until(0), keyops.ErrValidation, "in the future"},
		{"expires next", until(1), "", ""},
		{"expires in 365 days less one", until(year - 1), "", ""},
		{"expires in 365 days", until(year), "", ""},
		{"expires in 365 days and one", until(year + 1), keyops.ErrValidation, "365 days"},
		{"unknown model", func(in *keyops.ImportKeyMaterialInput) { in.ExpirationModel = "NEVER" }, keyops.ErrValidation, "'expirationModel'"},
		{"unknown type", func(in *keyops.ImportKeyMaterialInput) { in.ImportType = "OLD" }, keyops.ErrValidation, "'importType'"},
		{"description 255", described(255), "", ""},
		{"description 256", described(256), "", ""},
		{"description 257", described(257), keyops.ErrValidation, "256"},
		{"description no text", func(in *keyops.ImportKeyMaterialInput) { in.KeyMaterialDescription = "\xff" }, keyops.ErrValidation, ""},
		{"material ID 63", func(in *keyops.ImportKeyMaterialInput) { in.KeyMaterialID = id[1:] }, keyops.ErrValidation, "'keyMaterialId'"},
		{"material ID 64", func(in *keyops.ImportKeyMaterialInput) { in.KeyMaterialID = id }, "", ""},
		{"material ID 65", func(in *keyops.ImportKeyMaterialInput) { in.KeyMaterialID = id + "0" }, keyops.ErrValidation, "'keyMaterialId'"},
		{"material ID of new material", func(in *keyops.ImportKeyMaterialInput) { in.KeyMaterialID, in.ImportType = id, keyops.NewKeyMaterial }, keyops.ErrValidation, "NEW_KEY_MATERIAL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := parameters(t, r, k.ARN, keyops.WrapOAEPSHA256)
			in := keyops.ImportKeyMaterialInput{
				KeyID: k.ARN, ImportToken: p.ImportToken, EncryptedKeyMaterial: wrap(t, keyops.WrapOAEPSHA256, p.PublicKey, secret),
				ExpirationModel: keyops.MaterialDoesNotExpire,
			}
			good := in
			tc.change(&in)
			_, err := r.ImportKeyMaterial(t.Context(), admin(), in)
			if tc.reason == "" {
				if err != nil {
					t.Error(explain(err))
				}
				return
			}
			want(t, err, tc.reason, tc.part)
			if _, err := r.ImportKeyMaterial(t.Context(), admin(), good); err != nil {
				t.Error("afterwards:", explain(err))
			}
		})
	}
	for name, in := range map[string]keyops.GetParametersForImportInput{
		"'wrappingAlgorithm'": {KeyID: k.ARN, WrappingAlgorithm: "RSAES_PKCS1_V1_5", WrappingKeySpec: keyops.WrappingRSA2048},
		"'wrappingKeySpec'":   {KeyID: k.ARN, WrappingAlgorithm: keyops.WrapOAEPSHA1, WrappingKeySpec: "RSA_1024"},
	} {
		_, err := r.GetParametersForImport(t.Context(), admin(), in)
		want(t, err, keyops.ErrValidation, name)
	}
}

// importScenarios are the writes of an import, for the tests that let each step fail.
func importScenarios() []scenario {
	secret := random(32)
	applied := func(state string) func(t *testing.T, r *keyopstest.Region) bool {
		return func(t *testing.T, r *keyopstest.Region) bool {
			out, err := r.ListKeys(context.Background(), admin(), keyops.ListKeysInput{})
			if err != nil || len(out.Keys) != 1 {
				t.Fatalf("%+v, %v", out, err)
			}
			md := describeKey(t, r, out.Keys[0].KeyARN)
			held := objectsOf(r, md)
			if md.KeyState == "Enabled" && held != 1 {
				t.Errorf("the key is enabled, with %d objects", held)
			}
			return md.KeyState == state
		}
	}
	prepare := func(t *testing.T, imported bool) (*keyopstest.Region, keyops.KeyMetadata) {
		r := keyopstest.New(t, keyopstest.Options{})
		k := external(t, r, keyops.CreateKeyInput{})
		if imported {
			mustImport(t, r, k.ARN, secret, nil)
		}
		return r, k
	}
	return []scenario{
		{"import", func(t *testing.T) (*keyopstest.Region, func() error) {
			r, k := prepare(t, false)
			p := parameters(t, r, k.ARN, keyops.WrapOAEPSHA256)
			blob := wrap(t, keyops.WrapOAEPSHA256, p.PublicKey, secret)
			return r, func() error {
				return second(r.ImportKeyMaterial(context.Background(), admin(), keyops.ImportKeyMaterialInput{
					KeyID: k.ARN, ImportToken: p.ImportToken, EncryptedKeyMaterial: blob, ExpirationModel: keyops.MaterialDoesNotExpire,
				}))
			}
		}, applied("Enabled")},
		{"delete", func(t *testing.T) (*keyopstest.Region, func() error) {
			r, k := prepare(t, true)
			return r, func() error {
				return second(r.DeleteImportedKeyMaterial(context.Background(), admin(), keyops.DeleteImportedKeyMaterialInput{KeyID: k.ARN}))
			}
		}, applied("PendingImport")},
	}
}

// TestImportFaults fails each store transaction and each call of the token within an import
// and a deletion; then the Region starts again, and rows and objects must fit.
func TestImportFaults(t *testing.T) {
	for _, sc := range importScenarios() {
		for i, p := range storePoints(t, sc) {
			for _, crash := range []bool{false, true} {
				t.Run(sc.name+" "+p.String(), func(t *testing.T) { importFault(t, sc, i, crash) })
			}
		}
		r, write := sc.ready(t)
		var ops []string
		r.Fake.SetHook(func(c hsmtest.Call) hsmtest.Fault { ops = append(ops, c.Op); return hsmtest.Fault{} })
		if err := write(); err != nil {
			t.Fatal(explain(err))
		}
		r.Fake.SetHook(nil)
		for i, op := range ops {
			for _, how := range []string{"not applied", "but applied", "and gone"} {
				t.Run(sc.name+" "+op+" "+how, func(t *testing.T) { tokenFault(t, sc, i, how) })
			}
		}
	}
}

// importFault is storeFault for writes that leave cleaning up to a later time when they
// have done what they were asked.
func importFault(t *testing.T, sc scenario, at int, crash bool) {
	r, err := failingAt(t, sc, at, crash)
	if applied := sc.applied(t, r); err == nil && !applied {
		t.Error("success was answered, and the restart lost it")
	}
	spent := 0
	for _, o := range r.Token.Objects() {
		if o.Spec.Role == hsm.RoleImportWrapping {
			spent++
		}
	}
	if sc.name == "import" && sc.applied(t, r) && spent != 0 {
		t.Error("the wrapping key of a served import is still there")
	}
	sound(t, r)
}

func auditText(t *testing.T, r *keyopstest.Region) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.AuditDir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}
