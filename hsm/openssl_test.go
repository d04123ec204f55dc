package hsm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/spki"
)

// openssl runs the other implementation, with files by name in a directory of the test.
func openssl(t *testing.T) (run func(args ...string) []byte, file func(name string, b []byte) string) {
	t.Helper()
	dir := t.TempDir()
	run = func(args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "openssl", args...)
		cmd.Dir = dir
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, &stderr)
		}
		return out
	}
	file = func(name string, b []byte) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	return run, file
}

func publicPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// What the token signs, OpenSSL verifies; what OpenSSL encrypts, the token opens.
func TestAgainstOpenSSL(t *testing.T) {
	tok := open(t, source)
	run, file := openssl(t)
	message := []byte("message of the test")
	d256, d384, d512 := sha256.Sum256(message), sha512.Sum384(message), sha512.Sum512(message)
	file("message", message)
	for _, c := range []struct {
		algorithm hsm.Algorithm
		scheme    hsm.SignScheme
		digest    []byte
		args      []string
	}{
		{hsm.ECP256, hsm.SignScheme{Padding: hsm.ECDSA, Hash: crypto.SHA512}, d512[:], []string{"-sha512"}},
		{hsm.ECP521, hsm.SignScheme{Padding: hsm.ECDSA, Hash: crypto.SHA512}, d512[:], []string{"-sha512"}},
		{hsm.ECSecp256k1, hsm.SignScheme{Padding: hsm.ECDSA, Hash: crypto.SHA384}, d384[:], []string{"-sha384"}},
		{hsm.RSA2048, hsm.SignScheme{Padding: hsm.PKCS1v15, Hash: crypto.SHA256}, d256[:], []string{"-sha256"}},
		{hsm.RSA2048, hsm.SignScheme{Padding: hsm.PSS, Hash: crypto.SHA384}, d384[:],
			[]string{"-sha384", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"}},
	} {
		id, der := generate(t, tok, hsm.Spec{Role: hsm.RoleMaterial, Algorithm: c.algorithm, Usage: hsm.UsageSign, Name: "openssl"})
		signature, err := tok.Sign(t.Context(), id, c.scheme, c.digest)
		if err != nil {
			t.Fatal(err)
		}
		args := append([]string{"dgst", "-verify", file("key.pem", publicPEM(der)), "-signature", file("signature", signature)}, c.args...)
		run(append(args, "message")...)
	}

	id, der := generate(t, tok, hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.RSA2048, Usage: hsm.UsageDecrypt, Name: "openssl"})
	file("key.pem", publicPEM(der))
	for hash, name := range map[crypto.Hash]string{crypto.SHA1: "sha1", crypto.SHA256: "sha256"} {
		sealed := run("pkeyutl", "-encrypt", "-pubin", "-inkey", "key.pem", "-in", "message", "-pkeyopt", "rsa_padding_mode:oaep",
			"-pkeyopt", "rsa_oaep_md:"+name, "-pkeyopt", "rsa_mgf1_md:"+name)
		if got, err := tok.DecryptOAEP(t.Context(), id, hash, sealed); err != nil || !bytes.Equal(got, message) {
			t.Errorf("%s: opened %q, %v", name, got, err)
		}
	}

	agreeing, der := generate(t, tok, hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.ECP384, Usage: hsm.UsageAgree, Name: "openssl"})
	file("token.pem", publicPEM(der))
	run("ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", "own.pem")
	want := run("pkeyutl", "-derive", "-inkey", "own.pem", "-peerkey", "token.pem")
	point := run("pkey", "-in", "own.pem", "-pubout", "-outform", "DER")
	if got, err := tok.Agree(t.Context(), agreeing, point[len(point)-97:]); err != nil || !bytes.Equal(got, want) {
		t.Errorf("agreed on %x, %v; OpenSSL on %x", got, err, want)
	}
}

// A customer wraps with OpenSSL as the documentation says.
func TestImportFromOpenSSL(t *testing.T) {
	tok := open(t, source)
	run, file := openssl(t)
	spec := hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.RSA2048, Usage: hsm.UsageSign, Name: "openssl"}
	wrapping := hsm.NewID()
	der, err := tok.GenerateImportKey(t.Context(), hsm.Spec{Role: hsm.RoleImportWrapping, Algorithm: hsm.RSA3072, Name: "openssl",
		Import: hsm.ImportFor{Scheme: hsm.RSAAESKeyWrapSHA1, Role: spec.Role, Algorithm: spec.Algorithm, Usage: spec.Usage}}, wrapping)
	if err != nil {
		t.Fatal(err)
	}
	destroyAfter(t, tok, wrapping)
	file("wrapping.pem", publicPEM(der))
	run("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "own.pem")
	run("pkcs8", "-topk8", "-nocrypt", "-in", "own.pem", "-outform", "DER", "-out", "own.der") // genpkey's own DER is not PKCS #8
	file("aes", bytes.Repeat([]byte{0x42}, 32))
	first := run("pkeyutl", "-encrypt", "-pubin", "-inkey", "wrapping.pem", "-in", "aes", "-pkeyopt", "rsa_padding_mode:oaep")
	second := run("enc", "-id-aes256-wrap-pad", "-iv", "A65959A6", "-K", "4242424242424242424242424242424242424242424242424242424242424242", "-in", "own.der")
	id := hsm.NewID()
	public, err := tok.ImportUnwrap(t.Context(), wrapping, spec, id, append(first, second...))
	if err != nil {
		t.Fatal(err)
	}
	destroyAfter(t, tok, id)
	if want := run("pkey", "-inform", "DER", "-in", "own.der", "-pubout", "-outform", "DER"); !bytes.Equal(public, want) {
		t.Errorf("SPKI %x, want %x", public, want)
	}
	if _, err := spki.Parse(public); err != nil {
		t.Error(err)
	}
	digest := sha256.Sum256([]byte("message"))
	signature, err := tok.Sign(t.Context(), id, hsm.SignScheme{Padding: hsm.PKCS1v15, Hash: crypto.SHA256}, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	file("public.pem", publicPEM(public))
	run("dgst", "-sha256", "-verify", "public.pem", "-signature", file("signature", signature), file("text", []byte("message")))
}

func destroyAfter(t *testing.T, tok *hsm.Token, id hsm.ID) {
	t.Cleanup(func() {
		if err := tok.Destroy(context.Background(), id); err != nil {
			t.Errorf("destroying %s: %v", id, err)
		}
	})
}
