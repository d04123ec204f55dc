package keyops_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/hsm/hsmtest/wycheproof"
	"github.com/keyferry/keyferry/hsm/spki"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// TestWycheproofSignatures runs the vectors of every signing algorithm on what Verify does.
func TestWycheproofSignatures(t *testing.T) {
	for _, tc := range []struct {
		file      string
		algorithm keyops.Algorithm
		hash      crypto.Hash
		salt      bool // made with another length of salt than AWS has
	}{
		{"ecdsa_secp256r1_sha256", "ECDSA_SHA_256", crypto.SHA256, false},
		{"ecdsa_secp256k1_sha256", "ECDSA_SHA_256", crypto.SHA256, false},
		{"ecdsa_secp384r1_sha384", "ECDSA_SHA_384", crypto.SHA384, false},
		{"ecdsa_secp521r1_sha512", "ECDSA_SHA_512", crypto.SHA512, false},
		{"rsa_signature_2048_sha256", "RSASSA_PKCS1_V1_5_SHA_256", crypto.SHA256, false},
		{"rsa_signature_2048_sha384", "RSASSA_PKCS1_V1_5_SHA_384", crypto.SHA384, false},
		{"rsa_signature_2048_sha512", "RSASSA_PKCS1_V1_5_SHA_512", crypto.SHA512, false},
		{"rsa_signature_3072_sha256", "RSASSA_PKCS1_V1_5_SHA_256", crypto.SHA256, false},
		{"rsa_signature_3072_sha384", "RSASSA_PKCS1_V1_5_SHA_384", crypto.SHA384, false},
		{"rsa_signature_3072_sha512", "RSASSA_PKCS1_V1_5_SHA_512", crypto.SHA512, false},
		{"rsa_signature_4096_sha512", "RSASSA_PKCS1_V1_5_SHA_512", crypto.SHA512, false},
		{"rsa_pss_2048_sha256_mgf1_32", "RSASSA_PSS_SHA_256", crypto.SHA256, false},
		{"rsa_pss_2048_sha384_mgf1_48", "RSASSA_PSS_SHA_384", crypto.SHA384, false},
		{"rsa_pss_3072_sha256_mgf1_32", "RSASSA_PSS_SHA_256", crypto.SHA256, false},
		{"rsa_pss_4096_sha256_mgf1_32", "RSASSA_PSS_SHA_256", crypto.SHA256, false},
		{"rsa_pss_4096_sha384_mgf1_48", "RSASSA_PSS_SHA_384", crypto.SHA384, false},
		{"rsa_pss_4096_sha512_mgf1_64", "RSASSA_PSS_SHA_512", crypto.SHA512, false},
		{"rsa_pss_2048_sha256_mgf1_0", "RSASSA_PSS_SHA_256", crypto.SHA256, true},
		{"rsa_pss_4096_sha512_mgf1_32", "RSASSA_PSS_SHA_512", crypto.SHA512, true},
	} {
		t.Run(tc.file, func(t *testing.T) {
			t.Parallel()
			var tally wycheproof.Tally
			for _, g := range wycheproof.Load(t, tc.file) {
				pub, err := spki.Parse(g.PublicKeyDER)
				if err != nil {
					t.Fatalf("public key of vector %d: %v", g.Tests[0].ID, err)
				}
				for _, v := range g.Tests {
					h := tc.hash.New()
					h.Write(v.Msg)
					err := keyops.VerifySignature(pub, tc.algorithm, h.Sum(nil), v.Sig)
					expected := v.Result
					if tc.salt {
						expected = wycheproof.Invalid
						if v.Comment == fmt.Sprintf("s_len changed to %d", tc.hash.Size()) {
							expected = wycheproof.Valid // in the one way that is ours
						}
					}
					judge(t, &tally, v, expected, err, err == nil)
				}
			}
			tally.Report(t, 100)
		})
	}
}

// judge compares what became of a vector with what had to. right says whether the answer, if
// there was one, is that of the vector.
func judge(t *testing.T, tally *wycheproof.Tally, v wycheproof.Vector, expected wycheproof.Result, err error, right bool) {
	t.Helper()
	tally.Ran++
	switch {
	case err == nil && !right:
		t.Errorf("vector %d (%s %v): another answer", v.ID, v.Comment, v.Flags)
	case expected == wycheproof.Valid && err != nil:
		t.Errorf("vector %d (%s %v) is valid: %v", v.ID, v.Comment, v.Flags, explain(err))
	case expected == wycheproof.Invalid && err == nil:
		t.Errorf("vector %d (%s %v) is invalid, and was taken", v.ID, v.Comment, v.Flags)
	}
	if err != nil {
		tally.Refused++
	}
}

