package keyops_test

import (
	"bytes"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// TestDecryptRefusesEveryChange changes what can be changed about a ciphertext. Every
// change of what a tag covers has one answer, and it never says which change it was.
func TestDecryptRefusesEveryChange(t *testing.T) {
	onBoth(t, func(t *testing.T, r *keyopstest.Region) {
		kinds(t, func(t *testing.T, multiRegion bool) {
			k := create(t, r, keyops.CreateKeyInput{MultiRegion: multiRegion})
			context := map[string]string{"env": "prod"}
			enc, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: k.ARN, Plaintext: []byte("secret"), EncryptionContext: context})
			if err != nil {
				t.Fatal(explain(err))
			}
			blob := enc.CiphertextBlob
			refused := func(what string, in keyops.DecryptInput) {
				t.Helper()
				out, err := r.Decrypt(t.Context(), admin(), in)
				if err == nil {
					t.Fatalf("%s: decrypted to %q", what, out.Plaintext)
				}
				if err.Error() != "InvalidCiphertextException" {
					t.Errorf("%s: error %v, want one that says nothing", what, explain(err))
				}
			}
			for i := range blob {
				for _, flip := range []byte{1, 0x80} {
					bad := bytes.Clone(blob)
					bad[i] ^= flip
					refused("flipped bit", keyops.DecryptInput{CiphertextBlob: bad, EncryptionContext: context})
				}
			}
			for n := 1; n < len(blob); n++ {
				refused("cut short", keyops.DecryptInput{CiphertextBlob: blob[:n], EncryptionContext: context})
			}
			refused("longer", keyops.DecryptInput{CiphertextBlob: append(bytes.Clone(blob), 0), EncryptionContext: context})
			for name, c := range map[string]map[string]string{
				"no context":         nil,
				"another value":      {"env": "test"},
				"another key":        {"Env": "prod"},
				"one more pair":      {"env": "prod", "a": ""},
				"moved boundary":     {"en": "vprod"},
				"context not UTF-8":  {"env": "\xff"},
				"empty key":          {"": "prod"},
				"composed otherwise": {"env": "prod\u0301"},
			} {
				refused(name, keyops.DecryptInput{CiphertextBlob: blob, EncryptionContext: c})
			}
			// With the key named, a blob that names another key is told apart, as in AWS.
			bad := bytes.Clone(blob)
			bad[5] ^= 1
			_, err = r.Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: bad, EncryptionContext: context, KeyID: k.ARN})
			want(t, err, keyops.ErrIncorrectKey, "The key ID in the request does not identify a CMK that can perform this operation.")
		})
	})
}

func TestKeysDoNotOpenEachOther(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	a, b := create(t, r, keyops.CreateKeyInput{}), create(t, r, keyops.CreateKeyInput{})
	enc, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: a.ARN, Plaintext: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: enc.CiphertextBlob, KeyID: b.ARN})
	want(t, err, keyops.ErrIncorrectKey, "")
	other, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: b.ARN, Plaintext: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	// The header of b's ciphertext before the body of a's.
	mixed := append(bytes.Clone(other.CiphertextBlob[:35]), enc.CiphertextBlob[35:]...)
	_, err = r.Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: mixed})
	want(t, err, keyops.ErrInvalidCiphertext, "")
}

func TestUsageOfAnotherKey(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	aes := create(t, r, keyops.CreateKeyInput{}).ARN
	mac := create(t, r, keyops.CreateKeyInput{KeySpec: keyops.HMAC256, KeyUsage: keyops.GenerateVerifyMac}).ARN
	x, ctx := []byte("x"), t.Context()
	_, err := r.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: mac, Plaintext: x})
	want(t, err, keyops.ErrInvalidKeyUsage, mac+" key usage is GENERATE_VERIFY_MAC which is not valid for Encrypt.")
	_, err = r.GenerateDataKey(ctx, admin(), keyops.GenerateDataKeyInput{KeyID: mac, NumberOfBytes: 1})
	want(t, err, keyops.ErrInvalidKeyUsage, "not valid for GenerateDataKey.")
	_, err = r.Sign(ctx, admin(), keyops.SignInput{KeyID: aes, Message: x, SigningAlgorithm: keyops.AlgorithmECDSASHA256})
	want(t, err, keyops.ErrInvalidKeyUsage, "not valid for Sign.")
	_, err = r.GenerateMac(ctx, admin(), keyops.GenerateMacInput{KeyID: aes, Message: x, MacAlgorithm: keyops.AlgorithmHMACSHA256})
	want(t, err, keyops.ErrInvalidKeyUsage, "not valid for GenerateMac.")
	_, err = r.GetPublicKey(ctx, admin(), keyops.GetPublicKeyInput{KeyID: mac})
	want(t, err, keyops.ErrUnsupportedOperation, "not an asymmetric key")
	_, err = r.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: aes, Plaintext: x, EncryptionAlgorithm: "RSAES_OAEP_SHA_256"})
	want(t, err, keyops.ErrInvalidKeyUsage, "Algorithm RSAES_OAEP_SHA_256 is incompatible with key spec SYMMETRIC_DEFAULT.")
	_, err = r.Encrypt(ctx, admin(), keyops.EncryptInput{KeyID: aes, Plaintext: x, EncryptionAlgorithm: "ROT_13"})
	want(t, err, keyops.ErrValidation, "'encryptionAlgorithm'")
}
