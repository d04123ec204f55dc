package keyops_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"hash"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest/kwp"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/material"
)

// external makes a key that waits for its material.
func external(t testing.TB, r *keyopstest.Region, in keyops.CreateKeyInput) keyops.KeyMetadata {
	t.Helper()
	in.Origin = keyops.OriginExternal
	k := create(t, r, in)
	if k.KeyState != "PendingImport" || k.Enabled || k.Origin != keyops.OriginExternal || k.CurrentKeyMaterialID != "" {
		t.Fatalf("the new key is %+v", k)
	}
	return k
}

func parameters(t testing.TB, r *keyopstest.Region, key string, by keyops.WrappingAlgorithm) keyops.GetParametersForImportOutput {
	t.Helper()
	out, err := r.GetParametersForImport(t.Context(), admin(), keyops.GetParametersForImportInput{
		KeyID: key, WrappingAlgorithm: by, WrappingKeySpec: keyops.WrappingRSA2048,
	})
	if err != nil {
		t.Fatal(explain(err))
	}
	return out
}

// wrap does what the owner of the material does outside.
func wrap(t testing.TB, by keyops.WrappingAlgorithm, spki, key []byte) []byte {
	t.Helper()
	public, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		t.Fatal(err)
	}
	oaep := func(b []byte) []byte {
		var h hash.Hash = sha256.New()
		if strings.HasSuffix(string(by), "SHA_1") {
			h = sha1.New()
		}
		out, err := rsa.EncryptOAEP(h, rand.Reader, public.(*rsa.PublicKey), b, nil)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if strings.HasPrefix(string(by), "RSAES") {
		return oaep(key)
	}
	kek := random(32)
	inner, err := kwp.Wrap(kek, key)
	if err != nil {
		t.Fatal(err)
	}
	return append(oaep(kek), inner...)
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// importing imports key material that does not expire, unless change says otherwise.
func importing(t testing.TB, r *keyopstest.Region, key string, secret []byte, change func(*keyops.ImportKeyMaterialInput)) (keyops.ImportKeyMaterialOutput, error) {
	t.Helper()
	p := parameters(t, r, key, keyops.WrapRSAAESKeyWrapSHA256)
	in := keyops.ImportKeyMaterialInput{
		KeyID: key, ImportToken: p.ImportToken, EncryptedKeyMaterial: wrap(t, keyops.WrapRSAAESKeyWrapSHA256, p.PublicKey, secret),
		ExpirationModel: keyops.MaterialDoesNotExpire,
	}
	if change != nil {
		change(&in)
	}
	return r.ImportKeyMaterial(t.Context(), admin(), in)
}

func mustImport(t testing.TB, r *keyopstest.Region, key string, secret []byte, change func(*keyops.ImportKeyMaterialInput)) string {
	t.Helper()
	out, err := importing(t, r, key, secret, change)
	if err != nil {
		t.Fatal(explain(err))
	}
	return out.KeyMaterialID
}

func describeKey(t testing.TB, r *keyopstest.Region, key string) keyops.KeyMetadata {
	t.Helper()
	out, err := r.DescribeKey(t.Context(), admin(), keyops.DescribeKeyInput{KeyID: key})
	if err != nil {
		t.Fatal(explain(err))
	}
	return out.KeyMetadata
}

// importKind is one kind of key, its material, and the proof that the key has it.
type importKind struct {
	name   string
	in     keyops.CreateKeyInput
	secret func(t testing.TB) []byte
	works  func(t testing.TB, r *keyopstest.Region, key string, secret []byte)
}

var importKinds = []importKind{
	{"symmetric", keyops.CreateKeyInput{}, func(testing.TB) []byte { return random(32) }, worksSymmetric},
	{"HMAC_256", keyops.CreateKeyInput{KeySpec: keyops.HMAC256, KeyUsage: keyops.GenerateVerifyMac}, func(testing.TB) []byte { return random(32) }, worksMAC},
	{"P-256", keyops.CreateKeyInput{KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify}, func(t testing.TB) []byte { return ecKey(t, elliptic.P256()) }, worksSign},
}

func ecKey(t testing.TB, c elliptic.Curve) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func worksSymmetric(t testing.TB, r *keyopstest.Region, key string, _ []byte) {
	t.Helper()
	enc, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: key, Plaintext: x})
	if err != nil {
		t.Fatal(explain(err))
	}
	dec, err := r.Decrypt(t.Context(), admin(), keyops.DecryptInput{CiphertextBlob: enc.CiphertextBlob})
	if err != nil || !bytes.Equal(dec.Plaintext, x) {
		t.Errorf("decrypted %q, %v", dec.Plaintext, explain(err))
	}
}

