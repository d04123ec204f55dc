package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// openssl runs the command in a directory.
func openssl(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func write(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestEveryKindOfKey makes a multi-Region key of each family in Paris and uses it in Virginia:
// what one Region makes the other accepts, and OpenSSL does.
func TestEveryKindOfKey(t *testing.T) {
	softhsmtest.Used(t)
	message := []byte("the same in every Region")
	for _, tc := range []struct {
		name string
		spec []string
		use  func(t *testing.T, dir, key string)
	}{
		{"RSA signatures", []string{"--spec", "RSA_2048", "--usage", "SIGN_VERIFY"}, func(t *testing.T, dir, key string) {
			sign := func(region, algorithm string) []byte {
				return shared.must(t, message, "sign", key, "--region", region, "--algorithm", algorithm)
			}
			here, there := sign(paris, "RSASSA_PKCS1_V1_5_SHA_256"), sign(virginia, "RSASSA_PKCS1_V1_5_SHA_256")
			if !bytes.Equal(here, there) {
				t.Error("two Regions make two PKCS #1 v1.5 signatures")
			}
			pss := write(t, dir, "pss", sign(virginia, "RSASSA_PSS_SHA_512"))
			shared.must(t, message, "verify", key, "--region", paris, "--algorithm", "RSASSA_PSS_SHA_512", "--signature", pss)
			write(t, dir, "public.pem", shared.must(t, nil, "key", "public", key, "--region", virginia))
			write(t, dir, "message", message)
			openssl(t, dir, "dgst", "-sha512", "-sigopt", "rsa_padding_mode:pss", "-verify", "public.pem", "-signature", "pss", "message")
		}},
		{"RSA ciphertexts", []string{"--spec", "RSA_2048", "--usage", "ENCRYPT_DECRYPT"}, func(t *testing.T, _, key string) {
			for _, algorithm := range []string{"RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"} {
				sealed := shared.must(t, message, "encrypt", key, "--region", paris, "--algorithm", algorithm)
				if got := shared.must(t, sealed, "decrypt", key, "--region", virginia, "--algorithm", algorithm); !bytes.Equal(got, message) {
					t.Errorf("%s: opened %q", algorithm, got)
				}
			}
		}},
		{"key agreement", []string{"--spec", "ECC_NIST_P521", "--usage", "KEY_AGREEMENT"}, func(t *testing.T, dir, key string) {
			openssl(t, dir, "ecparam", "-name", "secp521r1", "-genkey", "-noout", "-out", "mine.pem")
			openssl(t, dir, "pkey", "-in", "mine.pem", "-pubout", "-out", "mine.pub")
			write(t, dir, "public.pem", shared.must(t, nil, "key", "public", key, "--region", paris))
			openssl(t, dir, "pkeyutl", "-derive", "-inkey", "mine.pem", "-peerkey", "public.pem", "-out", "secret")
			want, err := os.ReadFile(filepath.Join(dir, "secret"))
			if err != nil {
				t.Fatal(err)
			}
			for _, region := range []string{paris, virginia} {
				if got := shared.must(t, nil, "derive-shared-secret", key, "--region", region, "--peer", filepath.Join(dir, "mine.pub")); !bytes.Equal(got, want) {
					t.Errorf("%s and OpenSSL agree on two secrets", region)
				}
			}
		}},
		{"signatures on secp256k1", []string{"--spec", "ECC_SECG_P256K1"}, func(t *testing.T, dir, key string) {
			signature := write(t, dir, "signature", shared.must(t, message, "sign", key, "--region", virginia))
			shared.must(t, message, "verify", key, "--region", paris, "--signature", signature)
			write(t, dir, "public.pem", shared.must(t, nil, "key", "public", key, "--region", paris))
			write(t, dir, "message", message)
			openssl(t, dir, "dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "message")
		}},
		{"MACs", []string{"--spec", "HMAC_512"}, func(t *testing.T, dir, key string) {
			mac := write(t, dir, "mac", shared.must(t, message, "mac", key, "--region", paris))
			shared.must(t, message, "verify-mac", key, "--region", virginia, "--mac", mac)
		}},
		{"data keys", nil, func(t *testing.T, _, key string) {
			sealed := shared.must(t, message, "encrypt", key, "--region", paris, "-c", "env=prod")
			other := shared.createKey(t, virginia)
			moved := shared.must(t, sealed, "re-encrypt", other, "--region", virginia, "-c", "env=prod")
			if got := shared.must(t, moved, "decrypt", "--region", virginia, "-c", "env=prod"); !bytes.Equal(got, message) {
				t.Errorf("opened %q", got)
			}
			shared.must(t, nil, "generate-data-key-pair", key, "--region", virginia, "--spec", "ECC_NIST_P256", "--without-plaintext")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			softhsmtest.Used(t)
			key := shared.createKey(t, paris, tc.spec...)
			shared.replicate(t, key, paris, virginia)
			tc.use(t, t.TempDir(), key)
		})
	}
}

// TestLifeOfAKey rotates a key, sends it to its grave and back.
func TestLifeOfAKey(t *testing.T) {
	softhsmtest.Used(t)
	key := strings.TrimSpace(string(shared.must(t, nil, "key", "create", "--region", tokyo)))
	old := shared.must(t, []byte("old"), "encrypt", key, "--region", tokyo)
	shared.must(t, nil, "key", "rotation", "enable", key, "--period", "90d", "--region", tokyo)
	shared.must(t, nil, "key", "rotate", key, "--region", tokyo)
	shared.must(t, nil, "key", "delete", key, "--in", "7d", "--region", tokyo)
	if shown := string(shared.must(t, nil, "key", "show", key, "--region", tokyo)); !strings.Contains(shown, "PendingDeletion") || !strings.Contains(shown, "deleted on") {
		t.Errorf("pending deletion it is\n%s", shown)
	}
	if _, err := shared.keyferry(old, "decrypt", "--region", tokyo); err == nil || !strings.Contains(err.Error(), "is pending deletion") {
		t.Errorf("decrypting while it is pending deletion: %v", err)
	}
	shared.must(t, nil, "key", "undelete", key, "--region", tokyo)
	shared.must(t, nil, "key", "enable", key, "--region", tokyo)
	if got := shared.must(t, old, "decrypt", "--region", tokyo); string(got) != "old" {
		t.Errorf("opened %q", got)
	}
	if list := shared.must(t, nil, "key", "rotations", key, "--all", "--region", tokyo); bytes.Count(list, []byte("\n")) != 2 || !bytes.Contains(list, []byte("ON_DEMAND")) {
		t.Errorf("rotations\n%s", list)
	}
	if setting := shared.must(t, nil, "key", "rotation", "show", key, "--region", tokyo); !bytes.Contains(setting, []byte("90 days")) {
		t.Errorf("rotation\n%s", setting)
	}
}

// TestRotationReachesEveryRegion: new material is used once every Region holds it, and what
// one Region encrypts under it the others decrypt.
func TestRotationReachesEveryRegion(t *testing.T) {
	softhsmtest.Used(t)
	key := shared.createKey(t, paris)
	shared.replicate(t, key, paris, virginia)
	before := shared.material(t, key, paris)
	shared.must(t, nil, "key", "rotate", key, "--region", paris)
	eventually(t, patience, func() (string, bool) {
		here, there := shared.material(t, key, paris), shared.material(t, key, virginia)
		return fmt.Sprintf("material %s in paris, %s in virginia, before %s", here, there, before), here == there && here != before
	})
	sealed := shared.must(t, []byte("new"), "encrypt", key, "--region", virginia)
	if got := shared.must(t, sealed, "decrypt", "--region", paris); string(got) != "new" {
		t.Errorf("opened %q", got)
	}
	if _, err := shared.keyferry(nil, "key", "rotate", key, "--region", virginia); err == nil || !strings.Contains(err.Error(), "UnsupportedOperationException") {
		t.Errorf("rotating a replica key: %v", err)
	}
}

// TestHandOver makes a replica key the primary key, and back, and encrypts all the while.
func TestHandOver(t *testing.T) {
	softhsmtest.Used(t)
	key := shared.createKey(t, paris)
	shared.replicate(t, key, paris, virginia)
	failed := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				failed <- nil
				return
			default:
			}
			for _, region := range []string{paris, virginia} {
				if _, err := shared.keyferry([]byte("x"), "encrypt", key, "--region", region); err != nil {
					failed <- err
					return
				}
			}
		}
	}()
	for _, way := range [][2]string{{paris, virginia}, {virginia, paris}} {
		shared.must(t, nil, "key", "promote", key, "--region", way[0], "--to", way[1], "--wait")
		eventually(t, patience, func() (string, bool) {
			shown := string(shared.must(t, nil, "key", "show", key, "--region", way[1]))
			return shown, primaryHere.MatchString(shown) && enabledHere.MatchString(shown)
		})
	}
	close(stop)
	if err := <-failed; err != nil {
		t.Errorf("encrypting meanwhile: %v", err)
	}
}

