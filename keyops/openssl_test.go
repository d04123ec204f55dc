package keyops_test

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// What others compute is the check of what the token computes. Go's standard library checks
// every algorithm in TestFamilies and TestFamiliesOnTokens; this table, OpenSSL.
//
//	algorithm                  made by us, checked by OpenSSL        made by OpenSSL, taken by us
//	ECDSA, all four curves     Sign                                  -
//	RSA PKCS #1, RSA PSS       Sign, each hash                       -
//	HMAC, all four             GenerateMac of an imported key        VerifyMac
//	RSA OAEP, SHA-1, SHA-256   Encrypt under an imported key         Decrypt in the token
//	ECDH, three curves         DeriveSharedSecret                    the same
var opensslSigns = []struct {
	spec       keyops.KeySpec
	algorithms []keyops.Algorithm
}{
	{keyops.ECCNISTP256, []keyops.Algorithm{"ECDSA_SHA_256"}},
	{keyops.ECCNISTP384, []keyops.Algorithm{"ECDSA_SHA_384"}},
	{keyops.ECCNISTP521, []keyops.Algorithm{"ECDSA_SHA_512"}},
	{keyops.ECCSECGP256K1, []keyops.Algorithm{"ECDSA_SHA_256"}},
	{keyops.RSA2048, []keyops.Algorithm{
		"RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PKCS1_V1_5_SHA_384", "RSASSA_PKCS1_V1_5_SHA_512",
		"RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_384", "RSASSA_PSS_SHA_512",
	}},
}

// ssl runs OpenSSL in a directory of the test.
type ssl struct {
	t   *testing.T
	dir string
}

func (s ssl) file(name string, b []byte) string {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), b, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return name
}

