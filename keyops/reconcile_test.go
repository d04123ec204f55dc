package keyops_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/sqlite"
)

// copyStore copies the store of a stopped Region, as a backup does.
func copyStore(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		os.Remove(to + suffix)
		in, err := os.Open(from + suffix)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.OpenFile(to+suffix, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, in); err != nil {
			t.Fatal(err)
		}
		in.Close()
		out.Close()
	}
}

// edit changes the database file behind the Region's back.
func edit(t *testing.T, r *keyopstest.Region, statement string, args ...any) {
	t.Helper()
	r.Stop()
	db, err := sql.Open("sqlite", r.StorePath)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	res, err := db.Exec(statement, args...)
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := res.RowsAffected(); n == 0 {
		t.Fatalf("%s changed nothing", statement)
	}
}

func startErr(r *keyopstest.Region) error { return r.Start(context.Background()) }

// materialObject returns the token object of a key's only material.
func materialObject(t testing.TB, r *keyopstest.Region, id arn.KeyID) hsm.Object {
	t.Helper()
	for _, o := range r.Token.Objects() {
		if strings.HasPrefix(o.Spec.Name, string(id)+"/") {
			return o
		}
	}
	t.Fatalf("no object of key %s", id)
	return hsm.Object{}
}

func encryptWith(r *keyopstest.Region, k keyops.KeyMetadata) ([]byte, error) {
	out, err := r.Encrypt(context.Background(), admin(), keyops.EncryptInput{KeyID: string(k.KeyID), Plaintext: x})
	return out.CiphertextBlob, err
}

func decryptWith(r *keyopstest.Region, blob []byte) error {
	return second(r.Decrypt(context.Background(), admin(), keyops.DecryptInput{CiphertextBlob: blob}))
}

func TestLostAndReturned(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	single, shared := create(t, r, keyops.CreateKeyInput{}), create(t, r, keyops.CreateKeyInput{MultiRegion: true})
	blob, err := encryptWith(r, single)
	if err != nil {
		t.Fatal(err)
	}
	backup := r.Fake.Snapshot()
	for _, k := range []keyops.KeyMetadata{single, shared} {
		if err := r.Fake.Destroy(t.Context(), materialObject(t, r, k.KeyID).ID); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the finding is made once, and stays true
		r.Restart(t)
		want(t, decryptWith(r, blob), keyops.ErrKeyUnavailable, "")
		_, err := encryptWith(r, single)
		want(t, err, keyops.ErrKeyUnavailable, "not in this Region's token")
	}
	k, err := r.SharedKey(shared.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	if len(k.Set.Own().Held) != 0 || k.Set.Acting() {
		t.Errorf("a Region that lost the material says that it holds %v and acts: %v", k.Set.Own().Held, k.Set.Acting())
	}
	if got := k.Set.Own().Current; !got.IsZero() {
		t.Errorf("it says that it encrypts with %s", got)
	}
	md, err := r.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: single.ARN})
	if err != nil || md.KeyMetadata.Exportability != keyops.ExportUnknown {
		t.Errorf("%+v, %v", md, err)
	}
	r.Fake.Restore(backup)
	r.Restart(t)
	if got := r.Reconciliation().Returned; len(got) != 2 {
		t.Errorf("returned: %v", got)
	}
	if err := decryptWith(r, blob); err != nil {
		t.Error(explain(err))
	}
	k, _ = r.SharedKey(shared.KeyID)
	if len(k.Set.Own().Held) != 1 || k.Set.Own().Current != k.Current {
		t.Errorf("the member fact says %v and %s", k.Set.Own().Held, k.Set.Own().Current)
	}
}

// TestCE22StoreOlderThanAuditLog: the audit log has seen the store further on, so the store was
// rolled back, and the daemon does not start on it before operators have approved it.
func TestCE22StoreOlderThanAuditLog(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{Peers: keyopstest.NewNetwork()})
	before := create(t, r, keyops.CreateKeyInput{MultiRegion: true})
	r.Stop()
	backup := t.TempDir() + "/backup.db"
	copyStore(t, r.StorePath, backup)
	if err := startErr(r); err != nil {
		t.Fatal(err)
	}
	forgotten := create(t, r, keyops.CreateKeyInput{})
	r.Stop()
	copyStore(t, backup, r.StorePath)
	if err := startErr(r); !errors.Is(err, seal.ErrRolledBack) {
		t.Fatalf("start on an old store: %v", err)
	}
	r.Believe(t)
	if err := startErr(r); err != nil {
		t.Fatal(err)
	}
	if _, err := encryptWith(r, before); err != nil {
		t.Error(explain(err))
	}
	k, err := r.SharedKey(before.KeyID)
	if err != nil || k.Set.Acting() {
		t.Errorf("a key is managed from a store that was rolled back: %v", err)
	}
	if got := r.Reconciliation().Orphans; len(got) != 1 || !strings.Contains(got[0], string(forgotten.KeyID)) {
		t.Errorf("orphans: %v", got)
	}
	materialObject(t, r, forgotten.KeyID) // it is left alone
}