func worksMAC(t testing.TB, r *keyopstest.Region, key string, secret []byte) {
	t.Helper()
	out, err := r.GenerateMac(t.Context(), admin(), keyops.GenerateMacInput{KeyID: key, Message: x, MacAlgorithm: keyops.AlgorithmHMACSHA256})
	if err != nil {
		t.Fatal(explain(err))
	}
	h := hmac.New(sha256.New, secret)
	h.Write(x)
	if !hmac.Equal(out.Mac, h.Sum(nil)) {
		t.Errorf("the MAC is %x", out.Mac)
	}
}

func worksSign(t testing.TB, r *keyopstest.Region, key string, secret []byte) {
	t.Helper()
	k, err := x509.ParsePKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	public := &k.(*ecdsa.PrivateKey).PublicKey
	want, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := r.GetPublicKey(t.Context(), admin(), keyops.GetPublicKeyInput{KeyID: key})
	if err != nil || !bytes.Equal(pub.PublicKey, want) {
		t.Errorf("public key %x, %v; want %x", pub.PublicKey, explain(err), want)
	}
	sig, err := r.Sign(t.Context(), admin(), keyops.SignInput{KeyID: key, Message: x, SigningAlgorithm: keyops.AlgorithmECDSASHA256})
	if err != nil {
		t.Fatal(explain(err))
	}
	digest := sha256.Sum256(x)
	if !ecdsa.VerifyASN1(public, digest[:], sig.Signature) {
		t.Error("the signature is not that of the imported key")
	}
}

func TestImport(t *testing.T) {
	for _, kind := range importKinds {
		for _, by := range []keyops.WrappingAlgorithm{keyops.WrapOAEPSHA1, keyops.WrapOAEPSHA256, keyops.WrapRSAAESKeyWrapSHA1, keyops.WrapRSAAESKeyWrapSHA256} {
			t.Run(kind.name+" by "+string(by), func(t *testing.T) {
				r := keyopstest.New(t, keyopstest.Options{})
				k := external(t, r, kind.in)
				p := parameters(t, r, k.ARN, by)
				if d := time.Until(p.ParametersValidTo); p.KeyID != k.ARN || d < 23*time.Hour || d > 24*time.Hour {
					t.Errorf("parameters %+v", p)
				}
				secret := kind.secret(t)
				out, err := r.ImportKeyMaterial(t.Context(), admin(), keyops.ImportKeyMaterialInput{
					KeyID: k.ARN, ImportToken: p.ImportToken, EncryptedKeyMaterial: wrap(t, by, p.PublicKey, secret),
					ExpirationModel: keyops.MaterialDoesNotExpire, KeyMaterialDescription: "from the vault",
				})
				if err != nil {
					t.Fatal(explain(err))
				}
				if _, err := material.Parse(out.KeyMaterialID); err != nil || out.KeyID != k.ARN {
					t.Errorf("answer %+v", out)
				}
				for range 2 { // and after a restart
					md := describeKey(t, r, k.ARN)
					if md.KeyState != "Enabled" || md.ExpirationModel != keyops.MaterialDoesNotExpire || !md.ValidTo.IsZero() || md.Exportability != keyops.ExportNever {
						t.Errorf("the key is %s, %s until %s, exportability %s", md.KeyState, md.ExpirationModel, md.ValidTo, md.Exportability)
					}
					if kind.name == "symmetric" && md.CurrentKeyMaterialID != out.KeyMaterialID {
						t.Errorf("current material %s, imported %s", md.CurrentKeyMaterialID, out.KeyMaterialID)
					}
					kind.works(t, r, k.ARN, secret)
					r.Restart(t)
				}
				for _, o := range r.Token.Objects() {
					if o.Spec.Role == hsm.RoleImportWrapping {
						t.Errorf("wrapping key %s is still there", o.ID)
					}
				}
				sound(t, r)
			})
		}
	}
}

