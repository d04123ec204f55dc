package hsm

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/keyferry/keyferry/hsm/hsmtest/kwp"
)

// lend puts a session key of known bytes into the index under a spec, which no caller can
// do, so that what the token computes can be compared with Go's standard library.
func lend(t *testing.T, k *Token, spec Spec, keyType uint, secret []byte, flags ...uint) ID {
	t.Helper()
	template := []Attribute{
		number(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), number(pkcs11.CKA_KEY_TYPE, keyType),
		flag(pkcs11.CKA_TOKEN, false), flag(pkcs11.CKA_PRIVATE, true), flag(pkcs11.CKA_EXTRACTABLE, true),
		octets(pkcs11.CKA_VALUE, secret),
	}
	for _, f := range flags {
		template = append(template, flag(f, true))
	}
	id := NewID()
	k.index.put(entry{Object: Object{ID: id, Spec: spec}, handle: plant(t, k, template)})
	return id
}

func TestAgainstStandardLibrary(t *testing.T) {
	k, _ := openFaulty(t, 1)
	ctx := context.Background()
	key := bytes.Repeat([]byte{0x42}, 32)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	g, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	id := lend(t, k, testAES, pkcs11.CKK_AES, key, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT)
	aad, text := []byte("additional data"), []byte("some text that is no whole block")

	iv, sealed, err := k.EncryptGCM(ctx, id, aad, text)
	if err != nil {
		t.Fatal(err)
	}
	if len(iv) != 12 {
		t.Fatalf("IV of %d bytes, want 12", len(iv))
	}
	if got, err := g.Open(nil, iv, sealed, aad); err != nil || !bytes.Equal(got, text) {
		t.Errorf("the standard library opens the token's GCM as %q, %v", got, err)
	}
	nonce := []byte("twelve bytes")
	if got, err := k.DecryptGCM(ctx, id, nonce, aad, g.Seal(nil, nonce, text, aad)); err != nil || !bytes.Equal(got, text) {
		t.Errorf("the token opens the standard library's GCM as %q, %v", got, err)
	}

	// SoftHSM takes an empty IV for sixteen zero bytes, so this would open.
	zeros, err := cipher.NewGCMWithNonceSize(block, 16)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.DecryptGCM(ctx, id, nil, aad, zeros.Seal(nil, make([]byte, 16), text, aad)); !errors.Is(err, ErrDataInvalid) {
		t.Errorf("with an empty IV the token opens %q, %v", got, err)
	}

	blocks, want := []byte("two blocks of sixteen, 32 bytes."), make([]byte, 32)
	block.Encrypt(want[:16], blocks[:16])
	block.Encrypt(want[16:], blocks[16:])
	if got, err := k.EncryptBlocks(ctx, id, blocks); err != nil || !bytes.Equal(got, want) {
		t.Errorf("blocks %x, %v; want %x", got, err, want)
	}

	mac := lend(t, k, testMAC, pkcs11.CKK_GENERIC_SECRET, key, pkcs11.CKA_SIGN)
	m := hmac.New(sha256.New, key)
	m.Write(text)
	if got, err := k.MAC(ctx, mac, text); err != nil || !hmac.Equal(got, m.Sum(nil)) {
		t.Errorf("MAC %x, %v; want %x", got, err, m.Sum(nil))
	}
}

// TestWrapIsRFC5649 compares the token's wrapping with the published algorithm. The key and
// the wrapping key are those of a vector of RFC 5649, section 6.
func TestWrapIsRFC5649(t *testing.T) {
	k, _ := openFaulty(t, 1)
	kek := []byte{
		0x58, 0x40, 0xdf, 0x6e, 0x29, 0xb0, 0x2a, 0xf1, 0xab, 0x49, 0x3b, 0x70, 0x5b, 0xf1, 0x6e, 0xa1,
		0xae, 0x83, 0x38, 0xf4, 0xdc, 0xc1, 0x76, 0xa8,
	}
	key := []byte{
		0xc3, 0x7b, 0x7e, 0x64, 0x92, 0x58, 0x43, 0x40, 0xbe, 0xd1, 0x22, 0x07, 0x80, 0x89, 0x41, 0x15,
		0x50, 0x68, 0xf7, 0x38,
	}
	vector := []byte{
		0x13, 0x8b, 0xde, 0xaa, 0x9b, 0x8f, 0xa7, 0xfc, 0x61, 0xf9, 0x77, 0x42, 0xe7, 0x22, 0x48, 0xee,
		0x5a, 0xe6, 0xae, 0x53, 0x60, 0xd1, 0xae, 0x6a, 0x5f, 0x54, 0xf3, 0x73, 0xfa, 0x54, 0x3b, 0x6a,
	}
	spec := Spec{Role: RoleTransportSource, Algorithm: AES256, Class: ClassMAC256}
	shared := testMAC
	shared.Role = RoleSharedMaterial
	transport := lend(t, k, spec, pkcs11.CKK_AES, kek, pkcs11.CKA_WRAP)
	material := lend(t, k, shared, pkcs11.CKK_GENERIC_SECRET, key, pkcs11.CKA_SIGN)
	got, err := k.Wrap(context.Background(), transport, material)
	if err != nil {
		t.Fatal(err)
	}
	// SoftHSM pads 20 bytes to 24 before it wraps, and the blob says 24: the one reason why
	// materials have lengths that are multiples of eight.
	if want := software(t, kek, append(bytes.Clone(key), 0, 0, 0, 0)); bytes.Equal(got, vector) || !bytes.Equal(got, want) {
		t.Errorf("wrapped 20 bytes as %x, want %x", got, want)
	}
	full := bytes.Repeat([]byte{7}, 32)
	material = lend(t, k, shared, pkcs11.CKK_GENERIC_SECRET, full, pkcs11.CKA_SIGN)
	if got, err = k.Wrap(context.Background(), transport, material); err != nil || !bytes.Equal(got, software(t, kek, full)) {
		t.Errorf("wrapped %x, %v; want %x", got, err, software(t, kek, full))
	}
	if got := software(t, kek, key); !bytes.Equal(got, vector) {
		t.Errorf("the comparison itself is wrong: %x, want %x", got, vector)
	}
}

func software(t *testing.T, kek, key []byte) []byte {
	t.Helper()
	b, err := kwp.Wrap(kek, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
