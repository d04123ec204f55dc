package integration

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

func TestTokensAreDistinct(t *testing.T) {
	softhsmtest.Used(t)
	serials := map[string]string{}
	for _, region := range regions {
		s := shared.serving(t, region)
		if s.Token == "" {
			t.Errorf("%s: %+v", region, s)
		}
		if other, taken := serials[s.Token]; taken {
			t.Errorf("%s and %s have the same token %s", region, other, s.Token)
		}
		serials[s.Token] = region
	}
	if len(serials) != 3 {
		t.Errorf("%d tokens for three Regions: %v", len(serials), serials)
	}
}

func TestEncryptHereDecryptThere(t *testing.T) {
	softhsmtest.Used(t)
	message := []byte("attack at dawn")
	key := shared.createKey(t, paris)
	mac := shared.createKey(t, virginia, "--spec", "HMAC_256")
	sign := shared.createKey(t, tokyo, "--spec", "ECC_NIST_P256", "--usage", "SIGN_VERIFY")
	for _, r := range []struct{ key, from string }{{key, paris}, {mac, virginia}, {sign, tokyo}} {
		for _, to := range []string{paris, virginia, tokyo} {
			if to != r.from {
				shared.replicate(t, r.key, r.from, to)
			}
		}
	}
	ciphertext := shared.must(t, message, "encrypt", key, "-c", "env=prod", "--region", paris)
	code := shared.must(t, message, "mac", mac, "--region", virginia)
	signature := shared.must(t, message, "sign", sign, "--region", tokyo)
	macFile, sigFile := file(t, code), file(t, signature)
	large := bytes.Repeat(message, 20_000)
	envelope := shared.must(t, large, "envelope", "seal", key, "-c", "env=prod", "--region", paris)
	for _, region := range []string{paris, virginia, tokyo} {
		if got := shared.must(t, ciphertext, "decrypt", "-c", "env=prod", "--region", region); !bytes.Equal(got, message) {
			t.Errorf("%s decrypts %q, want %q", region, got, message)
		}
		if _, err := shared.keyferry(ciphertext, "decrypt", "-c", "env=test", "--region", region); err == nil {
			t.Errorf("%s decrypts under another encryption context", region)
		}
		if got := shared.must(t, envelope, "envelope", "open", key, "-c", "env=prod", "--region", region); !bytes.Equal(got, large) {
			t.Errorf("%s opens the envelope to %d bytes, want %d", region, len(got), len(large))
		}
		shared.must(t, message, "verify-mac", mac, "--mac", macFile, "--region", region)
		shared.must(t, message, "verify", sign, "--signature", sigFile, "--region", region)
		if _, err := shared.keyferry([]byte("attack at noon"), "verify", sign, "--signature", sigFile, "--region", region); err == nil {
			t.Errorf("%s verifies another message", region)
		}
	}
	public := file(t, shared.must(t, nil, "key", "public", sign, "--region", paris))
	if out, err := exec.Command("openssl", "dgst", "-sha256", "-verify", public, "-signature", sigFile, file(t, message)).CombinedOutput(); err != nil {
		t.Errorf("openssl: %v: %s", err, out)
	}
}

