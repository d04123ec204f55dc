package keyops_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/transport"
)

// follow has a Region take what its directory says of transport keys by now.
func follow(t *testing.T, r *keyopstest.Region) {
	t.Helper()
	set, err := transport.Load(r.Dir)
	if err != nil {
		t.Fatal(err)
	}
	r.UseTransport(set)
}

// retire writes the transcript of one end's retirement.
func retire(t *testing.T, r *keyopstest.Region, name transport.Name, role hsm.Role) {
	t.Helper()
	set, err := transport.Load(r.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range set.Transcripts() {
		if tr.Name != name || tr.Role != role || tr.Event != transport.Established {
			continue
		}
		tr.Event, tr.At = transport.Retired, time.Now().Truncate(time.Second).UTC()
		f, err := tr.Sign(t.Context(), r.Descriptor.Descriptor, r.StatementSigner())
		if err == nil {
			err = statement.WriteJSON(filepath.Join(r.Dir.Transcripts(), tr.File()), f)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("%s was never established as %s", name, role)
}

// TestTransportKeysChangeWhileServing: a blob that was wrapped under the old epoch is taken
// until that is retired at its destination, and none after; what is wrapped once both ends
// have the new epoch is wrapped under it.
func TestTransportKeysChangeWhileServing(t *testing.T) {
	w := newTwo(t)
	to := w.tokyo.Descriptor.Descriptor
	wrap := func() (keyops.KeyMetadata, mrk.Blob) {
		t.Helper()
		k := w.replicate(t, keyops.CreateKeyInput{})
		w.tell(t, k.KeyID, w.paris, w.tokyo)
		w.tell(t, k.KeyID, w.tokyo, w.paris)
		id, err := material.Parse(k.CurrentKeyMaterialID)
		if err != nil {
			t.Fatal(err)
		}
		blob, err := w.paris.WrapMaterial(t.Context(), k.KeyID, id, to, w.tokyo.UnwrapEpochs(k.KeyID, w.paris.Descriptor.Descriptor)...)
		if err != nil {
			t.Fatal(explain(err))
		}
		return k, blob
	}
	early, earlyBlob := wrap()
	late, lateBlob := wrap()
	if earlyBlob.Epoch != 1 || lateBlob.Epoch != 1 {
		t.Fatalf("wrapped under epochs %d and %d", earlyBlob.Epoch, lateBlob.Epoch)
	}

	next := keyopstest.SetName(w.paris, w.tokyo, 2)
	if err := keyopstest.Transcribe(t.Context(), w.paris, w.tokyo, next, hsmtest.Establish(w.paris.Fake, w.tokyo.Fake, next.String())); err != nil {
		t.Fatal(err)
	}
	follow(t, w.paris) // the source first: the destination does not say yet that it has the epoch
	if _, blob := wrap(); blob.Epoch != 1 {
		t.Errorf("wrapped under epoch %d, which the destination has not said that it has", blob.Epoch)
	}
	follow(t, w.tokyo)
	fresh, freshBlob := wrap()
	if freshBlob.Epoch != 2 {
		t.Errorf("wrapped under epoch %d, both ends have 2", freshBlob.Epoch)
	}
	if err := w.tokyo.InstallMaterial(t.Context(), fresh.KeyID, freshBlob); err != nil {
		t.Errorf("under the new epoch: %s", explain(err))
	}
	if err := w.tokyo.InstallMaterial(t.Context(), early.KeyID, earlyBlob); err != nil {
		t.Errorf("under the old epoch, before it is retired: %s", explain(err))
	}

	old := keyopstest.SetName(w.paris, w.tokyo, 1)
	retire(t, w.tokyo, old, hsm.RoleTransportDestination)
	follow(t, w.tokyo)
	objects := len(w.tokyo.Fake.Objects())
	if err := w.tokyo.InstallMaterial(t.Context(), late.KeyID, lateBlob); !errors.Is(err, keyops.ErrNoTransportKey) {
		t.Errorf("under an epoch that is retired here: %v", err)
	}
	if n := len(w.tokyo.Fake.Objects()); n != objects {
		t.Errorf("a refused blob has left %d objects", n-objects)
	}
	retire(t, w.paris, old, hsm.RoleTransportSource)
	follow(t, w.paris)
	if _, err := w.paris.WrapMaterial(t.Context(), late.KeyID, lateBlob.Material, to, 1); !errors.Is(err, keyops.ErrNoTransportKey) {
		t.Errorf("wrapping under an epoch that is retired here: %v", err)
	}
	again, err := w.paris.WrapMaterial(t.Context(), late.KeyID, lateBlob.Material, to)
	if err != nil || again.Epoch != 2 {
		t.Fatalf("wrapped again under epoch %d, %v", again.Epoch, err)
	}
	if err := w.tokyo.InstallMaterial(t.Context(), late.KeyID, again); err != nil {
		t.Errorf("wrapped again: %s", explain(err))
	}
}

// A transport key that is in a transcript and not in the token any more is missing, at either end:
// that is said, and nothing of the material itself is doubted.
func TestTransportKeyThatIsNotInTheToken(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	w.tell(t, k.KeyID, w.paris, w.tokyo)
	w.tell(t, k.KeyID, w.tokyo, w.paris)
	id, err := material.Parse(k.CurrentKeyMaterialID)
	if err != nil {
		t.Fatal(err)
	}
	destroy := func(r *keyopstest.Region, role hsm.Role) {
		t.Helper()
		set, err := transport.Load(r.Dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range set.All() {
			if key.Role != role {
				continue
			}
			if err := r.Fake.Destroy(t.Context(), key.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	blob, err := w.paris.WrapMaterial(t.Context(), k.KeyID, id, w.tokyo.Descriptor.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	destroy(w.tokyo, hsm.RoleTransportDestination)
	if err := w.tokyo.InstallMaterial(t.Context(), k.KeyID, blob); !errors.Is(err, keyops.ErrNoTransportKey) {
		t.Errorf("unwrapping: %v", err)
	}
	destroy(w.paris, hsm.RoleTransportSource)
	if _, err := w.paris.WrapMaterial(t.Context(), k.KeyID, id, w.tokyo.Descriptor.Descriptor); !errors.Is(err, keyops.ErrNoTransportKey) {
		t.Errorf("wrapping: %v", err)
	}
	if _, err := w.paris.Encrypt(t.Context(), keyopstest.Admin(), keyops.EncryptInput{KeyID: string(k.KeyID), Plaintext: []byte("x")}); err != nil {
		t.Errorf("encrypting: %v", err)
	}
}
