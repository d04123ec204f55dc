package keyops_test

import (
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// TestEncryptionsOfAllRegionsCount: IVs are drawn in every Region, so the bound is on what
// all have drawn together, as far as they have heard of each other.
func TestEncryptionsOfAllRegionsCount(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	w.sync(t, k.KeyID)
	here, there := k, k
	there.ARN = "arn:aws:kms:ap-tokyo-1:111122223333:key/" + string(k.KeyID)
	// Each Region has told the other of one step by holding the material.
	const step = 1 << 24
	due := func(r *keyopstest.Region, arn string) bool {
		out, err := r.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: arn})
		if err != nil {
			t.Fatal(explain(err))
		}
		return out.KeyMetadata.RotationDue
	}
	w.paris.SetEncryptions(k.KeyID, 1<<31-step-2)
	if _, err := encryptWith(w.paris, here); err != nil {
		t.Fatal(explain(err))
	}
	if due(w.paris, here.ARN) {
		t.Error("due at one below 2^31")
	}
	if _, err := encryptWith(w.paris, here); err != nil {
		t.Fatal(explain(err))
	}
	if !due(w.paris, here.ARN) {
		t.Error("not due at 2^31")
	}
	if due(w.tokyo, there.ARN) {
		t.Error("due in a Region that has not heard of it")
	}
	w.tell(t, k.KeyID, w.paris, w.tokyo)
	told := spentBy(t, w.paris, k.KeyID)[k.CurrentKeyMaterialID]
	w.tokyo.SetEncryptions(k.KeyID, max(1<<31, told)-told)
	if !due(w.tokyo, there.ARN) {
		t.Error("not due in a Region that has heard of it")
	}
	w.tokyo.SetEncryptions(k.KeyID, 1<<32-told-1)
	if _, err := encryptWith(w.tokyo, there); err != nil {
		t.Fatal(explain(err))
	}
	_, err := encryptWith(w.tokyo, there)
	want(t, err, keyops.ErrLimitExceeded, "2^32")
	if _, err := encryptWith(w.paris, here); err != nil {
		t.Errorf("Paris has not heard of it: %v", explain(err))
	}
	w.tell(t, k.KeyID, w.tokyo, w.paris)
	_, err = encryptWith(w.paris, here)
	want(t, err, keyops.ErrLimitExceeded, "2^32")
	w.paris.Restart(t)
	_, err = encryptWith(w.paris, here)
	want(t, err, keyops.ErrLimitExceeded, "2^32")
}

// TestOtherKeysAreNotCounted: there is no bound on signatures and MACs, and so no traffic.
func TestOtherKeysAreNotCounted(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	for _, in := range []keyops.CreateKeyInput{
		{MultiRegion: true, KeySpec: keyops.HMAC256, KeyUsage: keyops.GenerateVerifyMac},
		{MultiRegion: true, KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify},
	} {
		k := create(t, r, in)
		if n := len(spentBy(t, r, k.KeyID)); n != 0 {
			t.Errorf("%s: %d counts told", in.KeySpec, n)
		}
	}
	if n := len(spentBy(t, r, create(t, r, keyops.CreateKeyInput{MultiRegion: true}).KeyID)); n != 1 {
		t.Errorf("symmetric: %d counts told, want 1", n)
	}
}

func spentBy(t *testing.T, r *keyopstest.Region, id arn.KeyID) map[string]uint64 {
	t.Helper()
	k, err := r.SharedKey(id)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	for m, n := range k.Set.Own().Spent {
		counts[m.String()] = n
	}
	return counts
}

// TestUnboundedEncryption: an operator may have it otherwise, and hears of it all the same.
func TestUnboundedEncryption(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{Unbounded: true})
	k := create(t, r, keyops.CreateKeyInput{})
	r.SetEncryptions(k.KeyID, 1<<32)
	if _, err := encryptWith(r, k); err != nil {
		t.Error(explain(err))
	}
	out, err := r.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: k.ARN})
	if err != nil || !out.KeyMetadata.RotationDue {
		t.Errorf("%+v, %v", out, err)
	}
}
