package keyops_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

func TestReplicateEveryKind(t *testing.T) {
	for name, make := range map[string]func(*testing.T) two{"fake": newTwo, "softhsm": newRealTwo} {
		t.Run(name, func(t *testing.T) {
			w := make(t)
			t.Run("symmetric", func(t *testing.T) { w.replicateSymmetric(t) })
			t.Run("mac", func(t *testing.T) { w.replicateMac(t) })
			t.Run("sign", func(t *testing.T) { w.replicateSign(t) })
		})
	}
}

func (w two) replicateSymmetric(t *testing.T) {
	k := w.replicate(t, keyops.CreateKeyInput{})
	w.tell(t, k.KeyID, w.paris, w.tokyo)
	_, err := w.tokyo.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: string(k.KeyID), Plaintext: x})
	want(t, err, keyops.ErrInvalidState, "is creating.")
	before, unwrapped := calls(w.paris)["C_WrapKey"], calls(w.tokyo)["C_UnwrapKey"]
	objects := len(w.tokyo.Token.Objects())
	w.sync(t, k.KeyID)
	if n := calls(w.paris)["C_WrapKey"] - before; n != 1 {
		t.Errorf("%d C_WrapKey at the source, want 1", n)
	}
	if n := calls(w.tokyo)["C_UnwrapKey"] - unwrapped; n != 1 {
		t.Errorf("%d C_UnwrapKey at the destination, want 1", n)
	}
	if n := len(w.tokyo.Token.Objects()) - objects; n != 1 {
		t.Errorf("%d objects more in the destination's token, want 1", n)
	}
	there, err := w.tokyo.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: string(k.KeyID)})
	if err != nil {
		t.Fatal(explain(err))
	}
	here, err := w.paris.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: string(k.KeyID)})
	if err != nil {
		t.Fatal(explain(err))
	}
	if md := there.KeyMetadata; md.KeyState != "Enabled" || md.CurrentKeyMaterialID != k.CurrentKeyMaterialID ||
		md.Exportability != keyops.ExportTransportOnly || md.Description != "replica" {
		t.Errorf("replica %+v", md)
	}
	conf := *here.KeyMetadata.MultiRegionConfiguration
	if len(conf.ReplicaKeys) != 1 || conf.MultiRegionKeyType != keyops.Primary {
		t.Errorf("primary key's view %+v", conf)
	}
	conf.MultiRegionKeyType = keyops.Replica
	if diff := cmp.Diff(conf, *there.KeyMetadata.MultiRegionConfiguration); diff != "" {
		t.Errorf("the Regions see different sets:\n%s", diff)
	}
	for _, pair := range [][2]*keyopstest.Region{{w.paris, w.tokyo}, {w.tokyo, w.paris}} {
		enc, err := pair[0].Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: string(k.KeyID), Plaintext: []byte("over there"), EncryptionContext: map[string]string{"a": "b"}})
		if err != nil {
			t.Fatal(explain(err))
		}
		pair[1].Restart(t)
		dec, err := pair[1].Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: enc.CiphertextBlob, EncryptionContext: map[string]string{"a": "b"}})
		if err != nil || string(dec.Plaintext) != "over there" {
			t.Errorf("decrypting elsewhere: %q, %v", dec.Plaintext, explain(err))
		}
		if dec.KeyID != "arn:aws:kms:"+string(pair[1].Options.Name)+":111122223333:key/"+string(k.KeyID) {
			t.Errorf("answered by %s", dec.KeyID)
		}
	}
	// A foreign Region's ARN is refused, never forwarded.
	_, err = w.tokyo.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: k.ARN})
	want(t, err, keyops.ErrNotFound, "Invalid arn eu-paris-1")
}

func calls(r *keyopstest.Region) map[string]uint64 {
	return r.Token.(interface{ Calls() map[string]uint64 }).Calls()
}