func file(t *testing.T, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), fmt.Sprintf("%x", sha256.Sum256(data)))
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestPeerStoppedBeforeReplicateKey(t *testing.T) {
	softhsmtest.Used(t)
	key := shared.createKey(t, paris)
	shared.mustDev(t, "stop", tokyo)
	t.Cleanup(func() { shared.mustDev(t, "up") })

	shared.must(t, nil, "key", "replicate", key, "--region", paris, "--to", tokyo)
	seen := map[string]bool{}
	var first int
	eventually(t, patience, func() (string, bool) {
		r := shared.replica(t, key, paris, tokyo)
		seen[r.Status] = true
		first = r.Attempts
		return fmt.Sprintf("%+v", r), r.Status == "REPLICATION_STATUS_FAILED" && r.FailureCause == "FAILURE_CAUSE_PEER_UNREACHABLE"
	})
	if !seen["REPLICATION_STATUS_PENDING"] && !seen["REPLICATION_STATUS_FAILED"] {
		t.Errorf("states seen: %v", seen)
	}
	eventually(t, patience, func() (string, bool) {
		r := shared.replica(t, key, paris, tokyo)
		return fmt.Sprintf("attempts %d, were %d", r.Attempts, first), r.Attempts > first
	})

	shared.mustDev(t, "stop", paris, "--kill")
	shared.mustDev(t, "start", paris)
	if r := shared.replica(t, key, paris, tokyo); r.Status == "REPLICATION_STATUS_SYNCHRONIZED" {
		t.Errorf("synchronized with a stopped peer: %+v", r)
	}
	shared.mustDev(t, "start", tokyo)
	shared.awaitSynchronized(t, key, paris, tokyo) // no second call
	ciphertext := shared.must(t, []byte("x"), "encrypt", key, "--region", paris)
	if got := shared.must(t, ciphertext, "decrypt", "--region", tokyo); string(got) != "x" {
		t.Errorf("tokyo decrypts %q", got)
	}
}

func TestKilledDuringReplicateKey(t *testing.T) {
	softhsmtest.Used(t)
	specs := [][]string{nil, {"--spec", "HMAC_256"}, {"--spec", "ECC_NIST_P256", "--usage", "SIGN_VERIFY"}}
	delays := []time.Duration{0, 20 * time.Millisecond, 60 * time.Millisecond}
	for i, delay := range delays {
		for _, victim := range []string{paris, virginia} {
			t.Run(fmt.Sprintf("%s after %v", victim, delay), func(t *testing.T) {
				softhsmtest.Used(t)
				key := shared.createKey(t, paris, specs[i]...)
				shared.must(t, nil, "key", "replicate", key, "--region", paris, "--to", virginia)
				time.Sleep(delay)
				shared.mustDev(t, "stop", victim, "--kill")
				shared.mustDev(t, "start", victim)
				shared.awaitSynchronized(t, key, paris, virginia)
				same := func(region string) string {
					for line := range strings.Lines(string(shared.must(t, nil, "key", "show", key, "--region", region))) {
						if strings.HasPrefix(line, "state") {
							return strings.TrimSpace(line)
						}
					}
					return ""
				}
				eventually(t, patience, func() (string, bool) {
					p, o := same(paris), same(virginia)
					return p + " in paris, " + o + " in virginia", p == o && strings.HasSuffix(p, "Enabled")
				})
			})
		}
	}
}

func TestRestart(t *testing.T) {
	softhsmtest.Used(t)
	key := shared.createKey(t, paris)
	shared.replicate(t, key, paris, virginia)
	before := shared.must(t, []byte("before"), "encrypt", key, "--region", paris)
	for _, how := range [][]string{{"stop", paris}, {"stop", paris, "--kill"}} {
		shared.mustDev(t, how...)
		meanwhile := shared.must(t, []byte("meanwhile"), "encrypt", key, "--region", virginia)
		shared.mustDev(t, "start", paris)
		for ciphertext, want := range map[string]string{string(before): "before", string(meanwhile): "meanwhile"} {
			if got := shared.must(t, []byte(ciphertext), "decrypt", "--region", paris); string(got) != want {
				t.Errorf("after %v: paris decrypts %q, want %q", how, got, want)
			}
		}
	}
}

func TestHangUpIsNoStop(t *testing.T) {
	softhsmtest.Used(t)
	before := shared.serving(t, tokyo)
	if err := syscall.Kill(before.PID, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	shared.createKey(t, tokyo)
	if after := shared.serving(t, tokyo); after.PID != before.PID {
		t.Errorf("before %+v, after %+v", before, after)
	}
}