func (s ssl) public(name string, der []byte) string {
	s.t.Helper()
	return s.file(name, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func (s ssl) try(args ...string) ([]byte, error) {
	cmd := exec.CommandContext(s.t.Context(), "openssl", args...)
	cmd.Dir = s.dir
	return cmd.Output()
}

func (s ssl) run(args ...string) []byte {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("openssl %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func TestAgainstOpenSSL(t *testing.T) {
	r := newReal(t, paris, keyopstest.Options{})
	s := ssl{t, t.TempDir()}
	for _, row := range opensslSigns {
		k := create(t, r, keyops.CreateKeyInput{KeySpec: row.spec, KeyUsage: keyops.SignVerify})
		for _, a := range row.algorithms {
			t.Run(string(row.spec)+" "+string(a), func(t *testing.T) { s.verifies(t, place{r, k.ARN}, a) })
		}
	}
	for bits, spec := range map[string]keyops.KeySpec{"224": keyops.HMAC224, "256": keyops.HMAC256, "384": keyops.HMAC384, "512": keyops.HMAC512} {
		t.Run(string(spec), func(t *testing.T) { s.macs(t, r, spec, bits) })
	}
	t.Run("OAEP", func(t *testing.T) { s.oaep(t, r) })
	for spec, curve := range map[keyops.KeySpec]string{keyops.ECCNISTP256: "prime256v1", keyops.ECCNISTP384: "secp384r1", keyops.ECCNISTP521: "secp521r1"} {
		t.Run("ECDH "+curve, func(t *testing.T) { s.agrees(t, r, spec, curve) })
	}
}

func getPublicKey(t *testing.T, p place) []byte {
	t.Helper()
	out, err := p.GetPublicKey(t.Context(), admin(), keyops.GetPublicKeyInput{KeyID: p.key})
	if err != nil {
		t.Fatal(explain(err))
	}
	return out.PublicKey
}

// verifies signs in the token and lets OpenSSL verify.
func (s ssl) verifies(t *testing.T, p place, a keyops.Algorithm) {
	signed, err := p.Sign(t.Context(), admin(), keyops.SignInput{KeyID: p.key, Message: []byte("message"), SigningAlgorithm: a})
	if err != nil {
		t.Fatal(explain(err))
	}
	args := []string{"dgst", "-sha" + string(a[len(a)-3:]), "-verify", s.public("public.pem", getPublicKey(t, p)), "-signature", s.file("signature", signed.Signature)}
	if strings.Contains(string(a), "PSS") {
		args = append(args, "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest")
	}
	if out, err := s.try(append(args, s.file("message", []byte("message")))...); err != nil {
		t.Errorf("OpenSSL refuses the signature: %v %s", err, out)
	}
	if _, err := s.try(append(args, s.file("message", []byte("another")))...); err == nil {
		t.Error("OpenSSL takes it for another message, too: this test cannot fail")
	}
}

func (s ssl) macs(t *testing.T, r *keyopstest.Region, spec keyops.KeySpec, bits string) {
	secret := random(map[string]int{"224": 32, "256": 32, "384": 48, "512": 64}[bits])
	k := external(t, r, keyops.CreateKeyInput{KeySpec: spec, KeyUsage: keyops.GenerateVerifyMac})
	importVector(t, r, k.ARN, secret)
	theirs := s.run("mac", "-binary", "-digest", "SHA"+bits, "-macopt", "hexkey:"+hex.EncodeToString(secret), "-in", s.file("message", x), "HMAC")
	a := keyops.Algorithm("HMAC_SHA_" + bits)
	ours, err := r.GenerateMac(t.Context(), admin(), keyops.GenerateMacInput{KeyID: k.ARN, Message: x, MacAlgorithm: a})
	if err != nil || !bytes.Equal(ours.Mac, theirs) {
		t.Errorf("our MAC is %x, %v; OpenSSL's %x", ours.Mac, explain(err), theirs)
	}
	if _, err := r.VerifyMac(t.Context(), admin(), keyops.VerifyMacInput{KeyID: k.ARN, Message: x, Mac: theirs, MacAlgorithm: a}); err != nil {
		t.Error(explain(err))
	}
}

func (s ssl) oaep(t *testing.T, r *keyopstest.Region) {
	s.run("genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "own.pem")
	k := external(t, r, keyops.CreateKeyInput{KeySpec: keyops.RSA2048, KeyUsage: keyops.EncryptDecrypt})
	importVector(t, r, k.ARN, s.run("pkcs8", "-topk8", "-nocrypt", "-in", "own.pem", "-outform", "DER"))
	s.public("public.pem", getPublicKey(t, place{r, k.ARN}))
	for a, hash := range map[keyops.Algorithm]string{"RSAES_OAEP_SHA_1": "sha1", "RSAES_OAEP_SHA_256": "sha256"} {
		options := []string{"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:" + hash, "-pkeyopt", "rsa_mgf1_md:" + hash}
		blob := s.run(append([]string{"pkeyutl", "-encrypt", "-pubin", "-inkey", "public.pem", "-in", s.file("plain", []byte("theirs"))}, options...)...)
		opened, err := r.Decrypt(t.Context(), admin(), keyops.DecryptInput{KeyID: k.ARN, CiphertextBlob: blob, EncryptionAlgorithm: a})
		if err != nil || string(opened.Plaintext) != "theirs" {
			t.Errorf("%s: opened %q, %v", a, opened.Plaintext, explain(err))
		}
		sealed, err := r.Encrypt(t.Context(), admin(), keyops.EncryptInput{KeyID: k.ARN, Plaintext: []byte("ours"), EncryptionAlgorithm: a})
		if err != nil {
			t.Fatal(explain(err))
		}
		if got := s.run(append([]string{"pkeyutl", "-decrypt", "-inkey", "own.pem", "-in", s.file("sealed", sealed.CiphertextBlob)}, options...)...); string(got) != "ours" {
			t.Errorf("%s: OpenSSL opens %q", a, got)
		}
	}
}

func (s ssl) agrees(t *testing.T, r *keyopstest.Region, spec keyops.KeySpec, curve string) {
	k := create(t, r, keyops.CreateKeyInput{KeySpec: spec, KeyUsage: keyops.KeyAgreement})
	s.run("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:"+curve, "-out", "peer.pem")
	theirs := s.run("pkeyutl", "-derive", "-inkey", "peer.pem", "-peerkey", s.public("public.pem", getPublicKey(t, place{r, k.ARN})))
	der := s.run("pkey", "-in", "peer.pem", "-pubout", "-outform", "DER")
	if _, err := x509.ParsePKIXPublicKey(der); err != nil {
		t.Fatal(err)
	}
	ours, err := r.DeriveSharedSecret(t.Context(), admin(), keyops.DeriveSharedSecretInput{KeyID: k.ARN, PublicKey: der, KeyAgreementAlgorithm: "ECDH"})
	if err != nil || !bytes.Equal(ours.SharedSecret, theirs) {
		t.Errorf("our secret is %x, %v; OpenSSL's %x", ours.SharedSecret, explain(err), theirs)
	}
}

// TestEveryAlgorithmIsCheckedByOpenSSL holds the tables above against what keys can sign.
func TestEveryAlgorithmIsCheckedByOpenSSL(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	checked := map[keyops.Algorithm]bool{}
	for _, row := range opensslSigns {
		for _, a := range row.algorithms {
			checked[a] = true
		}
	}
	for _, f := range families {
		if f.usage != keyops.SignVerify || f.spec == keyops.RSA3072 || f.spec == keyops.RSA4096 {
			continue
		}
		for _, a := range create(t, r, keyops.CreateKeyInput{KeySpec: f.spec, KeyUsage: f.usage}).SigningAlgorithms {
			if !checked[a] {
				t.Errorf("%s signs %s, and OpenSSL is not asked about it", f.spec, a)
			}
		}
	}
}
