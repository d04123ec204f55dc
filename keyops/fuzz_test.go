package keyops_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// FuzzImportToken shows ImportKeyMaterial tokens that this Region did not make. None is
// taken, counts as an attempt, or says anything but that it is no token of this key.
func FuzzImportToken(f *testing.F) {
	r := keyopstest.New(f, keyopstest.Options{})
	k, other := external(f, r, keyops.CreateKeyInput{}), external(f, r, keyops.CreateKeyInput{})
	p, foreign := parameters(f, r, k.ARN, keyops.WrapOAEPSHA256), parameters(f, r, other.ARN, keyops.WrapOAEPSHA256)
	blob := wrap(f, keyops.WrapOAEPSHA256, p.PublicKey, random(32))
	f.Add(foreign.ImportToken)
	f.Add(p.ImportToken[:len(p.ImportToken)-1])
	f.Add(append(bytes.Clone(p.ImportToken), 0))
	for i := range p.ImportToken {
		t := bytes.Clone(p.ImportToken)
		t[i] ^= 1
		f.Add(t)
	}
	f.Add([]byte{})
	f.Add(make([]byte, 6145))
	f.Fuzz(func(t *testing.T, token []byte) {
		if bytes.Equal(token, p.ImportToken) {
			return
		}
		head := r.StoreHead()
		_, err := r.ImportKeyMaterial(context.Background(), admin(), keyops.ImportKeyMaterialInput{
			KeyID: k.ARN, ImportToken: token, EncryptedKeyMaterial: blob, ExpirationModel: keyops.MaterialDoesNotExpire,
		})
		var e *keyops.Error
		if !errors.As(err, &e) || e.Reason != keyops.ErrInvalidImportToken && (e.Reason != keyops.ErrValidation || len(token) > 0 && len(token) <= 6144) {
			t.Fatalf("token %x: %v", token, explain(err))
		}
		if r.StoreHead() != head {
			t.Fatalf("token %x was counted", token)
		}
	})
}

// FuzzKeyReference shows DescribeKey all that may be the name of a key. What names none is
// refused as such, and what is found has the ARN of this Region.
func FuzzKeyReference(f *testing.F) {
	r := keyopstest.New(f, keyopstest.Options{})
	single, multi := create(f, r, keyops.CreateKeyInput{}), create(f, r, keyops.CreateKeyInput{MultiRegion: true})
	if _, err := r.CreateAlias(f.Context(), admin(), keyops.CreateAliasInput{AliasName: "alias/a", TargetKeyID: string(single.KeyID)}); err != nil {
		f.Fatal(explain(err))
	}
	for _, s := range []string{
		string(single.KeyID), string(multi.KeyID), single.ARN, multi.ARN, "alias/a", "alias/", "alias/A", "alias/a/", "",
		"arn:aws:kms:eu-paris-1:111122223333:alias/a", "arn:aws:kms:eu-paris-1:111122223333:key/*", "arn:aws:kms:us-east-1:111122223333:key/" + string(multi.KeyID),
		"arn:aws:kms:eu-paris-1:999999999999:key/" + string(multi.KeyID), "MRK-" + string(multi.KeyID)[4:], string(single.KeyID) + " ", "mrk-" + string(single.KeyID), "\x00", "\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		out, err := r.DescribeKey(context.Background(), admin(), keyops.DescribeKeyInput{KeyID: ref})
		if err == nil {
			if md := out.KeyMetadata; md.ARN != single.ARN && md.ARN != multi.ARN {
				t.Fatalf("%q names %s", ref, md.ARN)
			}
			return
		}
		var e *keyops.Error
		if !errors.As(err, &e) {
			t.Fatalf("%q: %v", ref, err)
		}
		switch e.Reason {
		case keyops.ErrNotFound, keyops.ErrInvalidArn, keyops.ErrValidation, keyops.ErrAccessDenied, keyops.ErrInvalidAliasName:
		default:
			t.Fatalf("%q: %v", ref, explain(err))
		}
	})
}
