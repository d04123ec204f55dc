package keyops_test

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// scalarKey is a PKCS #8 key of P-256 with this scalar, which no tool would write.
func scalarKey(t *testing.T, scalar *big.Int) []byte {
	t.Helper()
	p256 := asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	key, err := asn1.Marshal(struct {
		Version int
		Scalar  []byte
	}{1, scalar.FillBytes(make([]byte, 32))})
	if err != nil {
		t.Fatal(err)
	}
	type algorithm struct{ Algorithm, Curve asn1.ObjectIdentifier }
	der, err := asn1.Marshal(struct {
		Version   int
		Algorithm algorithm
		Key       []byte
	}{0, algorithm{asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, p256}, key})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func pkcs8(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// opensslKey is a PKCS #8 key that openssl makes of these options.
func opensslKey(t *testing.T, options string) []byte {
	t.Helper()
	dir := t.TempDir()
	sh(t, dir, "openssl genpkey -quiet "+options+" | openssl pkcs8 -topk8 -nocrypt -outform DER -out key.der")
	b, err := os.ReadFile(filepath.Join(dir, "key.der"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestImportRefusesByProof: SoftHSM takes all of these and says nothing of them, so each has
// to fail its proof, with one error, and leave nothing.
func TestImportRefusesByProof(t *testing.T) {
	r := newReal(t, paris, keyopstest.Options{})
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	n := elliptic.P256().Params().N
	sign := keyops.CreateKeyInput{KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify}
	agree := keyops.CreateKeyInput{KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.KeyAgreement}
	mac := keyops.CreateKeyInput{KeySpec: keyops.HMAC256, KeyUsage: keyops.GenerateVerifyMac}
	for _, tc := range []struct {
		name     string
		in       keyops.CreateKeyInput
		material [][]byte
	}{
		{"symmetric", keyops.CreateKeyInput{}, [][]byte{random(16), random(24), random(31), random(33), random(64), random(1)}},
		{"HMAC", mac, [][]byte{random(31), random(33), random(48), random(1)}},
		{"sign", sign, [][]byte{
			scalarKey(t, new(big.Int)), scalarKey(t, n), opensslKey(t, "-algorithm EC -pkeyopt ec_paramgen_curve:P-384"),
			opensslKey(t, "-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1"), pkcs8(t, rsa2048), random(138),
			opensslKey(t, "-algorithm ed25519"), opensslKey(t, "-algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP256r1"),
		}},
		{"agree", agree, [][]byte{scalarKey(t, new(big.Int)), scalarKey(t, n), ecKey(t, elliptic.P521())}},
		{"RSA", keyops.CreateKeyInput{KeySpec: keyops.RSA2048, KeyUsage: keyops.SignVerify}, [][]byte{
			opensslKey(t, "-algorithm RSA -pkeyopt rsa_keygen_bits:1024"), opensslKey(t, "-algorithm RSA -pkeyopt rsa_keygen_bits:2056"),
			opensslKey(t, "-algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3"), ecKey(t, elliptic.P256()), random(1200),
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := external(t, r, tc.in)
			by := []keyops.WrappingAlgorithm{keyops.WrapRSAAESKeyWrapSHA1}
			if tc.name == "symmetric" || tc.name == "HMAC" {
				by = append(by, keyops.WrapOAEPSHA1)
			}
			var first error
			for _, by := range by {
				p, left := parameters(t, r, k.ARN, by), 5
				for i, m := range tc.material {
					if left == 0 {
						p, left = parameters(t, r, k.ARN, by), 5
					}
					left--
					_, err := r.ImportKeyMaterial(t.Context(), admin(), keyops.ImportKeyMaterialInput{
						KeyID: k.ARN, ImportToken: p.ImportToken, EncryptedKeyMaterial: wrap(t, by, p.PublicKey, m), ExpirationModel: keyops.MaterialDoesNotExpire,
					})
					want(t, err, keyops.ErrInvalidCiphertext, "cannot be unwrapped as key material")
					if first == nil {
						first = err
					} else if err == nil || err.Error() != first.Error() {
						t.Errorf("material %d by %s: %v, and before: %v", i, by, explain(err), first)
					}
				}
			}
			if n := objectsOf(r, k); n != 0 {
				t.Errorf("%d objects are left", n)
			}
			if md := describeKey(t, r, k.ARN); md.KeyState != "PendingImport" {
				t.Errorf("the key is %s", md.KeyState)
			}
		})
	}
	r.Restart(t)
	for _, o := range r.Token.Objects() {
		if o.Spec.Role == hsm.RoleImportStep {
			t.Errorf("the AES key of an import is left: %+v", o)
		}
	}
}
