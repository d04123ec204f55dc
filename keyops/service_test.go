package keyops_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

func TestSmoke(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	for _, multi := range []bool{false, true} {
		k, err := r.CreateKey(t.Context(), keyopstest.Admin(), keyops.CreateKeyInput{MultiRegion: multi})
		if err != nil {
			t.Fatal(err, causeOf(err))
		}
		t.Logf("%+v", k.KeyMetadata)
		e, err := r.Encrypt(t.Context(), keyopstest.Admin(), keyops.EncryptInput{KeyID: string(k.KeyMetadata.KeyID), Plaintext: []byte("hello")})
		if err != nil {
			t.Fatal(err, causeOf(err))
		}
		r.Restart(t)
		d, err := r.Decrypt(context.Background(), keyopstest.Admin(), keyops.DecryptInput{CiphertextBlob: e.CiphertextBlob})
		if err != nil {
			t.Fatal(err, causeOf(err))
		}
		if !bytes.Equal(d.Plaintext, []byte("hello")) {
			t.Fatal("other plaintext")
		}
	}
	t.Logf("%+v", r.Reconciliation())
}

func causeOf(err error) error {
	var e *keyops.Error
	if errors.As(err, &e) {
		return e.Cause()
	}
	return nil
}