func (w two) replicateMac(t *testing.T) {
	k := w.replicate(t, keyops.CreateKeyInput{KeySpec: keyops.HMAC256, KeyUsage: keyops.GenerateVerifyMac})
	w.sync(t, k.KeyID)
	in := keyops.GenerateMacInput{KeyID: string(k.KeyID), Message: x, MacAlgorithm: keyops.AlgorithmHMACSHA256}
	a, err := w.paris.GenerateMac(t.Context(), admin(), in)
	if err != nil {
		t.Fatal(explain(err))
	}
	b, err := w.tokyo.GenerateMac(t.Context(), admin(), in)
	if err != nil || !bytes.Equal(a.Mac, b.Mac) {
		t.Errorf("MACs differ between Regions: %x, %x, %v", a.Mac, b.Mac, explain(err))
	}
}

func (w two) replicateSign(t *testing.T) {
	k := w.replicate(t, keyops.CreateKeyInput{KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify})
	w.sync(t, k.KeyID)
	sig, err := w.tokyo.Sign(t.Context(), admin(), keyops.SignInput{KeyID: string(k.KeyID), Message: x, SigningAlgorithm: keyops.AlgorithmECDSASHA256})
	if err != nil {
		t.Fatal(explain(err))
	}
	if _, err := w.paris.Verify(t.Context(), admin(), keyops.VerifyInput{KeyID: k.ARN, Message: x, Signature: sig.Signature, SigningAlgorithm: keyops.AlgorithmECDSASHA256}); err != nil {
		t.Error(explain(err))
	}
	a, err := w.paris.GetPublicKey(t.Context(), admin(), keyops.GetPublicKeyInput{KeyID: string(k.KeyID)})
	if err != nil {
		t.Fatal(explain(err))
	}
	b, err := w.tokyo.GetPublicKey(t.Context(), admin(), keyops.GetPublicKeyInput{KeyID: string(k.KeyID)})
	if err != nil || !bytes.Equal(a.PublicKey, b.PublicKey) {
		t.Errorf("public keys differ: %v", explain(err))
	}
	openssl(t, b.PublicKey, x, sig.Signature)
}

func TestReplicateKeyRefusals(t *testing.T) {
	w := newTwo(t)
	single := create(t, w.paris, keyops.CreateKeyInput{})
	k := w.replicate(t, keyops.CreateKeyInput{})
	w.sync(t, k.KeyID)
	disabled := create(t, w.paris, keyops.CreateKeyInput{MultiRegion: true})
	if _, err := w.paris.DisableKey(t.Context(), admin(), keyops.DisableKeyInput{KeyID: disabled.ARN}); err != nil {
		t.Fatal(err)
	}
	fresh := create(t, w.paris, keyops.CreateKeyInput{MultiRegion: true})
	replicate := func(r *keyopstest.Region, id arn.KeyID, to string) error {
		return second(r.ReplicateKey(t.Context(), admin(), keyops.ReplicateKeyInput{KeyID: string(id), ReplicaRegion: to}))
	}
	want(t, replicate(w.paris, single.KeyID, "ap-tokyo-1"), keyops.ErrUnsupportedOperation, single.ARN+" is not a multi-region primary key.")
	want(t, replicate(w.tokyo, k.KeyID, "eu-paris-1"), keyops.ErrUnsupportedOperation, "is not a multi-region primary key. The primary key is in Region eu-paris-1: call there.")
	want(t, replicate(w.paris, k.KeyID, "ap-tokyo-1"), keyops.ErrAlreadyExists, "")
	want(t, replicate(w.paris, k.KeyID, "eu-paris-1"), keyops.ErrAlreadyExists, "")
	want(t, replicate(w.paris, k.KeyID, "us-east-1"), keyops.ErrInvalidArn, "Region us-east-1 is not known here.")
	want(t, replicate(w.paris, k.KeyID, "Moon"), keyops.ErrValidation, "'replicaRegion'")
	want(t, replicate(w.paris, disabled.KeyID, "ap-tokyo-1"), keyops.ErrDisabled, "is disabled.")

	w.tokyo.Options.KeyQuota = 1
	w.tokyo.Restart(t)
	want(t, replicate(w.paris, fresh.KeyID, "ap-tokyo-1"), keyops.ErrLimitExceeded, "Region ap-tokyo-1 refuses the replica: ")
	w.tokyo.Options.KeyQuota = 0
	w.tokyo.Options.Identities = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/other"},"Action":"kms:*","Resource":"*"}]}`
	w.tokyo.Restart(t)
	want(t, replicate(w.paris, fresh.KeyID, "ap-tokyo-1"), keyops.ErrAccessDenied, "Region ap-tokyo-1 refuses the replica: ")

	// In the dark the call is accepted, once, and the mark says who has to hear of it.
	w.net.SetDark("ap-tokyo-1", true)
	if err := replicate(w.paris, fresh.KeyID, "ap-tokyo-1"); err != nil {
		t.Fatal(explain(err))
	}
	want(t, replicate(w.paris, fresh.KeyID, "ap-tokyo-1"), keyops.ErrAlreadyExists, "")
	if m, ok := w.paris.Mark(fresh.KeyID, "ap-tokyo-1"); !ok || m.Since.IsZero() {
		t.Errorf("mark %+v, %v", m, ok)
	}
}