// TestWycheproofAgreement runs the vectors of ECDH on DeriveSharedSecret, each with its own
// private key imported. On the real token it runs those of the private key of each curve
// that has the most vectors: what is refused is refused before the token is asked. Of many
// valid vectors of one private key it runs sixty.
func TestWycheproofAgreement(t *testing.T) {
	onBoth(t, func(t *testing.T, r *keyopstest.Region) {
		var tally wycheproof.Tally
		for _, c := range []struct {
			file  string
			spec  keyops.KeySpec
			curve elliptic.Curve
		}{
			{"ecdh_secp256r1", keyops.ECCNISTP256, elliptic.P256()},
			{"ecdh_secp384r1", keyops.ECCNISTP384, elliptic.P384()},
			{"ecdh_secp521r1", keyops.ECCNISTP521, elliptic.P521()},
		} {
			keys, byKey := byKey(wycheproof.Load(t, c.file), func(v wycheproof.Vector) string { return v.Private })
			if r.Fake == nil {
				keys = keys[:1]
			}
			for _, private := range keys {
				k := external(t, r, keyops.CreateKeyInput{KeySpec: c.spec, KeyUsage: keyops.KeyAgreement})
				importVector(t, r, k.ARN, privateKey(t, c.curve, private))
				good := 0
				for _, v := range byKey[private] {
					if v.Result == wycheproof.Valid {
						good++
					}
					if len(v.Public) == 0 || v.Result == wycheproof.Valid && good > 60 {
						tally.Left++
						continue
					}
					out, err := r.DeriveSharedSecret(t.Context(), admin(), keyops.DeriveSharedSecretInput{KeyID: k.ARN, PublicKey: v.Public, KeyAgreementAlgorithm: "ECDH"})
					if err != nil {
						want(t, err, keyops.ErrValidation, "public key must be a DER-encoded SubjectPublicKeyInfo with an uncompressed point on the curve")
					}
					judge(t, &tally, v, v.Result, err, bytes.Equal(out.SharedSecret, v.Shared))
				}
			}
		}
		tally.Report(t, 300)
	})
}

// byKey sorts vectors by their keys, and keys by how many vectors they have.
func byKey(groups []wycheproof.Group, key func(wycheproof.Vector) string) ([]string, map[string][]wycheproof.Vector) {
	m := map[string][]wycheproof.Vector{}
	for _, g := range groups {
		for _, v := range g.Tests {
			m[key(v)] = append(m[key(v)], v)
		}
	}
	return slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(len(m[b])-len(m[a]), strings.Compare(a, b))
	}), m
}

// importVector imports a vector's key by what every token here can unwrap.
func importVector(t *testing.T, r *keyopstest.Region, key string, secret []byte) {
	t.Helper()
	p := parameters(t, r, key, keyops.WrapRSAAESKeyWrapSHA1)
	_, err := r.ImportKeyMaterial(t.Context(), admin(), keyops.ImportKeyMaterialInput{
		KeyID: key, ImportToken: p.ImportToken, ExpirationModel: keyops.MaterialDoesNotExpire,
		EncryptedKeyMaterial: wrap(t, keyops.WrapRSAAESKeyWrapSHA1, p.PublicKey, secret),
	})
	if err != nil {
		t.Fatal(explain(err))
	}
}

