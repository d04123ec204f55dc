package hsmtest

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
)

func suiteGCM(t *testing.T, h Harness) {
	id, _ := generate(t, h.Source, sharedAES)
	other, _ := generate(t, h.Source, sharedAES)
	ivs := map[string]bool{}
	for _, n := range []int{0, 1, 15, 16, 17, 4096, 64 << 10} {
		plaintext := bytes.Repeat([]byte{0xA5}, n)
		iv, sealed, err := h.Source.EncryptGCM(t.Context(), id, aad, plaintext)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if ivs[string(iv)] {
			t.Errorf("IV %x came twice", iv)
		}
		ivs[string(iv)] = true
		if len(sealed) != n+16 {
			t.Errorf("%d bytes became %d, want 16 more", n, len(sealed))
		}
		got, err := h.Source.DecryptGCM(t.Context(), id, iv, aad, sealed)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("%d bytes: decrypted to %d bytes, %v", n, len(got), err)
		}
		_, err = h.Source.DecryptGCM(t.Context(), other, iv, aad, sealed)
		wantError(t, "another key", err, hsm.ErrDataInvalid)
	}
}

func suiteGCMRefuses(t *testing.T, h Harness) {
	id, _ := generate(t, h.Source, localAES)
	iv, sealed, err := h.Source.EncryptGCM(t.Context(), id, aad, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed {
		damaged := bytes.Clone(sealed)
		damaged[i] ^= 1
		_, err := h.Source.DecryptGCM(t.Context(), id, iv, aad, damaged)
		wantError(t, "a flipped bit", err, hsm.ErrDataInvalid)
	}
	for _, c := range []struct {
		name            string
		iv, aad, sealed []byte
		want            error
	}{
		{"other additional data", iv, []byte("other"), sealed, hsm.ErrDataInvalid},
		{"no additional data", iv, nil, sealed, hsm.ErrCaller},
		{"other IV", append([]byte{iv[0] ^ 1}, iv[1:]...), aad, sealed, hsm.ErrDataInvalid},
		{"no IV", nil, aad, sealed, hsm.ErrDataInvalid},
		{"short IV", iv[:11], aad, sealed, hsm.ErrDataInvalid},
		{"no data", iv, aad, nil, hsm.ErrDataInvalid},
		{"less than a tag", iv, aad, sealed[:15], hsm.ErrDataInvalid},
		{"cut short", iv, aad, sealed[:len(sealed)-1], hsm.ErrDataInvalid},
		{"made longer", iv, aad, append(bytes.Clone(sealed), 0), hsm.ErrDataInvalid},
	} {
		_, err := h.Source.DecryptGCM(t.Context(), id, c.iv, c.aad, c.sealed)
		wantError(t, c.name, err, c.want)
	}
	_, _, err = h.Source.EncryptGCM(t.Context(), id, nil, []byte("x"))
	wantError(t, "encrypting without additional data", err, hsm.ErrCaller)
	if got, err := h.Source.DecryptGCM(t.Context(), id, iv, aad, sealed); err != nil || string(got) != "secret" {
		t.Errorf("after all that the true ciphertext gives %q, %v", got, err)
	}
}

func suiteBlocks(t *testing.T, h Harness) {
	a, _ := generate(t, h.Source, sharedAES)
	b, _ := generate(t, h.Source, sharedAES)
	blocks := make([]byte, 32)
	first, err := h.Source.EncryptBlocks(t.Context(), a, blocks)
	if err != nil || len(first) != 32 {
		t.Fatalf("got %d bytes, %v", len(first), err)
	}
	if !bytes.Equal(first[:16], first[16:]) {
		t.Error("equal blocks are encrypted differently, so this is not ECB")
	}
	again, err := h.Source.EncryptBlocks(t.Context(), a, blocks)
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("the same blocks twice: %x and %x, %v", first, again, err)
	}
	other, err := h.Source.EncryptBlocks(t.Context(), b, blocks)
	if err != nil || bytes.Equal(first, other) {
		t.Errorf("two keys agree: %v", err)
	}
	for _, n := range []int{0, 16, 31, 33, 48} {
		_, err := h.Source.EncryptBlocks(t.Context(), a, make([]byte, n))
		wantError(t, "wrong length", err, hsm.ErrCaller)
	}
}

// suiteSigner makes a certificate, which is what Signer is for.
func suiteSigner(t *testing.T, h Harness) {
	id, spki := generate(t, h.Source, region)
	signer, err := h.Source.Signer(t.Context(), id, spki)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "suite"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.CheckSignatureFrom(cert); err != nil {
		t.Errorf("certificate: %v", err)
	}
	mac, _ := generate(t, h.Source, sharedMAC)
	_, err = h.Source.Signer(t.Context(), mac, spki)
	wantError(t, "a signer on a MAC key", err, hsm.ErrCaller)
	_, err = h.Source.Signer(t.Context(), id, []byte("no SPKI"))
	wantError(t, "a signer with a broken SPKI", err, hsm.ErrCaller)
	_, err = h.Source.Signer(t.Context(), hsm.NewID(), spki)
	wantError(t, "a signer on nothing", err, hsm.ErrNotFound)
}