// TestInstallRefusals: what no state lists, is addressed elsewhere, or is another material
// than it says, leaves nothing behind in the token.
func TestInstallRefusals(t *testing.T) {
	w := newTwo(t)
	a, b := w.replicate(t, keyops.CreateKeyInput{}), w.replicate(t, keyops.CreateKeyInput{})
	for _, k := range []keyops.KeyMetadata{a, b} {
		w.tell(t, k.KeyID, w.paris, w.tokyo)
		w.tell(t, k.KeyID, w.tokyo, w.paris)
	}
	wrap := func(k keyops.KeyMetadata) mrk.Blob {
		id, err := material.Parse(k.CurrentKeyMaterialID)
		if err != nil {
			t.Fatal(err)
		}
		blob, err := w.paris.WrapMaterial(t.Context(), k.KeyID, id, w.tokyo.Descriptor.Descriptor)
		if err != nil {
			t.Fatal(explain(err))
		}
		return blob
	}
	good, other := wrap(a), wrap(b)
	objects := len(w.tokyo.Fake.Objects())
	for _, tc := range []struct {
		name   string
		change func(*mrk.Blob)
		want   error
	}{
		{"another key's material", func(m *mrk.Blob) { m.Wrapped = other.Wrapped }, keyops.ErrMaterialMismatch},
		{"a material that no state lists", func(m *mrk.Blob) { m.Material[0] ^= 1 }, mrk.ErrUnlisted},
		{"another destination", func(m *mrk.Blob) { m.Destination = "us-east-1" }, mrk.ErrForeign},
		{"another instance", func(m *mrk.Blob) { m.ToInstance = "kfi-000000000000" }, mrk.ErrForeign},
		{"another incarnation", func(m *mrk.Blob) { m.Incarnation++ }, mrk.ErrForeign},
		{"another transport epoch", func(m *mrk.Blob) { m.Epoch = 2 }, keyops.ErrNoTransportKey},
		{"another class", func(m *mrk.Blob) { m.Class = "mac" }, keyops.ErrMaterialMismatch},
		{"another algorithm", func(m *mrk.Blob) { m.Algorithm = "AES_CBC" }, keyops.ErrMaterialMismatch},
		{"a changed blob", func(m *mrk.Blob) { m.Wrapped = bytes.Clone(m.Wrapped); m.Wrapped[0] ^= 1 }, keyops.ErrMaterialMismatch},
	} {
		t.Run(tc.name, func(t *testing.T) {
			blob := good
			tc.change(&blob)
			err := w.tokyo.InstallMaterial(t.Context(), a.KeyID, blob)
			if !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
			if n := len(w.tokyo.Fake.Objects()); n != objects {
				t.Errorf("%d objects in the token, want %d", n, objects)
			}
		})
	}
	for range 2 { // the second delivery is none
		if err := w.tokyo.InstallMaterial(t.Context(), a.KeyID, good); err != nil {
			t.Fatal(explain(err))
		}
	}
	if n := len(w.tokyo.Fake.Objects()); n != objects+1 {
		t.Errorf("%d objects in the token, want %d", n, objects+1)
	}
	// The other direction has no business there.
	if _, err := w.tokyo.WrapMaterial(t.Context(), b.KeyID, other.Material, w.paris.Descriptor.Descriptor); !errors.Is(err, keyops.ErrNotHeld) {
		t.Errorf("wrapping what is not held: %v", err)
	}
	alone := create(t, w.paris, keyops.CreateKeyInput{MultiRegion: true})
	id, err := material.Parse(alone.CurrentKeyMaterialID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.paris.WrapMaterial(t.Context(), alone.KeyID, id, w.tokyo.Descriptor.Descriptor); !errors.Is(err, mrk.ErrNotMember) {
		t.Errorf("wrapping for a Region that is no member: %v", err)
	}
	unknown := w.tokyo.Descriptor.Descriptor
	unknown.Instance = "kfi-000000000000"
	if _, err := w.paris.WrapMaterial(t.Context(), a.KeyID, good.Material, unknown); !errors.Is(err, keyops.ErrNoTransportKey) {
		t.Errorf("wrapping for an unknown instance: %v", err)
	}
}

// A key that the primary Region lists as another incarnation, because everybody had forgotten
// it or because it was evicted, is usable where it was, and not where clients had taken care
// that it is not, whether their Region has heard of the eviction or not.
func TestListedAgainAsItWas(t *testing.T) {
	nothing := func(two, arn.KeyID) error { return nil }
	disable := func(w two, id arn.KeyID) error {
		return second(w.tokyo.DisableKey(t.Context(), admin(), keyops.DisableKeyInput{KeyID: string(id)}))
	}
	schedule := func(w two, id arn.KeyID) error {
		return second(w.tokyo.ScheduleKeyDeletion(t.Context(), admin(), keyops.ScheduleKeyDeletionInput{KeyID: string(id), PendingWindowInDays: 7}))
	}
	cancel := func(w two, id arn.KeyID) error {
		if err := schedule(w, id); err != nil {
			return err
		}
		return second(w.tokyo.CancelKeyDeletion(t.Context(), admin(), keyops.CancelKeyDeletionInput{KeyID: string(id)}))
	}
	for name, tt := range map[string]struct {
		before  func(two, arn.KeyID) error
		evicted func(two, arn.KeyID) error // nil: Tokyo never hears of the eviction
		want    string
	}{
		"enabled":                             {nothing, nil, "Enabled"},
		"disabled":                            {disable, nil, "Disabled"},
		"pending deletion":                    {schedule, nil, "Disabled"},
		"enabled, evicted":                    {nothing, nothing, "Enabled"},
		"disabled, evicted":                   {disable, nothing, "Disabled"},
		"pending deletion, evicted":           {schedule, nothing, "Disabled"},
		"evicted, disabled":                   {nothing, disable, "Disabled"},
		"evicted, pending deletion":           {nothing, schedule, "Disabled"},
		"evicted, pending deletion cancelled": {nothing, cancel, "Disabled"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTwo(t)
			id := w.shared(t)
			if err := tt.before(w, id); err != nil {
				t.Fatal(explain(err))
			}
			d := w.tokyo.Descriptor.Descriptor
			change := func(fn func(*mrk.Set) error) {
				t.Helper()
				if err := w.paris.UpdateShared(t.Context(), id, cause, func(k *keyops.Key) error { return fn(k.Set) }); err != nil {
					t.Fatal(err)
				}
			}
			change(func(s *mrk.Set) error { return s.Evict(t.Context(), w.paris.Signer(), d.Region, false) })
			if tt.evicted != nil {
				w.sync(t, id)
				if err := tt.evicted(w, id); err != nil {
					t.Fatal(explain(err))
				}
				w.tokyo.Restart(t)
			}
			change(func(s *mrk.Set) error {
				return s.AddMember(t.Context(), w.paris.Signer(), d.Region, d.Instance, mrk.CreateRequest{Principal: admin().Principal.String()})
			})
			w.sync(t, id)
			k, err := w.tokyo.SharedKey(id)
			if err != nil || k.Set.Incarnation() != 2 || string(k.State) != tt.want || !k.DeletionDate.IsZero() {
				t.Errorf("incarnation %d is %s, to be deleted at %v (%v)", k.Set.Incarnation(), k.State, k.DeletionDate, err)
			}
			if s := statusIn(t, w.paris, id, string(d.Region)); s != mrk.Active {
				t.Errorf("Tokyo is %s", s)
			}
		})
	}
}