// TestRestoredStoreDropsPermits: what a backup tool stamped is not managed from here.
func TestRestoredStoreDropsPermits(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{Peers: keyopstest.NewNetwork()})
	k := create(t, r, keyops.CreateKeyInput{MultiRegion: true})
	r.Stop()
	stamp(t, r)
	if err := startErr(r); err != nil {
		t.Fatal(err)
	}
	key, err := r.SharedKey(k.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	if key.Set.Acting() || !r.Reconciliation().Restored {
		t.Error("a store that was restored acts")
	}
	_, err = r.ReplicateKey(t.Context(), admin(), keyops.ReplicateKeyInput{KeyID: k.ARN, ReplicaRegion: "us-east-1"})
	if err == nil {
		t.Error("replicated from a restored store")
	}
	r.Restart(t)
	if r.Reconciliation().Restored {
		t.Error("the stamp is there for ever")
	}
}

// stamp marks the store of a stopped Region as a backup's copy.
func stamp(t *testing.T, r *keyopstest.Region) {
	t.Helper()
	db, err := sqlite.Open(t.Context(), sqlite.Config{Path: r.StorePath})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.AcquireLease(t.Context(), "backup", leaseTTL); err != nil {
		t.Fatal(err)
	}
	err = db.Update(t.Context(), func(tx store.Tx) error {
		meta, err := store.ReadMeta(tx)
		if err != nil {
			return err
		}
		meta.Restored = meta.Created
		return store.WriteMeta(tx, meta)
	})
	if err != nil {
		t.Fatal(err)
	}
}

const leaseTTL = 1e9

