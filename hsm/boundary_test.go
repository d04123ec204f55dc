package hsm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/softhsm"
	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// What the token refuses is in attack_test.go. This file asserts what it does not refuse,
// as docs/trust.md lists it, and that what is left of the thief's work is noticed.

// stageEnv lets a test that runs in a process of its own run a second one after it.
const stageEnv = "KEYFERRY_TEST_STAGE"

// stage runs the test again in another process on the same store, with a word to go by.
func stage(t *testing.T, word string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), stageEnv+"="+word)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("stage %q: %v\n%s", word, err, out)
	}
}

func thief(t *testing.T, tok softhsm.Token) *hsm.Thief {
	t.Helper()
	softhsmtest.Used(t)
	th, err := hsm.NewThief(tok.Module, tok.Label)
	if err != nil {
		t.Fatal(err)
	}
	return th
}

func mustPIN(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func pinFile(t *testing.T, pin string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(path, []byte(pin), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var (
	anAES  = hsm.Spec{Role: hsm.RoleSharedMaterial, Algorithm: hsm.AES256, Name: "k"}
	anEC   = hsm.Spec{Role: hsm.RoleSharedMaterial, Algorithm: hsm.ECP256, Usage: hsm.UsageSign, Name: "k"}
	signer = hsm.Spec{Role: hsm.RoleRegionSigning, Algorithm: hsm.ECP384, Usage: hsm.UsageSign, Name: "k"}
)

// Without login there is nothing to see and nothing to replace: no object that a daemon
// relies on is public.
func TestNothingIsPublic(t *testing.T) {
	if !child(t, "one") {
		return
	}
	tok := own(t, "one")
	if os.Getenv(stageEnv) == "look" {
		n, err := thief(t, tok).Objects()
		if err != nil {
			t.Fatal(err)
		}
		if n != 0 {
			t.Errorf("%d token objects are visible without login", n)
		}
		return
	}
	h := openWith(t, config(tok))
	for _, spec := range []hsm.Spec{anAES, anEC, signer} {
		if _, err := h.Generate(t.Context(), spec, hsm.NewID()); err != nil {
			t.Fatal(err)
		}
	}
	stage(t, "look")
	th := thief(t, tok) // and with login all three are there
	if n, err := th.Objects(); err != nil || n != 3 {
		t.Errorf("%d token objects (%v), want the three private keys alone", n, err)
	}
}

// Not refused: without any PIN, public objects under a known ID and label. The daemon's
// keys go on working, before and after it looks at the token again.
func TestPublicImpostors(t *testing.T) {
	if !child(t, "one") {
		return
	}
	tok := own(t, "one")
	if word := os.Getenv(stageEnv); word != "" {
		id, err := hsm.ParseID(word)
		if err != nil {
			t.Fatal(err)
		}
		th := thief(t, tok)
		for _, key := range []bool{false, true} {
			if err := th.CreatePublic(anEC, id, key); err != nil {
				t.Fatalf("a session without login cannot create a public object: %v", err)
			}
		}
		return
	}
	h := openWith(t, config(tok))
	id := hsm.NewID()
	spki, err := h.Generate(t.Context(), anEC, id)
	if err != nil {
		t.Fatal(err)
	}
	stage(t, id.String())
	for _, when := range []string{"before", "after"} {
		digest := make([]byte, 32)
		sig, err := h.Sign(t.Context(), id, hsm.SignScheme{Padding: hsm.ECDSA, Hash: crypto.SHA256}, digest)
		if err != nil {
			t.Fatalf("%s a rescan: %v", when, err)
		}
		pub, err := x509.ParsePKIXPublicKey(spki)
		if err != nil {
			t.Fatal(err)
		}
		if !ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), digest, sig) {
			t.Errorf("%s a rescan: the signature is another key's", when)
		}
		if err := h.Rescan(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(h.Quarantined()) == 0 {
		t.Error("nobody notices the impostors")
	}
}

// Not refused: destroying every object. The index notices.
func TestPINDestroysKeys(t *testing.T) {
	tok := open(t, source)
	id := hsm.NewID()
	if _, err := tok.Generate(t.Context(), anAES, id); err != nil {
		t.Fatal(err)
	}
	if err := tok.Destroy(t.Context(), id); err != nil {
		t.Errorf("the user PIN cannot destroy a key: %v", err)
	}
	if _, err := tok.Lookup(t.Context(), id); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

// Not refused: the thief changes the user PIN, and the daemon cannot log in again.
func TestPINChangesPIN(t *testing.T) {
	if !child(t, "one") {
		return
	}
	tok := own(t, "one")
	switch os.Getenv(stageEnv) {
	case "old":
		if _, err := hsm.Open(t.Context(), config(tok)); !errors.Is(err, hsm.ErrPIN) {
			t.Errorf("the old PIN: got %v, want ErrPIN", err)
		}
		return
	case "new":
		cfg := config(tok)
		cfg.PINFile = pinFile(t, "another-pin")
		openWith(t, cfg)
		return
	}
	th := thief(t, tok)
	if err := th.Login(false, tok.PINFile); err != nil {
		t.Fatal(err)
	}
	if err := th.SetPIN(mustPIN(t, tok.PINFile), "another-pin"); err != nil {
		t.Errorf("the user PIN cannot change itself: %v", err)
	}
	stage(t, "old")
	stage(t, "new")
}

// Not refused: the security officer resets the user PIN without knowing it, and makes a
// trusted key of known bytes. So that PIN is kept by a quorum, never on the daemon's host.
func TestSecurityOfficerHasEverything(t *testing.T) {
	if !child(t, "one") {
		return
	}
	tok := own(t, "one")
	if os.Getenv(stageEnv) == "new" {
		cfg := config(tok)
		cfg.PINFile = pinFile(t, "another-pin")
		h := openWith(t, cfg)
		q := h.Quarantined()
		if len(q) != 1 || !strings.Contains(q[0].Reason, "CKA_LOCAL") && !strings.Contains(q[0].Reason, "CKA_") {
			t.Errorf("quarantine holds %+v, want the officer's trusted key", q)
		}
		return
	}
	th := thief(t, tok)
	if err := th.Login(true, tok.SOPINFile); err != nil {
		t.Fatal(err)
	}
	if err := th.InitPIN("another-pin"); err != nil {
		t.Errorf("the security officer cannot reset the user PIN: %v", err)
	}
	spec := hsm.Spec{Role: hsm.RoleTransportSource, Algorithm: hsm.AES256, Class: hsm.ClassAES, Name: "known"}
	if err := th.CreateTrusted(spec, hsm.NewID(), hsm.SoftHSM2()); err != nil {
		t.Errorf("the security officer cannot make a trusted key of known bytes: %v", err)
	}
	stage(t, "new")
}

// Not refused: with the user PIN, a key of known bytes under a known CKA_ID and label. The
// token cannot tell; the index takes neither of the two.
func TestKnownKeyUnderAKnownID(t *testing.T) {
	if !child(t, "one") {
		return
	}
	tok := own(t, "one")
	h := openWith(t, config(tok))
	id, alone := hsm.NewID(), hsm.NewID()
	spec := hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.AES256, Name: "k"}
	if _, err := h.Generate(t.Context(), spec, id); err != nil {
		t.Fatal(err)
	}
	th := thief(t, tok) // the login is the process's
	for _, i := range []hsm.ID{id, alone} {
		if err := th.CreateKnown(spec, i, hsm.SoftHSM2()); err != nil {
			t.Fatalf("the user PIN cannot create a known key: %v", err)
		}
	}
	if err := h.Rescan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Lookup(t.Context(), id); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("of two objects with one ID, one is used: %v", err)
	}
	// Alone, under an ID that nobody else has, it is at best a key that was not made here.
	if o, err := h.Lookup(t.Context(), alone); err == nil && (o.Local || o.AlwaysSensitive) {
		t.Errorf("a created key passes as one that the token made: %+v", o)
	}
}

// Not refused by SoftHSM: C_DigestKey of a key that is neither readable nor extractable.
// A hash of 32 random bytes gives none of them away.
func TestDigestKey(t *testing.T) {
	tok := open(t, source)
	id, _ := generate(t, tok, hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.AES256, Name: "k"})
	th := thief(t, softhsmtest.Named(source))
	b, err := th.Digest(id)
	if err != nil || len(b) != 32 {
		t.Errorf("hash of %d bytes (%v): SoftHSM refuses it now, docs/trust.md says otherwise", len(b), err)
	}
	if _, err := th.Read(id); err == nil {
		t.Error("the value itself can be read")
	}
}

// Not refused by SoftHSM: a source transport key copied unchanged, since a copy cannot be
// given CKA_COPYABLE=false. What can be done to the copy is in the attack table.
func TestCopyUnchanged(t *testing.T) {
	open(t, source)
	th := thief(t, softhsmtest.Named(source))
	if err := th.CopyUnchanged(transport[hsm.ClassAES].Source); err != nil {
		t.Errorf("SoftHSM refuses the unchanged copy now, docs/trust.md says otherwise: %v", err)
	}
	open(t, destination)
	if err := thief(t, softhsmtest.Named(destination)).CopyUnchanged(transport[hsm.ClassAES].Destination); err == nil {
		t.Error("a destination transport key can be copied")
	}
}

// SoftHSM leaves an empty object behind, without even CKA_TOKEN, when it refuses a template
// late. A blob that does not fit is refused early enough: there is no file more.
func TestRefusedBlobLeavesNoFile(t *testing.T) {
	tok := open(t, destination)
	files := func() (n int) {
		err := filepath.WalkDir(filepath.Dir(softhsmtest.Named(destination).Conf), func(path string, _ os.DirEntry, err error) error {
			if strings.HasSuffix(path, ".object") {
				n++
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := files()
	if before < len(transport) {
		t.Fatalf("%d files for %d transport keys: they are elsewhere", before, len(transport))
	}
	for class, spec := range map[hsm.Class]hsm.Spec{hsm.ClassAES: anAES, hsm.ClassECSign: anEC} {
		for _, n := range []int{40, 80} {
			if err := tok.Unwrap(t.Context(), transport[class].Destination, spec, hsm.NewID(), make([]byte, n)); !errors.Is(err, hsm.ErrDataInvalid) {
				t.Errorf("%d zero bytes as class %s: got %v, want ErrDataInvalid", n, class, err)
			}
		}
	}
	if after := files(); after != before {
		t.Errorf("%d files after refused blobs, %d before", after, before)
	}
}

// Not refused: SoftHSM's objects are files. Two flags flipped, and the PIN reads a key that
// could never leave. This is why SoftHSM's boundary is never better than api-only.
func TestFlagsFlippedInFiles(t *testing.T) {
	if !child(t, "one") {
		return
	}
	tok := own(t, "one")
	spec := hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.AES256, Name: "k"}
	if word := os.Getenv(stageEnv); word != "" {
		id, err := hsm.ParseID(word)
		if err != nil {
			t.Fatal(err)
		}
		th := thief(t, tok)
		if err := th.Login(false, tok.PINFile); err != nil {
			t.Fatal(err)
		}
		b, err := th.Read(id)
		if err != nil || len(b) != 32 {
			t.Errorf("read %d bytes (%v): SoftHSM keeps its files safe now, docs/trust.md says otherwise", len(b), err)
		}
		// The daemon sees that the object is not what its template says.
		h := openWith(t, config(tok))
		if _, err := h.Lookup(t.Context(), id); !errors.Is(err, hsm.ErrNotFound) || len(h.Quarantined()) != 1 {
			t.Errorf("the changed object is in use: %v, quarantine %+v", err, h.Quarantined())
		}
		return
	}
	h := openWith(t, config(tok))
	id := hsm.NewID()
	if _, err := h.Generate(context.Background(), spec, id); err != nil {
		t.Fatal(err)
	}
	if _, err := thief(t, tok).Read(id); err == nil {
		t.Fatal("the key can be read before anything was changed")
	}
	flipped := 0
	err := filepath.Walk(filepath.Dir(tok.Conf), func(path string, info os.FileInfo, err error) error {
		if err != nil || !strings.HasSuffix(path, ".object") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for typ, to := range map[uint64]byte{0x103: 0, 0x162: 1} { // CKA_SENSITIVE, CKA_EXTRACTABLE
			at := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, typ), 1) // kind 1 is a boolean
			if i := bytes.Index(b, at); i >= 0 {
				b[i+len(at)] = to
				flipped++
			}
		}
		return os.WriteFile(path, b, info.Mode())
	})
	if err != nil || flipped != 2 {
		t.Fatalf("flipped %d flags (%v), want 2", flipped, err)
	}
	stage(t, id.String())
}

// Every test that docs/trust.md names exists.
func TestTrustPage(t *testing.T) {
	page, err := os.ReadFile("../docs/trust.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	err = filepath.WalkDir("..", func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(b, -1) {
			tests[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)`").FindAllSubmatch(page, -1)
	if len(named) < 30 {
		t.Errorf("the page names %d tests, want one at least for each row", len(named))
	}
	for _, m := range named {
		if !tests[string(m[1])] {
			t.Errorf("docs/trust.md names %s, which does not exist", m[1])
		}
	}
}
