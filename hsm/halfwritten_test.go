package hsm_test

import (
	"bytes"
	"crypto"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// halfWritten is what a process that was killed between SoftHSM's two writes can leave, by
// the attribute that is missing.
var halfWritten = []struct {
	spec    hsm.Spec
	missing uint64
	listed  bool // its attributes are those of its role all the same
}{
	{hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.AES256, Name: "k"}, 0x11, true},
	{hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.HMACSHA512, Name: "k"}, 0x11, true},
	{hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.ECP256, Usage: hsm.UsageSign, Name: "k"}, 0x11, true},
	{hsm.Spec{Role: hsm.RoleSharedMaterial, Algorithm: hsm.ECP384, Usage: hsm.UsageAgree, Name: "k"}, 0x11, true},
	{hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.ECP521, Usage: hsm.UsageSign, Name: "k"}, 0x180, false},          // CKA_EC_PARAMS
	{hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.RSA2048, Usage: hsm.UsageSign, Name: "k"}, 0x120, false},         // CKA_MODULUS
	{hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.RSA2048, Usage: hsm.UsageSign, Name: "k"}, 0x123, true},          // CKA_PRIVATE_EXPONENT
	{hsm.Spec{Role: hsm.RoleSharedMaterial, Algorithm: hsm.RSA2048, Usage: hsm.UsageDecrypt, Name: "k"}, 0x124, true}, // CKA_PRIME_1
}

// An object that was half written never fails a start, and using it is an error, not a crash.
func TestHalfWrittenObjects(t *testing.T) {
	if !child(t, "one") {
		return
	}
	tok := own(t, "one")
	if words := os.Getenv(stageEnv); words != "" {
		useHalfWritten(t, openWith(t, config(tok)), strings.Split(words, ","))
		return
	}
	h := openWith(t, config(tok))
	var ids []string
	for _, c := range halfWritten {
		id := hsm.NewID()
		made := softhsmtest.Made(t, tok, func() {
			if _, err := h.Generate(t.Context(), c.spec, id); err != nil {
				t.Fatal(err)
			}
		})
		ids = append(ids, id.String())
		softhsmtest.Take(t, made, c.missing)
	}
	stage(t, strings.Join(ids, ","))
}

func useHalfWritten(t *testing.T, h *hsm.Token, ids []string) {
	ctx := t.Context()
	for i, c := range halfWritten {
		id, err := hsm.ParseID(ids[i])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Lookup(ctx, id); c.listed != (err == nil) || !c.listed && !errors.Is(err, hsm.ErrQuarantined) {
			t.Errorf("%s without 0x%X: looked up with %v", c.spec.Algorithm, c.missing, err)
		}
		var used error
		switch {
		case c.spec.Algorithm == hsm.AES256:
			_, _, used = h.EncryptGCM(ctx, id, []byte("aad"), []byte("text"))
			_, blocks := h.EncryptBlocks(ctx, id, make([]byte, 32))
			if blocks == nil {
				t.Error("a key without a value makes check values")
			}
		case c.spec.Algorithm.Secret():
			_, used = h.MAC(ctx, id, []byte("text"))
		case c.spec.Usage == hsm.UsageAgree:
			_, used = h.Agree(ctx, id, basePoint(c.spec.Algorithm))
		case c.spec.Usage == hsm.UsageDecrypt:
			sealed := append([]byte{0}, bytes.Repeat([]byte{7}, 255)...)
			_, used = h.DecryptOAEP(ctx, id, crypto.SHA1, sealed)
			_, raw := h.DecryptOAEP(ctx, id, crypto.SHA256, sealed)
			if raw == nil {
				t.Error("a key without a prime decrypts")
			}
		case c.spec.Algorithm.ModulusBits() != 0:
			_, used = h.Sign(ctx, id, hsm.SignScheme{Padding: hsm.PSS, Hash: crypto.SHA256}, make([]byte, 32))
		default:
			_, used = h.Sign(ctx, id, hsm.SignScheme{Padding: hsm.ECDSA, Hash: crypto.SHA256}, make([]byte, 32))
		}
		t.Logf("%s without 0x%X: %v", c.spec.Algorithm, c.missing, used)
		if used == nil && c.missing != 0x123 { // OpenSSL computes with the primes alone
			t.Errorf("%s without 0x%X works", c.spec.Algorithm, c.missing)
		}
		if err := h.Health(ctx); err != nil {
			t.Errorf("after using it the token is %v", err)
		}
	}
	// What follows is served as ever.
	id, _ := generate(t, h, hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.RSA2048, Usage: hsm.UsageSign, Name: "after"})
	if _, err := h.Sign(ctx, id, hsm.SignScheme{Padding: hsm.PKCS1v15, Hash: crypto.SHA256}, make([]byte, 32)); err != nil {
		t.Error(err)
	}
	if err := h.Rescan(ctx); err != nil {
		t.Error(err)
	}
	for i, c := range halfWritten {
		id, err := hsm.ParseID(ids[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Destroy(ctx, id); c.listed && err != nil {
			t.Errorf("destroying %s without 0x%X: %v", c.spec.Algorithm, c.missing, err)
		}
	}
}

func basePoint(a hsm.Algorithm) []byte {
	p := a.Curve().Params()
	n := (p.BitSize + 7) / 8
	b := append([]byte{4}, make([]byte, 2*n)...)
	p.Gx.FillBytes(b[1 : 1+n])
	p.Gy.FillBytes(b[1+n:])
	return b
}