// TestImportedBytesUnderTwoKeys: equal bytes under two keys have different IDs and do not
// open each other's ciphertexts.
func TestImportedBytesUnderTwoKeys(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	a, b, secret := external(t, r, keyops.CreateKeyInput{}), external(t, r, keyops.CreateKeyInput{}), random(32)
	if one, two := mustImport(t, r, a.ARN, secret, nil), mustImport(t, r, b.ARN, secret, nil); one == two {
		t.Error("both keys' materials have one ID")
	}
	enc, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: a.ARN, Plaintext: x})
	if err != nil {
		t.Fatal(explain(err))
	}
	blob := bytes.Clone(enc.CiphertextBlob)
	other, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: b.ARN, Plaintext: x})
	if err != nil {
		t.Fatal(explain(err))
	}
	copy(blob[:34], other.CiphertextBlob[:34]) // the key and material that it names
	want(t, decryptWith(r, blob), keyops.ErrInvalidCiphertext, "")
}

// TestImportToken: what a token is good for, and which refusal says what.
func TestImportToken(t *testing.T) {
	now := time.Now()
	r := keyopstest.New(t, keyopstest.Options{Clock: func() time.Time { return now }})
	k, other := external(t, r, keyops.CreateKeyInput{}), external(t, r, keyops.CreateKeyInput{})
	by := keyops.WrapOAEPSHA256
	attempt := func(key string, token, blob []byte) error {
		return second(r.ImportKeyMaterial(t.Context(), admin(), keyops.ImportKeyMaterialInput{
			KeyID: key, ImportToken: token, EncryptedKeyMaterial: blob, ExpirationModel: keyops.MaterialDoesNotExpire,
		}))
	}
	t.Run("of another key", func(t *testing.T) {
		p := parameters(t, r, other.ARN, by)
		want(t, attempt(k.ARN, p.ImportToken, wrap(t, by, p.PublicKey, random(32))), keyops.ErrInvalidImportToken, "GetParametersForImport")
	})
	t.Run("changed", func(t *testing.T) {
		p := parameters(t, r, k.ARN, by)
		blob := wrap(t, by, p.PublicKey, random(32))
		for i := range p.ImportToken {
			token := bytes.Clone(p.ImportToken)
			token[i] ^= 1
			want(t, attempt(k.ARN, token, blob), keyops.ErrInvalidImportToken, "")
		}
		want(t, attempt(k.ARN, append(bytes.Clone(p.ImportToken), 0), blob), keyops.ErrInvalidImportToken, "")
		want(t, attempt(k.ARN, p.ImportToken[:len(p.ImportToken)-1], blob), keyops.ErrInvalidImportToken, "")
	})
	t.Run("five attempts", func(t *testing.T) {
		p := parameters(t, r, k.ARN, by)
		bad, good := wrap(t, by, p.PublicKey, random(31)), wrap(t, by, p.PublicKey, random(32))
		for i := range 5 {
			if i == 3 {
				r.Restart(t) // attempts are counted on disk
			}
			want(t, attempt(k.ARN, p.ImportToken, bad), keyops.ErrInvalidCiphertext, "exactly 32 bytes")
		}
		want(t, attempt(k.ARN, p.ImportToken, good), keyops.ErrInvalidImportToken, "5 attempts")
	})
	t.Run("the fifth may succeed, and no second", func(t *testing.T) {
		k := external(t, r, keyops.CreateKeyInput{})
		p := parameters(t, r, k.ARN, by)
		bad, good := wrap(t, by, p.PublicKey, random(31)), wrap(t, by, p.PublicKey, random(32))
		for range 4 {
			want(t, attempt(k.ARN, p.ImportToken, bad), keyops.ErrInvalidCiphertext, "")
		}
		if err := attempt(k.ARN, p.ImportToken, good); err != nil {
			t.Fatal(explain(err))
		}
		want(t, attempt(k.ARN, p.ImportToken, good), keyops.ErrInvalidImportToken, "serves one import")
		r.Restart(t)
		want(t, attempt(k.ARN, p.ImportToken, good), keyops.ErrInvalidImportToken, "serves one import")
	})
	t.Run("expired", func(t *testing.T) {
		p := parameters(t, r, k.ARN, by)
		good := wrap(t, by, p.PublicKey, random(32))
		start := now
		now = p.ParametersValidTo
		want(t, attempt(k.ARN, p.ImportToken, good), keyops.ErrExpiredImportToken, "expired at")
		r.Restart(t) // the wrapping key is gone, and the answer is the same
		want(t, attempt(k.ARN, p.ImportToken, good), keyops.ErrExpiredImportToken, "expired at")
		for _, o := range r.Token.Objects() {
			if o.Spec.Role == hsm.RoleImportWrapping {
				t.Errorf("wrapping key %s is still there", o.ID)
			}
		}
		now = start
		k := external(t, r, keyops.CreateKeyInput{})
		p = parameters(t, r, k.ARN, by)
		good = wrap(t, by, p.PublicKey, random(32))
		now = p.ParametersValidTo.Add(-1)
		if err := attempt(k.ARN, p.ImportToken, good); err != nil {
			t.Error(explain(err))
		}
	})
}

