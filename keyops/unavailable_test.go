package keyops_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

func stateOf(t *testing.T, r *keyopstest.Region, key string) string {
	t.Helper()
	out, err := r.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: key})
	if err != nil {
		t.Fatal(explain(err))
	}
	if md := out.KeyMetadata; md.Enabled != (md.KeyState == "Enabled") {
		t.Errorf("a key is %s, and enabled: %v", md.KeyState, md.Enabled)
	}
	return out.KeyMetadata.KeyState
}

// TestUnavailable: another process destroys a key's object in a real token while the daemon
// runs. The key says so before anybody has tried to use it, and nothing else is refused that
// does not need the object.
func TestUnavailable(t *testing.T) {
	softhsmtest.Used(t)
	r := newReal(t, paris, keyopstest.Options{})
	other := create(t, r, keyops.CreateKeyInput{})
	var key keyops.KeyMetadata
	object := softhsmtest.Made(t, token(paris.label), func() {
		key = create(t, r, keyops.CreateKeyInput{KeySpec: "ECC_NIST_P256", KeyUsage: keyops.SignVerify})
	})
	sign := keyops.SignInput{KeyID: key.ARN, Message: []byte("m"), SigningAlgorithm: "ECDSA_SHA_256"}
	signed, err := r.Sign(t.Context(), admin(), sign)
	if err != nil {
		t.Fatal(explain(err))
	}
	if s := stateOf(t, r, key.ARN); s != "Enabled" {
		t.Fatalf("the key is %s", s)
	}
	if err := os.Remove(object); err != nil {
		t.Fatal(err)
	}
	if s := stateOf(t, r, key.ARN); s != "Unavailable" {
		t.Errorf("without its object the key is %s", s)
	}
	_, err = r.Sign(t.Context(), admin(), sign)
	want(t, err, keyops.ErrKeyUnavailable, "not in this Region's token")
	if _, err := r.Verify(t.Context(), admin(), keyops.VerifyInput{KeyID: key.ARN, Message: []byte("m"), Signature: signed.Signature, SigningAlgorithm: "ECDSA_SHA_256"}); err != nil {
		t.Error("verifying, which needs the public key alone: ", explain(err))
	}
	if s := stateOf(t, r, other.ARN); s != "Enabled" {
		t.Errorf("another key is %s", s)
	}
	r.Restart(t)
	if s := stateOf(t, r, key.ARN); s != "Unavailable" {
		t.Errorf("after a start the key is %s", s)
	}
	if _, err := r.DisableKey(t.Context(), admin(), keyops.DisableKeyInput{KeyID: key.ARN}); err != nil {
		t.Error(explain(err))
	}
	if s := stateOf(t, r, key.ARN); s != "Disabled" {
		t.Errorf("a key that its owner has disabled is %s", s)
	}
}

// TestUnavailableComesBack: a backup of the token takes an object away and another brings it
// back; what is there in between, under its ID, is not believed, and a token that does not
// answer is no reason to say anything.
func TestUnavailableComesBack(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	before := r.Fake.Snapshot()
	key := create(t, r, keyops.CreateKeyInput{})
	use := func() error {
		_, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: key.ARN, Plaintext: []byte("p")})
		return err
	}
	if err := use(); err != nil {
		t.Fatal(explain(err))
	}
	after := r.Fake.Snapshot()
	var object hsm.Object
	for _, o := range r.Fake.Objects() {
		if o.Spec.Role == hsm.RoleMaterial {
			object = o
		}
	}
	r.Fake.SetAvailable(false)
	if s := stateOf(t, r, key.ARN); s != "Enabled" {
		t.Errorf("while the token is away the key is %s", s)
	}
	r.Fake.SetAvailable(true)

	r.Fake.Restore(before)
	if s := stateOf(t, r, key.ARN); s != "Unavailable" {
		t.Errorf("without its object the key is %s", s)
	}
	r.Fake.SetAvailable(false)
	if s := stateOf(t, r, key.ARN); s != "Unavailable" {
		t.Errorf("while the token is away, after the object was missed, the key is %s", s)
	}
	r.Fake.SetAvailable(true)

	if err := r.Fake.Plant(object.Spec, object.ID, bytes.Repeat([]byte{1}, 32)); err != nil {
		t.Fatal(err)
	}
	if s := stateOf(t, r, key.ARN); s != "Unavailable" {
		t.Errorf("with another object in the place of its own the key is %s", s)
	}
	r.Fake.Restore(after)
	if s := stateOf(t, r, key.ARN); s != "Enabled" {
		t.Errorf("with its object again the key is %s", s)
	}
	if err := use(); err != nil {
		t.Error(explain(err))
	}

	r.Fake.Restore(before) // for good: the key can go on with new material
	want(t, use(), keyops.ErrKeyUnavailable, "not in this Region's token")
	if _, err := r.RotateKeyOnDemand(t.Context(), admin(), keyops.RotateKeyOnDemandInput{KeyID: key.ARN}); err != nil {
		t.Fatal(explain(err))
	}
	if s := stateOf(t, r, key.ARN); s != "Enabled" {
		t.Errorf("with new material the key is %s", s)
	}
	if err := use(); err != nil {
		t.Error(explain(err))
	}
}