// privateKey encodes a private key of the vectors, which write it as a signed number.
func privateKey(t *testing.T, curve elliptic.Curve, private string) []byte {
	t.Helper()
	n, ok := new(big.Int).SetString(private, 16)
	if !ok {
		t.Fatalf("private key %q", private)
	}
	key, err := ecdsa.ParseRawPrivateKey(curve, n.FillBytes(make([]byte, (curve.Params().BitSize+7)/8)))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestWycheproofMAC runs the vectors of HMAC on VerifyMac and GenerateMac, with the vectors'
// keys imported: those that have the length of a key spec. A MAC cut short is refused,
// whatever the vectors say of it. Real tokens' MACs are compared with OpenSSL's.
func TestWycheproofMAC(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	var tally wycheproof.Tally
	for _, c := range []struct {
		file      string
		spec      keyops.KeySpec
		algorithm keyops.Algorithm
		bits      int
	}{
		{"hmac_sha224", keyops.HMAC224, "HMAC_SHA_224", 224},
		{"hmac_sha256", keyops.HMAC256, "HMAC_SHA_256", 256},
		{"hmac_sha384", keyops.HMAC384, "HMAC_SHA_384", 384},
		{"hmac_sha512", keyops.HMAC512, "HMAC_SHA_512", 512},
	} {
		for _, g := range wycheproof.Load(t, c.file) {
			keys, byKey := byKey([]wycheproof.Group{g}, func(v wycheproof.Vector) string { return string(v.Key) })
			most := 6 // keys: nearly every vector has one of its own
			if g.KeyBits != c.bits {
				most = 0
			}
			for i, key := range keys {
				if i >= most {
					tally.Left += len(byKey[key])
					continue
				}
				k := external(t, r, keyops.CreateKeyInput{KeySpec: c.spec, KeyUsage: keyops.GenerateVerifyMac})
				// HMAC_224 has 32 bytes here, of which the last four may be zeros: HMAC pads with them.
				importVector(t, r, k.ARN, append([]byte(key), make([]byte, -len(key)&7)...))
				for _, v := range byKey[key] {
					if len(v.Msg) == 0 { // a message of AWS has a byte or more
						tally.Left++
						continue
					}
					tryMACVector(t, &tally, place{r, k.ARN}, c.algorithm, g.TagBits == c.bits, v)
				}
			}
		}
	}
	tally.Report(t, 200)
}

func tryMACVector(t *testing.T, tally *wycheproof.Tally, p place, a keyops.Algorithm, whole bool, v wycheproof.Vector) {
	t.Helper()
	_, err := p.VerifyMac(t.Context(), admin(), keyops.VerifyMacInput{KeyID: p.key, Message: v.Msg, Mac: v.Tag, MacAlgorithm: a})
	if err != nil {
		want(t, err, keyops.ErrInvalidMac, "")
	}
	expected := v.Result
	if !whole {
		expected = wycheproof.Invalid
	}
	judge(t, tally, v, expected, err, err == nil)
	made, err := p.GenerateMac(t.Context(), admin(), keyops.GenerateMacInput{KeyID: p.key, Message: v.Msg, MacAlgorithm: a})
	if err != nil || v.Result == wycheproof.Valid && !bytes.Equal(made.Mac[:len(v.Tag)], v.Tag) {
		t.Errorf("vector %d: MAC %x, %v; want %x", v.ID, made.Mac, explain(err), []byte(v.Tag))
	}
}

// TestWycheproofOAEP runs the vectors of RSA-OAEP on Decrypt with the vectors' keys imported.
// AWS's ciphertexts have no label, so one with a label is refused. On the real token SHA-1 is
// the token's own, and SHA-256 decoded on the host.
func TestWycheproofOAEP(t *testing.T) {
	onBoth(t, func(t *testing.T, r *keyopstest.Region) {
		var tally wycheproof.Tally
		for _, c := range []struct {
			file      string
			spec      keyops.KeySpec
			algorithm keyops.Algorithm
		}{
			{"rsa_oaep_2048_sha1_mgf1sha1", keyops.RSA2048, "RSAES_OAEP_SHA_1"},
			{"rsa_oaep_2048_sha256_mgf1sha256", keyops.RSA2048, "RSAES_OAEP_SHA_256"},
			{"rsa_oaep_3072_sha256_mgf1sha256", keyops.RSA3072, "RSAES_OAEP_SHA_256"},
			{"rsa_oaep_4096_sha256_mgf1sha256", keyops.RSA4096, "RSAES_OAEP_SHA_256"},
		} {
			for _, g := range wycheproof.Load(t, c.file) {
				if r.Fake == nil && c.spec != keyops.RSA2048 {
					tally.Left += len(g.Tests)
					continue
				}
				k := external(t, r, keyops.CreateKeyInput{KeySpec: c.spec, KeyUsage: keyops.EncryptDecrypt})
				importVector(t, r, k.ARN, g.PrivateKeyPKCS8)
				for _, v := range g.Tests {
					if len(v.CT) == 0 {
						tally.Left++
						continue
					}
					out, err := r.Decrypt(context.Background(), admin(), keyops.DecryptInput{KeyID: k.ARN, CiphertextBlob: v.CT, EncryptionAlgorithm: c.algorithm})
					if err != nil && err.Error() != string(keyops.ErrInvalidCiphertext) {
						t.Errorf("vector %d: refused with %v", v.ID, explain(err))
					}
					expected := v.Result
					if len(v.Label) > 0 {
						expected = wycheproof.Invalid
					}
					judge(t, &tally, v, expected, err, bytes.Equal(out.Plaintext, v.Msg))
				}
			}
		}
		tally.Report(t, 60)
	})
}