// TestWrappingKeysAreBounded: five sets of parameters per key, a hundred per account.
func TestWrappingKeysAreBounded(t *testing.T) {
	now := time.Now()
	r := keyopstest.New(t, keyopstest.Options{Clock: func() time.Time { return now }})
	get := func(key string) error {
		return second(r.GetParametersForImport(t.Context(), admin(), keyops.GetParametersForImportInput{
			KeyID: key, WrappingAlgorithm: keyops.WrapOAEPSHA1, WrappingKeySpec: keyops.WrappingRSA2048,
		}))
	}
	k := external(t, r, keyops.CreateKeyInput{})
	for range 5 {
		if err := get(k.ARN); err != nil {
			t.Fatal(explain(err))
		}
	}
	want(t, get(k.ARN), keyops.ErrLimitExceeded, "5 sets")
	r.Restart(t)
	want(t, get(k.ARN), keyops.ErrLimitExceeded, "5 sets")
	for range 19 {
		k := external(t, r, keyops.CreateKeyInput{})
		for range 5 {
			if err := get(k.ARN); err != nil {
				t.Fatal(explain(err))
			}
		}
	}
	last := external(t, r, keyops.CreateKeyInput{})
	want(t, get(last.ARN), keyops.ErrLimitExceeded, "100 sets")
	now = now.Add(24 * time.Hour)
	if err := get(last.ARN); err != nil {
		t.Error("after a day:", explain(err))
	}
	wrapping := 0
	for _, o := range r.Token.Objects() {
		if o.Spec.Role == hsm.RoleImportWrapping {
			wrapping++
		}
	}
	if wrapping != 1 {
		t.Errorf("%d wrapping keys in the token", wrapping)
	}
}

