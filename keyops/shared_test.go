package keyops_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
)

func TestAdmitReplicaBoundsTheClaim(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	key, err := w.paris.SharedKey(k.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	req, _ := key.Set.Request("ap-tokyo-1")
	set, err := mrk.Join(mrk.Self{Region: "ap-tokyo-1", Instance: w.tokyo.Descriptor.Instance}, w.net, key.Set.Facts(mrk.Hash{}), req)
	if err != nil {
		t.Fatal(err)
	}
	good := claimOf(t, key, req)
	for _, tc := range []struct {
		name   string
		change func(*keyops.ReplicaClaim)
		want   error
	}{
		{"account not served", func(c *keyops.ReplicaClaim) { c.Account = "999999999999" }, keyops.ErrAccessDenied},
		{"principal of another account", func(c *keyops.ReplicaClaim) { c.Principal.Account = "999999999999" }, keyops.ErrAccessDenied},
		{"principal without permission", func(c *keyops.ReplicaClaim) { c.Principal.Name = "user/mallory" }, keyops.ErrAccessDenied},
		{"another key", func(c *keyops.ReplicaClaim) { c.Key = arn.NewKeyID(true) }, mrk.ErrRequest},
		{"single-Region key", func(c *keyops.ReplicaClaim) { c.Key = arn.NewKeyID(false) }, keyops.ErrUnsupportedOperation},
		{"another usage", func(c *keyops.ReplicaClaim) { c.Usage = keyops.SignVerify }, keyops.ErrValidation},
		{"another spec", func(c *keyops.ReplicaClaim) { c.Spec, c.Usage = keyops.HMAC256, keyops.GenerateVerifyMac }, mrk.ErrRequest},
		{"malformed policy", func(c *keyops.ReplicaClaim) { c.Policy = []byte("{") }, keyops.ErrMalformedPolicyDocument},
	} {
		t.Run(tc.name, func(t *testing.T) {
			claim := good
			tc.change(&claim)
			if err := w.tokyo.AdmitReplica(t.Context(), claim, set); !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
	elsewhere, err := mrk.Join(mrk.Self{Region: "ap-tokyo-1", Instance: w.tokyo.Descriptor.Instance}, w.net, key.Set.Facts(mrk.Hash{}), req)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.paris.AdmitReplica(t.Context(), good, elsewhere); err == nil {
		t.Error("the primary key's Region admits a replica")
	}
	if err := w.tokyo.AdmitReplica(t.Context(), good, key.Set); !errors.Is(err, mrk.ErrForeign) {
		t.Errorf("admitted with another Region's set: %v", err)
	}
	if len(w.tokyo.SharedKeys()) != 0 {
		t.Error("a refused replica exists")
	}
	if err := w.tokyo.AdmitReplica(t.Context(), good, set); err != nil {
		t.Fatal(explain(err))
	}
	if err := w.tokyo.AdmitReplica(t.Context(), good, set); !errors.Is(err, keyops.ErrAlreadyExists) {
		t.Errorf("admitted twice: %v", err)
	}
	w.tokyo.Restart(t)
	if ids := w.tokyo.SharedKeys(); len(ids) != 1 || ids[0] != k.KeyID {
		t.Errorf("shared keys after a restart: %v", ids)
	}
}

func TestMarksAreDurable(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	select {
	case <-w.paris.Changed():
	default:
		t.Error("nobody was told of the change")
	}
	w.paris.Restart(t)
	marks := w.paris.Marks()
	if len(marks) != 1 || marks[0].Key != k.KeyID || marks[0].Peer != "ap-tokyo-1" || marks[0].Attempts != 0 {
		t.Fatalf("marks %+v", marks)
	}
	key, err := w.paris.SharedKey(k.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	if marks[0].SetHash != key.Set.Hash() {
		t.Error("the mark is not about the newest facts")
	}
	failed := marks[0]
	failed.Attempts, failed.Cause, failed.Text, failed.NextTry = 3, mrk.CausePeerUnreachable, "no answer", time.Now().UTC()
	if err := w.paris.SaveMark(t.Context(), failed); err != nil {
		t.Fatal(err)
	}
	w.paris.Restart(t)
	if diff := cmp.Diff([]keyops.Mark{failed}, w.paris.Marks()); diff != "" {
		t.Errorf("after a restart:\n%s", diff)
	}
	// What the peer confirms is not the newest any more.
	if _, err := w.paris.DisableKey(t.Context(), admin(), keyops.DisableKeyInput{KeyID: k.ARN}); err != nil {
		t.Fatal(err)
	}
	if err := w.paris.ClearMark(t.Context(), k.KeyID, "ap-tokyo-1", failed.SetHash); err != nil {
		t.Fatal(err)
	}
	m, ok := w.paris.Mark(k.KeyID, "ap-tokyo-1")
	if !ok || m.SetHash == failed.SetHash || m.Attempts != 3 || !m.Since.Equal(failed.Since) {
		t.Errorf("mark %+v, %v", m, ok)
	}
	if err := w.paris.ClearMark(t.Context(), k.KeyID, "ap-tokyo-1", m.SetHash); err != nil {
		t.Fatal(err)
	}
	if err := w.paris.SaveMark(t.Context(), m); err != nil { // a late failure brings nothing back
		t.Fatal(err)
	}
	w.paris.Restart(t)
	if marks := w.paris.Marks(); len(marks) != 0 {
		t.Errorf("cleared marks are back: %+v", marks)
	}
}

func TestUpdateSharedAppliesNothingOnError(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	before, err := w.paris.SharedKey(k.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	head := w.paris.StoreHead()
	wrong := errors.New("wrong")
	err = w.paris.UpdateShared(t.Context(), k.KeyID, cause, func(c *keyops.Key) error {
		c.Description = "changed"
		c.Set.DropPermit()
		return wrong
	})
	if !errors.Is(err, wrong) {
		t.Errorf("error %v", err)
	}
	err = w.paris.UpdateShared(t.Context(), k.KeyID, cause, func(c *keyops.Key) error { return keyops.ErrUnchanged })
	if err != nil {
		t.Error(err)
	}
	after, _ := w.paris.SharedKey(k.KeyID)
	if after != before || w.paris.StoreHead() != head || !after.Set.Acting() {
		t.Error("an update that failed left something behind")
	}
	if err := w.paris.UpdateShared(t.Context(), arn.NewKeyID(true), cause, func(*keyops.Key) error { return nil }); !errors.Is(err, keyops.ErrNotFound) {
		t.Errorf("unknown key: %v", err)
	}
}

// TestCE21MaterialThatIsNotHere: what the key lists may still come, so the caller is told to
// try again; what nobody lists is no ciphertext, where that can be known.
func TestCE21MaterialThatIsNotHere(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	w.sync(t, k.KeyID)
	enc, err := w.paris.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: k.ARN, Plaintext: x})
	if err != nil {
		t.Fatal(err)
	}
	key, err := w.tokyo.SharedKey(k.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	_, reserved := w.tokyo.Encryptions(k.KeyID)
	// The token of the replica loses its object.
	if err := w.tokyo.Fake.Destroy(t.Context(), key.Materials[0].Object); err != nil {
		t.Fatal(err)
	}
	decrypt := func(r *keyopstest.Region, blob []byte) error {
		return second(r.Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: blob}))
	}
	want(t, decrypt(w.tokyo, enc.CiphertextBlob), keyops.ErrKeyUnavailable, "")
	w.tokyo.Restart(t)
	if lost := w.tokyo.Reconciliation().Lost; len(lost) != 1 {
		t.Errorf("lost: %v", lost)
	}
	want(t, decrypt(w.tokyo, enc.CiphertextBlob), keyops.ErrKeyUnavailable, "can be repeated")
	unknown := bytes.Clone(enc.CiphertextBlob)
	unknown[20] ^= 1
	want(t, decrypt(w.paris, unknown), keyops.ErrInvalidCiphertext, "")
	want(t, decrypt(w.tokyo, unknown), keyops.ErrKeyUnavailable, "") // never in contact
	w.net.SetContact("eu-paris-1", time.Now().Add(-61*time.Second))
	want(t, decrypt(w.tokyo, unknown), keyops.ErrKeyUnavailable, "") // not lately
	w.net.SetContact("eu-paris-1", time.Now())
	want(t, decrypt(w.tokyo, unknown), keyops.ErrInvalidCiphertext, "")

	// The peer hears of it and sends the material again.
	w.tell(t, k.KeyID, w.tokyo, w.paris)
	w.sync(t, k.KeyID)
	if err := decrypt(w.tokyo, enc.CiphertextBlob); err != nil {
		t.Error(explain(err))
	}
	if n, _ := w.tokyo.Encryptions(k.KeyID); n < reserved {
		t.Errorf("the count of encryptions went back to %d from up to %d", n, reserved)
	}
}
