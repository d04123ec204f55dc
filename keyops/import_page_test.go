package keyops_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"hash"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// importPage returns the commands under each heading of the page that tells how to import.
func importPage(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.ReadFile("../docs/import.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string]string{}
	for _, section := range strings.Split(string(page), "\n### ")[1:] {
		heading, rest, _ := strings.Cut(section, "\n")
		if m := regexp.MustCompile("(?s)```sh\n(.*?)```").FindStringSubmatch(rest); m != nil {
			blocks[heading] = m[1]
		}
	}
	return blocks
}

// sh runs commands of the page as they stand there.
func sh(t *testing.T, dir, commands string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", commands)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", commands, err, out)
	}
}

func readFile(t *testing.T, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pageKind is a kind of key that is made and imported by the commands of the page.
type pageKind struct {
	spec    keyops.KeySpec
	usage   keyops.KeyUsage
	heading string
	replace [2]string // in the commands, for the other lengths and curves
	proof   func(t *testing.T, r *keyopstest.Region, key, dir string)
}

func pageKinds() []pageKind {
	curve := func(name string) [2]string { return [2]string{"P-256", name} }
	length := func(n string) [2]string { return [2]string{"32", n} }
	return []pageKind{ // the first three are enough for the token in memory
		{keyops.SymmetricDefault, keyops.EncryptDecrypt, "SYMMETRIC_DEFAULT", [2]string{}, func(t *testing.T, r *keyopstest.Region, key, _ string) { worksSymmetric(t, r, key, nil) }},
		{keyops.ECCNISTP256, keyops.SignVerify, "ECC_NIST_P256", [2]string{}, provesSign(keyops.AlgorithmECDSASHA256)},
		{keyops.RSA2048, keyops.SignVerify, "RSA_2048", [2]string{}, provesSign("RSASSA_PSS_SHA_256")},
		{keyops.HMAC224, keyops.GenerateVerifyMac, "HMAC_256", [2]string{}, provesMAC(keyops.AlgorithmHMACSHA224, sha256.New224)},
		{keyops.HMAC256, keyops.GenerateVerifyMac, "HMAC_256", [2]string{}, provesMAC(keyops.AlgorithmHMACSHA256, sha256.New)},
		{keyops.HMAC384, keyops.GenerateVerifyMac, "HMAC_256", length("48"), provesMAC(keyops.AlgorithmHMACSHA384, sha512.New384)},
		{keyops.HMAC512, keyops.GenerateVerifyMac, "HMAC_256", length("64"), provesMAC(keyops.AlgorithmHMACSHA512, sha512.New)},
		{keyops.ECCNISTP384, keyops.SignVerify, "ECC_NIST_P256", curve("P-384"), provesSign(keyops.AlgorithmECDSASHA384)},
		{keyops.ECCNISTP521, keyops.SignVerify, "ECC_NIST_P256", curve("P-521"), provesSign(keyops.AlgorithmECDSASHA512)},
		{keyops.ECCSECGP256K1, keyops.SignVerify, "ECC_NIST_P256", curve("secp256k1"), provesSign(keyops.AlgorithmECDSASHA256)},
		{keyops.ECCNISTP256, keyops.KeyAgreement, "ECC_NIST_P256", [2]string{}, provesAgree},
		{keyops.ECCNISTP521, keyops.KeyAgreement, "ECC_NIST_P256", curve("P-521"), provesAgree},
		{keyops.RSA2048, keyops.EncryptDecrypt, "RSA_2048", [2]string{}, provesDecrypt},
	}
}

func provesMAC(a keyops.Algorithm, h func() hash.Hash) func(*testing.T, *keyopstest.Region, string, string) {
	return func(t *testing.T, r *keyopstest.Region, key, dir string) {
		out, err := r.GenerateMac(t.Context(), admin(), keyops.GenerateMacInput{KeyID: key, Message: x, MacAlgorithm: a})
		if err != nil {
			t.Fatal(explain(err))
		}
		m := hmac.New(h, readFile(t, dir, "key-material.bin"))
		m.Write(x)
		if !hmac.Equal(out.Mac, m.Sum(nil)) {
			t.Errorf("the MAC is %x", out.Mac)
		}
	}
}

// shownKey returns what GetPublicKey shows, and what openssl says of the file.
func shownKey(t *testing.T, r *keyopstest.Region, key, dir string) (shown, of []byte) {
	t.Helper()
	out, err := r.GetPublicKey(t.Context(), admin(), keyops.GetPublicKeyInput{KeyID: key})
	if err != nil {
		t.Fatal(explain(err))
	}
	sh(t, dir, "openssl pkey -inform DER -in key-material.bin -pubout -outform DER -out public.der")
	return out.PublicKey, readFile(t, dir, "public.der")
}

func provesSign(a keyops.Algorithm) func(*testing.T, *keyopstest.Region, string, string) {
	return func(t *testing.T, r *keyopstest.Region, key, dir string) {
		if shown, of := shownKey(t, r, key, dir); !bytes.Equal(shown, of) {
			t.Errorf("public key %x, the file's is %x", shown, of)
		}
		sig, err := r.Sign(t.Context(), admin(), keyops.SignInput{KeyID: key, Message: x, SigningAlgorithm: a})
		if err != nil {
			t.Fatal(explain(err))
		}
		if err := os.WriteFile(filepath.Join(dir, "signature"), sig.Signature, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "message"), x, 0o600); err != nil {
			t.Fatal(err)
		}
		digest := "-sha" + string(a)[len(a)-3:]
		if strings.HasPrefix(string(a), "RSASSA_PSS") {
			digest += " -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest"
		}
		sh(t, dir, "openssl dgst "+digest+" -prverify key.pem -signature signature message")
	}
}