// TestForgottenMaterialIsTakenBack is trace CE13: a store restored from before a material
// came, and a token that still has it.
func TestForgottenMaterialIsTakenBack(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	w.tell(t, k.KeyID, w.paris, w.tokyo)
	w.tell(t, k.KeyID, w.tokyo, w.paris)
	w.tokyo.Stop()
	backup := t.TempDir() + "/backup.db"
	copyStore(t, w.tokyo.StorePath, backup)
	if err := startErr(w.tokyo); err != nil {
		t.Fatal(err)
	}
	w.sync(t, k.KeyID)
	blob, err := encryptWith(w.tokyo, k)
	if err != nil {
		t.Fatal(explain(err))
	}
	unwrapped := calls(w.tokyo)["C_UnwrapKey"]
	w.tokyo.Stop()
	copyStore(t, backup, w.tokyo.StorePath)
	w.tokyo.Believe(t)
	if err := startErr(w.tokyo); err != nil {
		t.Fatal(err)
	}
	if got := w.tokyo.Reconciliation().TakenBack; len(got) != 1 {
		t.Fatalf("taken back: %+v", w.tokyo.Reconciliation())
	}
	key, err := w.tokyo.SharedKey(k.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	if own := key.Set.Own(); len(own.Held) != 1 || len(own.Used) != 1 {
		t.Errorf("held %v, used %v", own.Held, own.Used)
	}
	w.sync(t, k.KeyID)
	if err := decryptWith(w.tokyo, blob); err != nil {
		t.Error(explain(err))
	}
	if n := calls(w.tokyo)["C_UnwrapKey"] - unwrapped; n != 0 {
		t.Errorf("%d C_UnwrapKey for a material that is there", n)
	}
}

// TestOrphansAreLeftAlone: what cannot be given back with certainty is not touched.
func TestOrphansAreLeftAlone(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{})
	plant := func(name string, role hsm.Role, local bool) hsm.ID {
		spec := hsm.Spec{Role: role, Algorithm: hsm.AES256, Name: name}
		id := hsm.NewID()
		var err error
		if local {
			_, err = r.Fake.Generate(t.Context(), spec, id)
		} else {
			err = r.Fake.Plant(spec, id, bytes.Repeat([]byte{1}, 32))
		}
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	ids := map[string]hsm.ID{
		"unknown key":                    plant(string(arn.NewKeyID(false))+"/-", hsm.RoleMaterial, true),
		"label of no key":                plant("something", hsm.RoleMaterial, true),
		"known bytes under a local name": plant(string(k.KeyID)+"/-", hsm.RoleMaterial, false),
		"another role":                   plant(string(k.KeyID)+"/-", hsm.RoleSharedMaterial, true),
		"a material ID that is not its":  plant(string(k.KeyID)+"/"+strings.Repeat("ab", 32), hsm.RoleMaterial, false),
	}
	r.Restart(t)
	if got := r.Reconciliation(); len(got.Orphans) != len(ids) || len(got.TakenBack) != 0 {
		t.Errorf("%+v", got)
	}
	for what, id := range ids {
		if _, err := r.Fake.Lookup(t.Context(), id); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestReplacedObject puts another key under the CKA_ID of a material, as whoever has the
// user PIN can: nothing is encrypted with it.
func TestReplacedObject(t *testing.T) {
	for _, multiRegion := range []bool{false, true} {
		r := keyopstest.New(t, keyopstest.Options{})
		k := create(t, r, keyops.CreateKeyInput{MultiRegion: multiRegion})
		o := materialObject(t, r, k.KeyID)
		r.Stop()
		if err := r.Fake.Destroy(t.Context(), o.ID); err != nil {
			t.Fatal(err)
		}
		if err := r.Fake.Plant(o.Spec, o.ID, bytes.Repeat([]byte{1}, 32)); err != nil {
			t.Fatal(err)
		}
		var alarms bytes.Buffer
		log := logrus.New()
		log.SetOutput(&alarms)
		r.Options.Log = log
		if err := startErr(r); err != nil {
			t.Fatal(err)
		}
		blob, err := encryptWith(r, k)
		want(t, err, keyops.ErrInternal, "")
		if len(blob) != 0 || !strings.Contains(alarms.String(), "ALARM") {
			t.Errorf("no alarm: %s", alarms.String())
		}
	}
}

// TestReplacedByTheToken puts a key under the CKA_ID of a material that the token made
// itself, so that every attribute is right: only its identity tells it apart.
func TestReplacedByTheToken(t *testing.T) {
	for _, in := range []keyops.CreateKeyInput{
		{},
		{KeySpec: keyops.HMAC256, KeyUsage: keyops.GenerateVerifyMac},
		{KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify},
	} {
		r := keyopstest.New(t, keyopstest.Options{})
		before := r.Fake.Snapshot()
		k := create(t, r, in)
		o := materialObject(t, r, k.KeyID)
		r.Stop()
		r.Fake.Restore(before)
		if _, err := r.Fake.Generate(t.Context(), o.Spec, o.ID); err != nil {
			t.Fatal(err)
		}
		if err := startErr(r); err != nil {
			t.Fatal(err)
		}
		var err error
		switch k.KeyUsage {
		case keyops.EncryptDecrypt:
			_, err = encryptWith(r, k)
		case keyops.GenerateVerifyMac:
			_, err = r.GenerateMac(t.Context(), admin(), keyops.GenerateMacInput{KeyID: k.ARN, Message: x, MacAlgorithm: keyops.AlgorithmHMACSHA256})
		case keyops.SignVerify:
			_, err = r.Sign(t.Context(), admin(), keyops.SignInput{KeyID: k.ARN, Message: x, SigningAlgorithm: keyops.AlgorithmECDSASHA256})
		}
		want(t, err, keyops.ErrInternal, "")
	}
}

// TestTamperedRow: a key whose row was changed is refused, the others serve.
func TestTamperedRow(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	good, bad := create(t, r, keyops.CreateKeyInput{}), create(t, r, keyops.CreateKeyInput{})
	blob, err := encryptWith(r, bad)
	if err != nil {
		t.Fatal(err)
	}
	edit(t, r, `UPDATE store_row SET body = replace(body, CAST('Enabled' AS BLOB), CAST('Disable' AS BLOB)) WHERE kind = 'key' AND id = ?`, string(bad.KeyID))
	if err := startErr(r); err != nil {
		t.Fatal(err)
	}
	if _, err := encryptWith(r, good); err != nil {
		t.Error(explain(err))
	}
	_, err = encryptWith(r, bad)
	want(t, err, keyops.ErrInternal, "fails its seal")
	if err := decryptWith(r, blob); err == nil {
		t.Error("a key whose row was tampered with decrypts")
	}
	_, err = r.Encrypt(t.Context(), keyopstest.User("mallory"), keyops.EncryptInput{KeyID: bad.ARN, Plaintext: x})
	want(t, err, keyops.ErrAccessDenied, "")
	if got := r.Reconciliation(); len(got.Orphans) != 0 || len(got.Lost) != 0 {
		t.Errorf("objects of a key that cannot be read: %+v", got)
	}
}

// TestForgedIntent: an intent of a thief's making destroys nothing.
func TestForgedIntent(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{})
	o := materialObject(t, r, k.KeyID)
	edit(t, r, `INSERT INTO store_row (kind, id, version, body, seal) SELECT 'intent', ?, 1, body, seal FROM store_row WHERE kind = 'key' AND id = ?`, o.ID.String(), string(k.KeyID))
	if err := startErr(r); err != nil {
		t.Fatal(err)
	}
	if _, err := encryptWith(r, k); err != nil {
		t.Error(explain(err))
	}
}

// TestTombstone: objects that belong to a deleted key are destroyed again, wherever they
// came from.
func TestTombstone(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	kept := create(t, r, keyops.CreateKeyInput{})
	deleted := arn.NewKeyID(false)
	id := hsm.NewID()
	if _, err := r.Fake.Generate(t.Context(), hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.AES256, Name: string(deleted) + "/-"}, id); err != nil {
		t.Fatal(err)
	}
	if err := r.PutTombstone(t.Context(), deleted, keyopstest.Account, id); err != nil {
		t.Fatal(err)
	}
	r.Restart(t)
	if got := r.Reconciliation().Destroyed; len(got) != 1 {
		t.Errorf("destroyed: %v", got)
	}
	if _, err := r.Fake.Lookup(t.Context(), id); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("the object of a deleted key: %v", err)
	}
	if _, err := encryptWith(r, kept); err != nil {
		t.Error(explain(err))
	}
}
