package hsm

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/keyferry/keyferry/hsm/hsmtest/kwp"
	"github.com/keyferry/keyferry/hsm/spki"
)

// Not refused: where RSA_AES_KEY_WRAP takes two steps, the AES key between is given its
// unwrap template by whoever opens it. The PIN and a recorded import are enough to read what
// was imported, as long as the wrapping key is there.
func TestTwoStepsAreTheDaemonsWord(t *testing.T) {
	k, _ := openFaulty(t, 1)
	purpose := ImportFor{RSAAESKeyWrapSHA1, RoleMaterial, AES256, UsageNone}
	id := NewID()
	der, err := k.GenerateImportKey(t.Context(), Spec{Role: RoleImportWrapping, Algorithm: RSA2048, Import: purpose, Name: "steps"}, id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Destroy(context.Background(), id); err != nil {
			t.Error(err)
		}
	})
	public, err := spki.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	between, material := bytes.Repeat([]byte{3}, 32), bytes.Repeat([]byte{5}, 32)
	first, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, public.(*rsa.PublicKey), between, nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := kwp.Wrap(between, material)
	if err != nil {
		t.Fatal(err)
	}
	e, _ := k.index.get(id)
	read, err := onOwnSession(t.Context(), k, "thief", func(raw rawSession) ([]byte, error) {
		// The AES key itself is as demanded: it cannot be read or decrypt.
		if h, err := raw.unwrapKey(k.cfg.Profile.oaepMechanism(), e.handle, first, with(stepDemand(k.cfg.Profile), flag(pkcs11.CKA_SENSITIVE, false))); err == nil {
			t.Errorf("the AES key was opened as readable: object %d", h)
		}
		aes, err := raw.unwrapKey(k.cfg.Profile.oaepMechanism(), e.handle, first, stepDemand(k.cfg.Profile))
		if err != nil {
			return nil, err
		}
		h, err := raw.unwrapKey(rawMechanism{code: k.cfg.Profile.wrapMechanism()}, aes, second, []Attribute{
			number(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), number(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
			flag(pkcs11.CKA_TOKEN, false), flag(pkcs11.CKA_SENSITIVE, false), flag(pkcs11.CKA_EXTRACTABLE, true)})
		if err != nil {
			return nil, err
		}
		return raw.attribute(h, pkcs11.CKA_VALUE)
	})
	if err != nil || !bytes.Equal(read, material) {
		t.Errorf("read %x (%v): the token refuses it now, docs/trust.md says otherwise", read, err)
	}
}

// The token looks at points as well: this host's check is the first of two.
func TestPointsOffTheCurve(t *testing.T) {
	k, _ := openFaulty(t, 1)
	id := NewID()
	if _, err := k.Generate(t.Context(), Spec{Role: RoleMaterial, Algorithm: ECP256, Usage: UsageAgree, Name: "points"}, id); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Destroy(context.Background(), id); err != nil {
			t.Error(err)
		}
	})
	e, _ := k.index.get(id)
	good := basePoint(ECP256.Curve())
	off := bytes.Clone(good)
	off[64] ^= 1
	for name, c := range map[string]struct {
		point []byte
		works bool
	}{"on the curve": {good, true}, "off the curve": {off, false}, "infinity": {[]byte{0}, false}} {
		_, err := onOwnSession(t.Context(), k, "points", func(raw rawSession) (pkcs11.ObjectHandle, error) {
			m, err := k.cfg.Profile.ecdh(c.point)
			if err != nil {
				return 0, err
			}
			return raw.deriveKey(m, e.handle, agreedTemplate(32))
		})
		t.Logf("%s: %v", name, err)
		if (err == nil) != c.works {
			t.Errorf("%s: %v", name, err)
		}
	}
}
