package hsm

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/miekg/pkcs11"
)

// makesIVs is a driver whose token makes the IV. It encrypts nothing: only lengths and
// places matter here.
type makesIVs struct {
	driver
	append []byte // what the token puts after the tag
}

func (d makesIVs) Encrypt(_ pkcs11.SessionHandle, _ *pkcs11.Mechanism, _ pkcs11.ObjectHandle, data []byte) ([]byte, error) {
	out := make([]byte, len(data)+gcmTag)
	rand.Read(out)
	return append(out, d.append...), nil
}

func TestTokenAppendsIV(t *testing.T) {
	k, _ := openFaulty(t, 1)
	id := material(t, k, testAES)
	k.cfg.Profile.GCM.IV, k.cfg.Profile.GCM.IVBytes = IVAppended, 16
	want := bytes.Repeat([]byte{9}, 16)
	for name, c := range map[string]struct {
		append []byte
		ok     bool
	}{
		"as documented": {want, true},
		"no IV":         {nil, false},
		"short IV":      {want[:12], false},
		"long IV":       {append(want, 1), false},
		"zeros":         {make([]byte, 16), false},
	} {
		k.driver = makesIVs{driver: k.driver, append: c.append}
		iv, sealed, err := k.EncryptGCM(t.Context(), id, []byte("aad"), []byte("text"))
		if c.ok {
			if err != nil || !bytes.Equal(iv, want) || len(sealed) != 4+gcmTag {
				t.Errorf("%s: IV %x, %d bytes, %v", name, iv, len(sealed), err)
			}
			continue
		}
		if !errors.Is(err, ErrModuleBroken) {
			t.Errorf("%s: got IV %x, %v; want %v", name, iv, err, ErrModuleBroken)
		}
	}
}

// TestTokenThatIgnoresTheBuffer encrypts on SoftHSM as if it overwrote the IV, which it does
// not: the zeros must never be taken for an IV.
func TestTokenThatIgnoresTheBuffer(t *testing.T) {
	k, _ := openFaulty(t, 1)
	id := material(t, k, testAES)
	k.cfg.Profile.GCM.IV = IVInPlace
	if iv, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), []byte("text")); !errors.Is(err, ErrModuleBroken) {
		t.Errorf("got IV %x, %v; want %v", iv, err, ErrModuleBroken)
	}
}

func TestPlaintextLimit(t *testing.T) {
	k, _ := openFaulty(t, 1)
	id := material(t, k, testAES)
	k.cfg.Profile.GCM.MaxBytes = 100
	if _, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), make([]byte, 100)); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), make([]byte, 101)); !errors.Is(err, ErrCaller) {
		t.Errorf("above the limit: %v, want %v", err, ErrCaller)
	}
}