var (
	primaryHere = regexp.MustCompile(`(?m)^multi-Region +PRIMARY$`)
	enabledHere = regexp.MustCompile(`(?m)^state +Enabled$`)
)

// TestImport brings a key's own material, wrapped by OpenSSL, takes it away and brings it
// back; and brings the same bytes to a replica key, which never gets them otherwise.
func TestImport(t *testing.T) {
	softhsmtest.Used(t)
	key := shared.createKey(t, paris, "--origin", "EXTERNAL")
	dir := t.TempDir()
	openssl(t, dir, "rand", "-out", "material", "32")
	bring := func(round, region string) {
		t.Helper()
		public, token := filepath.Join(dir, "public"+round), filepath.Join(dir, "token"+round)
		shared.must(t, nil, "key", "import-parameters", key, "--region", region, "--algorithm", "RSAES_OAEP_SHA_1", "--spec", "RSA_2048",
			"--public-key", public, "--token", token)
		openssl(t, dir, "pkeyutl", "-encrypt", "-pubin", "-inkey", public, "-pkeyopt", "rsa_padding_mode:oaep", "-in", "material", "-out", "wrapped")
		wrapped, err := os.ReadFile(filepath.Join(dir, "wrapped"))
		if err != nil {
			t.Fatal(err)
		}
		shared.must(t, wrapped, "key", "import", key, "--region", region, "--token", token, "--expires-in", "30d")
	}
	bring("1", paris)
	sealed := shared.must(t, []byte("x"), "encrypt", key, "--region", paris)
	shared.must(t, nil, "key", "delete-material", key, "--region", paris)
	if _, err := shared.keyferry(sealed, "decrypt", "--region", paris); err == nil || !strings.Contains(err.Error(), "is pending import") {
		t.Errorf("decrypting without material: %v", err)
	}
	bring("2", paris)
	if got := shared.must(t, sealed, "decrypt", "--region", paris); string(got) != "x" {
		t.Errorf("opened %q", got)
	}

	shared.must(t, nil, "key", "replicate", key, "--region", paris, "--to", virginia)
	eventually(t, patience, func() (string, bool) {
		shown, err := shared.keyferry(nil, "key", "show", key, "--region", virginia)
		return fmt.Sprintf("%s %v", shown, err), bytes.Contains(shown, []byte("PendingImport"))
	})
	bring("3", virginia)
	eventually(t, patience, func() (string, bool) {
		got, err := shared.keyferry(sealed, "decrypt", "--region", virginia)
		return fmt.Sprintf("opened %q, %v", got, err), string(got) == "x"
	})
}
