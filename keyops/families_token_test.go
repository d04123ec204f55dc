package keyops_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/keyferry/keyferry/keyops"
)

// TestFamiliesOnTokens tries the families on two SoftHSM tokens, and OpenSSL on
// what they make.
func TestFamiliesOnTokens(t *testing.T) {
	w := newRealTwo(t)
	for _, f := range families {
		if f.spec == keyops.RSA3072 || f.spec == keyops.RSA4096 {
			continue // the same mechanisms, and seconds to make
		}
		t.Run(f.String(), func(t *testing.T) { w.family(t, f) })
	}
	t.Run("openssl", func(t *testing.T) {
		w.opensslVerifies(t, keyops.ECCSECGP256K1, "ECDSA_SHA_256")
		w.opensslVerifies(t, keyops.ECCNISTP521, "ECDSA_SHA_512")
		w.opensslVerifies(t, keyops.RSA2048, "RSASSA_PKCS1_V1_5_SHA_384")
		w.opensslVerifies(t, keyops.RSA2048, "RSASSA_PSS_SHA_512", "rsa_padding_mode:pss", "rsa_pss_saltlen:64")
	})
}

// opensslVerifies signs in the token and lets OpenSSL verify.
func (w two) opensslVerifies(t *testing.T, spec keyops.KeySpec, a keyops.Algorithm, options ...string) {
	t.Helper()
	k := create(t, w.paris, keyops.CreateKeyInput{KeySpec: spec, KeyUsage: keyops.SignVerify})
	signed, err := w.paris.Sign(t.Context(), admin(), keyops.SignInput{KeyID: k.ARN, Message: []byte("message"), SigningAlgorithm: a})
	if err != nil {
		t.Fatal(explain(err))
	}
	public, err := w.paris.GetPublicKey(t.Context(), admin(), keyops.GetPublicKeyInput{KeyID: k.ARN})
	if err != nil {
		t.Fatal(explain(err))
	}
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(message string) error {
		args := []string{"dgst", "-sha" + string(a[len(a)-3:]), "-verify", file("public.der", public.PublicKey), "-keyform", "DER", "-signature", file("signature", signed.Signature)}
		for _, o := range options {
			args = append(args, "-sigopt", o)
		}
		out, err := exec.Command("openssl", append(args, file("message", []byte(message)))...).CombinedOutput()
		if err != nil {
			return errors.New(string(out))
		}
		return nil
	}
	if err := run("message"); err != nil {
		t.Errorf("%s %s: %v", spec, a, err)
	}
	if run("another") == nil {
		t.Errorf("%s %s: OpenSSL accepts another message", spec, a)
	}
}