// TestImportSaysNothing: whatever is wrong with the blob, the caller hears the same words,
// and nothing is left behind.
func TestImportSaysNothing(t *testing.T) {
	for _, kind := range importKinds {
		t.Run(kind.name, func(t *testing.T) {
			r := keyopstest.New(t, keyopstest.Options{})
			k := external(t, r, kind.in)
			secret := kind.secret(t)
			foreign, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				t.Fatal(err)
			}
			foreignSPKI, err := x509.MarshalPKIXPublicKey(&foreign.PublicKey)
			if err != nil {
				t.Fatal(err)
			}
			by := keyops.WrapRSAAESKeyWrapSHA256
			flip := func(b []byte, at int) []byte { b = bytes.Clone(b); b[at] ^= 0x40; return b }
			blobs := map[string]func(spki []byte) []byte{
				"one byte":             func([]byte) []byte { return []byte{1} },
				"no second part":       func(spki []byte) []byte { return wrap(t, by, spki, secret)[:256] },
				"cut off":              func(spki []byte) []byte { b := wrap(t, by, spki, secret); return b[:len(b)-8] },
				"longer":               func(spki []byte) []byte { return append(wrap(t, by, spki, secret), make([]byte, 8)...) },
				"first part changed":   func(spki []byte) []byte { return flip(wrap(t, by, spki, secret), 100) },
				"second part changed":  func(spki []byte) []byte { return flip(wrap(t, by, spki, secret), 256+9) },
				"of another key":       func([]byte) []byte { return wrap(t, by, foreignSPKI, secret) },
				"with another hash":    func(spki []byte) []byte { return wrap(t, keyops.WrapRSAAESKeyWrapSHA1, spki, secret) },
				"without the AES key":  func(spki []byte) []byte { return wrap(t, keyops.WrapOAEPSHA256, spki, random(32)) },
				"material too short":   func(spki []byte) []byte { return wrap(t, by, spki, secret[:len(secret)-1]) },
				"half of the material": func(spki []byte) []byte { return wrap(t, by, spki, secret[:16]) },
				"material too long":    func(spki []byte) []byte { return wrap(t, by, spki, append(bytes.Clone(secret), 0)) },
				"another curve":        func(spki []byte) []byte { return wrap(t, by, spki, ecKey(t, elliptic.P384())) },
				"random bytes":         func([]byte) []byte { return random(256 + 40) },
			}
			if kind.in.KeySpec == keyops.ECCNISTP256 {
				delete(blobs, "material too long") // PKCS #8 says its own length
			}
			var first error
			for name, make := range blobs {
				p := parameters(t, r, k.ARN, by)
				_, err := r.ImportKeyMaterial(t.Context(), admin(), keyops.ImportKeyMaterialInput{
					KeyID: k.ARN, ImportToken: p.ImportToken, EncryptedKeyMaterial: make(p.PublicKey), ExpirationModel: keyops.MaterialDoesNotExpire,
				})
				want(t, err, keyops.ErrInvalidCiphertext, "")
				if first == nil {
					first = err
				} else if err == nil || err.Error() != first.Error() {
					t.Errorf("%s: %v, and before: %v", name, err, first)
				}
				// Spend it, so that the next has room.
				for range 4 {
					r.ImportKeyMaterial(t.Context(), admin(), keyops.ImportKeyMaterialInput{
						KeyID: k.ARN, ImportToken: p.ImportToken, EncryptedKeyMaterial: x, ExpirationModel: keyops.MaterialDoesNotExpire,
					})
				}
			}
			for _, o := range r.Token.Objects() {
				if o.Spec.Material() || o.Spec.Role == hsm.RoleImportWrapping {
					t.Errorf("left behind: %+v", o)
				}
			}
			if md := describeKey(t, r, k.ARN); md.KeyState != "PendingImport" {
				t.Errorf("the key is %s", md.KeyState)
			}
			sound(t, r)
		})
	}
}