func provesAgree(t *testing.T, r *keyopstest.Region, key, dir string) {
	shown, of := shownKey(t, r, key, dir)
	a, b := agreementKey(t, shown), agreementKey(t, of)
	point, size := a.Bytes(), len(a.Bytes())/2 // 4, x, y
	if !bytes.Equal(point[:1+size], b.Bytes()[:1+size]) || point[2*size]&1 != 0 {
		t.Errorf("public key %x, the file's is %x", shown, of)
	}
	k, err := x509.ParsePKCS8PrivateKey(readFile(t, dir, "key-material.bin"))
	if err != nil {
		t.Fatal(err)
	}
	private, err := k.(*ecdsa.PrivateKey).ECDH()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := private.Curve().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(peer.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.DeriveSharedSecret(t.Context(), admin(), keyops.DeriveSharedSecretInput{KeyID: key, KeyAgreementAlgorithm: keyops.AlgorithmECDH, PublicKey: spki})
	if err != nil {
		t.Fatal(explain(err))
	}
	// The peer may take either public key: that of the file, or the one that is shown.
	for _, public := range []*ecdh.PublicKey{a, b} {
		if theirs := agreed(t, peer, public); !bytes.Equal(theirs, out.SharedSecret) {
			t.Errorf("agreed on %x, the peer on %x", out.SharedSecret, theirs)
		}
	}
}

func agreementKey(t *testing.T, der []byte) *ecdh.PublicKey {
	t.Helper()
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	public, err := parsed.(*ecdsa.PublicKey).ECDH()
	if err != nil {
		t.Fatal(err)
	}
	return public
}

func agreed(t *testing.T, private *ecdh.PrivateKey, public *ecdh.PublicKey) []byte {
	t.Helper()
	secret, err := private.ECDH(public)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func provesDecrypt(t *testing.T, r *keyopstest.Region, key, dir string) {
	shown, of := shownKey(t, r, key, dir)
	if !bytes.Equal(shown, of) {
		t.Errorf("public key %x, the file's is %x", shown, of)
	}
	public, err := x509.ParsePKIXPublicKey(of)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, public.(*rsa.PublicKey), x, nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.Decrypt(t.Context(), admin(), keyops.DecryptInput{KeyID: key, CiphertextBlob: blob, EncryptionAlgorithm: "RSAES_OAEP_SHA_1"})
	if err != nil || !bytes.Equal(out.Plaintext, x) {
		t.Errorf("decrypted %q, %v", out.Plaintext, explain(err))
	}
}

// TestImportPage makes, wraps and imports every kind of key with the commands of the page:
// with SHA-1 on SoftHSM, with SHA-256, which SoftHSM lacks, on the token in memory.
func TestImportPage(t *testing.T) {
	blocks := importPage(t)
	for _, on := range []struct {
		name   string
		region func(t *testing.T) *keyopstest.Region
		kinds  []pageKind
		oaep   keyops.WrappingAlgorithm
		both   keyops.WrappingAlgorithm
	}{
		{"softhsm", func(t *testing.T) *keyopstest.Region { return newReal(t, paris, keyopstest.Options{}) }, pageKinds(), keyops.WrapOAEPSHA1, keyops.WrapRSAAESKeyWrapSHA1},
		{"fake", func(t *testing.T) *keyopstest.Region { return keyopstest.New(t, keyopstest.Options{}) }, pageKinds()[:3], keyops.WrapOAEPSHA256, keyops.WrapRSAAESKeyWrapSHA256},
	} {
		t.Run(on.name, func(t *testing.T) {
			r := on.region(t)
			for _, kind := range on.kinds {
				for _, by := range []keyops.WrappingAlgorithm{on.oaep, on.both} {
					t.Run(string(kind.spec)+" "+string(kind.usage)+" "+string(by), func(t *testing.T) { importByPage(t, r, blocks, kind, by) })
				}
			}
		})
	}
}

func importByPage(t *testing.T, r *keyopstest.Region, blocks map[string]string, kind pageKind, by keyops.WrappingAlgorithm) {
	k := external(t, r, keyops.CreateKeyInput{KeySpec: kind.spec, KeyUsage: kind.usage})
	get := keyops.GetParametersForImportInput{KeyID: k.ARN, WrappingAlgorithm: by, WrappingKeySpec: keyops.WrappingRSA2048}
	p, err := r.GetParametersForImport(t.Context(), admin(), get)
	if oaep := strings.HasPrefix(string(by), "RSAES"); oaep && kind.spec == keyops.ECCNISTP521 {
		want(t, err, keyops.ErrUnsupportedOperation, "use wrapping key spec RSA_3072")
		return
	} else if oaep && kind.spec == keyops.RSA2048 {
		want(t, err, keyops.ErrUnsupportedOperation, "RSA_AES_KEY_WRAP")
		return
	}
	if err != nil {
		t.Fatal(explain(err))
	}
	dir := t.TempDir()
	make, wrap := blocks[kind.heading], blocks[string(by)]
	if make == "" || wrap == "" {
		t.Fatal("the page has no commands for it")
	}
	if kind.replace[0] != "" {
		make = strings.Replace(make, kind.replace[0], kind.replace[1], 1)
	}
	if err := os.WriteFile(filepath.Join(dir, "wrapping-key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: p.PublicKey}), 0o600); err != nil {
		t.Fatal(err)
	}
	sh(t, dir, make)
	sh(t, dir, wrap)
	out, err := r.ImportKeyMaterial(t.Context(), admin(), keyops.ImportKeyMaterialInput{
		KeyID: k.ARN, ImportToken: p.ImportToken, EncryptedKeyMaterial: readFile(t, dir, "wrapped.bin"), ExpirationModel: keyops.MaterialDoesNotExpire,
	})
	if err != nil {
		t.Fatal(explain(err))
	}
	if md := describeKey(t, r, k.ARN); md.KeyState != "Enabled" || md.Exportability != keyops.ExportNever {
		t.Errorf("the key is %s, exportability %s", md.KeyState, md.Exportability)
	}
	kind.proof(t, r, k.ARN, dir)
	if by != keyops.WrapRSAAESKeyWrapSHA1 {
		return
	}
	// The same bytes come back as the same material; the key works after that as before.
	if _, err := r.DeleteImportedKeyMaterial(t.Context(), admin(), keyops.DeleteImportedKeyMaterialInput{KeyID: k.ARN}); err != nil {
		t.Fatal(explain(err))
	}
	if objectsOf(r, k) != 0 {
		t.Error("the deleted material is still in the token")
	}
	if p, err = r.GetParametersForImport(t.Context(), admin(), get); err != nil {
		t.Fatal(explain(err))
	}
	if err := os.WriteFile(filepath.Join(dir, "wrapping-key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: p.PublicKey}), 0o600); err != nil {
		t.Fatal(err)
	}
	sh(t, dir, wrap)
	again, err := r.ImportKeyMaterial(t.Context(), admin(), keyops.ImportKeyMaterialInput{
		KeyID: k.ARN, ImportToken: p.ImportToken, EncryptedKeyMaterial: readFile(t, dir, "wrapped.bin"), ExpirationModel: keyops.MaterialDoesNotExpire,
	})
	if err != nil || again.KeyMaterialID != out.KeyMaterialID {
		t.Fatalf("imported %s, %v; before %s", again.KeyMaterialID, explain(err), out.KeyMaterialID)
	}
	kind.proof(t, r, k.ARN, dir)
}
