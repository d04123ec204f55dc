package keyops_test

import (
	"bytes"
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// TestDataKeyPairs: the halves of every kind of pair belong together, and what Decrypt opens
// is the private one.
func TestDataKeyPairs(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{})
	ctx, ec := t.Context(), map[string]string{"env": "prod"}
	for _, spec := range []keyops.DataKeyPairSpec{
		"RSA_2048", "RSA_3072", "RSA_4096", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1", "ECC_NIST_EDWARDS25519",
	} {
		t.Run(string(spec), func(t *testing.T) {
			in := keyops.GenerateDataKeyPairInput{KeyID: k.ARN, KeyPairSpec: spec, EncryptionContext: ec, DryRun: true}
			want(t, second(r.GenerateDataKeyPair(ctx, admin(), in)), keyops.ErrDryRun, "")
			in.DryRun = false
			out, err := r.GenerateDataKeyPair(ctx, admin(), in)
			if err != nil {
				t.Fatal(explain(err))
			}
			if out.KeyID != k.ARN || out.KeyPairSpec != spec || out.KeyMaterialID != k.CurrentKeyMaterialID {
				t.Errorf("%+v", out)
			}
			if got := open(t, place{r, k.ARN}, out.PrivateKeyCiphertextBlob, ec); !bytes.Equal(got, out.PrivateKeyPlaintext) {
				t.Error("Decrypt opens another private key")
			}
			if got := opensslPublic(t, out.PrivateKeyPlaintext); !bytes.Equal(got, out.PublicKey) {
				t.Errorf("OpenSSL finds another public key\n%x, want\n%x", got, out.PublicKey)
			}
			if spec == "RSA_3072" || spec == "RSA_4096" {
				return // one of each is enough to wait for
			}
			closed, err := r.GenerateDataKeyPairWithoutPlaintext(ctx, admin(), keyops.GenerateDataKeyPairWithoutPlaintextInput(in))
			if err != nil || closed.KeyID != k.ARN || closed.KeyPairSpec != spec || closed.KeyMaterialID != k.CurrentKeyMaterialID {
				t.Fatal(closed, explain(err))
			}
			if got := opensslPublic(t, open(t, place{r, k.ARN}, closed.PrivateKeyCiphertextBlob, ec)); !bytes.Equal(got, closed.PublicKey) {
				t.Error("OpenSSL finds another public key in what was returned encrypted only")
			}
			if bytes.Equal(closed.PublicKey, out.PublicKey) {
				t.Error("one pair twice")
			}
		})
	}
}

// opensslPublic is the public half of a private key as OpenSSL reads it.
func opensslPublic(t *testing.T, pkcs8 []byte) []byte {
	t.Helper()
	cmd := exec.Command("openssl", "pkey", "-inform", "DER", "-pubout", "-outform", "DER")
	cmd.Stdin = bytes.NewReader(pkcs8)
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	if err := cmd.Run(); err != nil {
		t.Fatalf("openssl: %v\n%s", err, words.String())
	}
	return out.Bytes()
}

func TestDataKeyPairsRefused(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	aes, rsaKey := create(t, r, keyops.CreateKeyInput{}).ARN, oaep(t, r).ARN
	call := func(key string, spec keyops.DataKeyPairSpec, ec map[string]string) error {
		return second(r.GenerateDataKeyPair(t.Context(), admin(), keyops.GenerateDataKeyPairInput{KeyID: key, KeyPairSpec: spec, EncryptionContext: ec}))
	}
	calls := r.Fake.Calls()["C_Encrypt"]
	want(t, call(aes, "", nil), keyops.ErrValidation, "'keyPairSpec'")
	want(t, call(aes, "RSA_1024", nil), keyops.ErrValidation, "enum value set: [RSA_2048 ")
	want(t, call(aes, "SM2", nil), keyops.ErrUnsupportedOperation, "SM2")
	want(t, call(rsaKey, "ECC_NIST_P256", nil), keyops.ErrInvalidKeyUsage, "Algorithm SYMMETRIC_DEFAULT is incompatible with key spec RSA_2048.")
	want(t, call(aes, "ECC_NIST_P256", map[string]string{"": "x"}), keyops.ErrValidation, "empty key")
	if n := r.Fake.Calls()["C_Encrypt"]; n != calls {
		t.Errorf("refused calls encrypted %d times", n-calls)
	}
}

// TestSlowPairsWaitForTheirTurn: callers that ask for RSA pairs wait for one another and not
// longer than they want to, and leave no place taken.
func TestSlowPairsWaitForTheirTurn(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{})
	release := r.TakePairs()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := r.GenerateDataKeyPair(ctx, admin(), keyops.GenerateDataKeyPairInput{KeyID: k.ARN, KeyPairSpec: "RSA_2048"})
	want(t, err, keyops.ErrDependencyTimeout, "")
	if _, err := r.GenerateDataKeyPair(t.Context(), admin(), keyops.GenerateDataKeyPairInput{KeyID: k.ARN, KeyPairSpec: "ECC_NIST_P256"}); err != nil {
		t.Errorf("a fast pair waits for slow ones: %v", explain(err))
	}
	release()
	if _, err := r.GenerateDataKeyPair(t.Context(), admin(), keyops.GenerateDataKeyPairInput{KeyID: k.ARN, KeyPairSpec: "RSA_2048"}); err != nil {
		t.Error(explain(err))
	}
	r.TakePairs()() // every place is free again
}
