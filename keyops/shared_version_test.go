package keyops_test

import (
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// SharedVersion grows with changes of multi-Region keys, and of nothing else.
func TestSharedVersion(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	ctx, admin := t.Context(), keyopstest.Admin()
	version := r.SharedVersion()
	grows := func(what string, want bool) {
		t.Helper()
		now := r.SharedVersion()
		if now < version || (now > version) != want {
			t.Errorf("%s: %d after %d", what, now, version)
		}
		version = now
	}
	if _, err := r.CreateKey(ctx, admin, keyops.CreateKeyInput{}); err != nil {
		t.Fatal(err)
	}
	grows("a single-Region key", false)
	out, err := r.CreateKey(ctx, admin, keyops.CreateKeyInput{MultiRegion: true})
	if err != nil {
		t.Fatal(err)
	}
	grows("a multi-Region key", true)
	id := string(out.KeyMetadata.KeyID)
	if _, err := r.Encrypt(ctx, admin, keyops.EncryptInput{KeyID: id, Plaintext: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	grows("its use", false)
	if _, err := r.DisableKey(ctx, admin, keyops.DisableKeyInput{KeyID: id}); err != nil {
		t.Fatal(err)
	}
	grows("its state", true)
}
