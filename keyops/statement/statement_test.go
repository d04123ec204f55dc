package statement_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

func mustKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustSign(t testing.TB, k crypto.Signer, p statement.Purpose, payload string) statement.Signed {
	t.Helper()
	s, err := statement.Sign(context.Background(), statement.HostKey(k), p, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The digest is a format that peers of other versions compute: it is written out here from
// its definition, byte by byte.
func TestDigest(t *testing.T) {
	h := sha512.Sum384([]byte("keyferry/state/v1\x00\x00\x00\x00\x00\x00\x00\x00\x05hello"))
	if got := statement.Digest(statement.State, []byte("hello")); !bytes.Equal(got, h[:]) {
		t.Errorf("digest is %x, want %x", got, h)
	}
}

func TestSignAndVerify(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]crypto.Signer{"P-256": mustKey(t, elliptic.P256()), "P-384": mustKey(t, elliptic.P384()), "Ed25519": ed} {
		t.Run(name, func(t *testing.T) {
			s := mustSign(t, k, statement.Approval, "payload")
			back, err := statement.Parse(s.Marshal())
			if err != nil {
				t.Fatal(err)
			}
			if err := back.Verify(k.Public()); err != nil {
				t.Errorf("verifying: %v", err)
			}
			if err := back.Verify(mustKey(t, elliptic.P384()).Public()); !errors.Is(err, statement.ErrSignature) {
				t.Errorf("verifying under another key: got %v, want ErrSignature", err)
			}
			other := back
			other.Purpose = statement.Certificate
			if err := other.Verify(k.Public()); !errors.Is(err, statement.ErrSignature) {
				t.Errorf("verifying as another purpose: got %v, want ErrSignature", err)
			}
			for i := range s.Payload {
				other := back
				other.Payload = bytes.Clone(back.Payload)
				other.Payload[i] ^= 1
				if err := other.Verify(k.Public()); !errors.Is(err, statement.ErrSignature) {
					t.Errorf("verifying with byte %d changed: got %v, want ErrSignature", i, err)
				}
			}
		})
	}
}

func TestKeysThatAreNotAccepted(t *testing.T) {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := mustSign(t, mustKey(t, elliptic.P384()), statement.State, "x")
	for name, pub := range map[string]crypto.PublicKey{"RSA": r.Public(), "P-521": mustKey(t, elliptic.P521()).Public(), "none": nil} {
		if err := s.Verify(pub); !errors.Is(err, statement.ErrKey) {
			t.Errorf("%s: got %v, want ErrKey", name, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := mustSign(t, mustKey(t, elliptic.P384()), statement.State, "payload").Marshal()
	encode := func(purpose string, payload, signature []byte) []byte {
		var w wire.Writer
		w.String(purpose)
		w.Bytes(payload)
		w.Bytes(signature)
		return w.Out()
	}
	for name, b := range map[string][]byte{
		"nothing":            {},
		"cut short":          good[:len(good)-1],
		"one byte more":      append(bytes.Clone(good), 0),
		"a long purpose":     encode(strings.Repeat("a", statement.MaxPurpose+1), nil, nil),
		"a long payload":     encode("state", make([]byte, statement.MaxPayload+1), nil),
		"a long signature":   encode("state", nil, make([]byte, statement.MaxSignature+1)),
		"a huge length":      {0xff, 0xff, 0xff, 0xff},
		"a purpose's prefix": encode("stat", nil, nil),
	} {
		if s, err := statement.Parse(b); err == nil {
			t.Errorf("%s: parsed as %+v", name, s)
		}
	}
}

func TestUnknownPurposeIsNamed(t *testing.T) {
	var w wire.Writer
	w.String("from-the-future")
	w.Bytes([]byte("payload"))
	w.Bytes([]byte("signature"))
	_, err := statement.Parse(w.Out())
	var unknown *statement.UnknownPurposeError
	if !errors.As(err, &unknown) || unknown.Name != "from-the-future" {
		t.Errorf("got %v, want UnknownPurposeError of from-the-future", err)
	}
	k := statement.HostKey(mustKey(t, elliptic.P384()))
	if _, err := statement.Sign(t.Context(), k, "from-the-future", nil); !errors.As(err, &unknown) {
		t.Errorf("signing: got %v, want UnknownPurposeError", err)
	}
	if _, err := statement.Sign(t.Context(), k, statement.State, make([]byte, statement.MaxPayload+1)); err == nil {
		t.Error("signed a payload over the limit")
	}
}

func TestFingerprint(t *testing.T) {
	// SHA-256 of the empty string, from FIPS 180-4's examples.
	const want = "e3b0-c442-98fc-1c14-9afb-f4c8-996f-b924-27ae-41e4-649b-934c-a495-991b-7852-b855"
	if got := statement.Fingerprint(nil); got != want {
		t.Errorf("fingerprint is %s, want %s", got, want)
	}
	for typed, same := range map[string]bool{
		want: true,
		"E3B0C442 98FC1C14 9AFBF4C8 996FB924 27AE41E4 649B934C A495991B 7852B855": true,
		want[:len(want)-1]:       false,
		want[:len(want)-1] + "4": false,
		want + "-0000":           false,
		"":                       false,
	} {
		if got := statement.SameFingerprint(want, typed); got != same {
			t.Errorf("SameFingerprint(%q) is %v, want %v", typed, got, same)
		}
	}
}

func TestFile(t *testing.T) {
	k := mustKey(t, elliptic.P384())
	f, err := statement.NewFile(mustSign(t, k, statement.Descriptor, "payload"), k.Public())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "descriptor.json")
	if err := statement.WriteJSON(path, f); err != nil {
		t.Fatal(err)
	}
	if err := statement.WriteJSON(path, f); !errors.Is(err, os.ErrExist) {
		t.Errorf("writing over a file: got %v, want ErrExist", err)
	}
	var back statement.File
	if err := statement.ReadJSON(path, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(f, back); d != "" {
		t.Errorf("read back (-want +got):\n%s", d)
	}
	s, err := back.Signed(statement.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(k.Public()); err != nil {
		t.Error(err)
	}
	if _, err := back.Signed(statement.Transcript); err == nil {
		t.Error("a descriptor was read as a transcript")
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("directory holds %v (%v), want the one file", entries, err)
	}
}

// A file has one form: whoever checked it by eye saw every field once.
func TestFileHasOneForm(t *testing.T) {
	k := mustKey(t, elliptic.P384())
	f, err := statement.NewFile(mustSign(t, k, statement.Descriptor, "payload"), k.Public())
	if err != nil {
		t.Fatal(err)
	}
	b, err := statement.MarshalJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	for name, bad := range map[string]string{
		"unknown field":  strings.Replace(good, "{", "{\n  \"extra\": 1,", 1),
		"repeated field": strings.Replace(good, "{", "{\n  \"type\": \"approval\",", 1),
		"other space":    strings.Replace(good, "  ", "\t", 1),
		"bytes behind":   good + "{}",
		"no newline":     strings.TrimSuffix(good, "\n"),
		"other case":     strings.Replace(good, `"type"`, `"Type"`, 1),
		"not base64":     strings.Replace(good, `"payload": "`, `"payload": "!`, 1),
		"empty":          "",
		"null":           "null\n",
	} {
		var back statement.File
		if err := statement.UnmarshalJSON([]byte(bad), &back); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestReadRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, make([]byte, statement.MaxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, big, filepath.Join(dir, "missing")} {
		var f statement.File
		if err := statement.ReadJSON(path, &f); err == nil {
			t.Errorf("%s was read", path)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(mustSign(f, mustKey(f, elliptic.P384()), statement.State, "payload").Marshal())
	b, err := hex.DecodeString("0000000573746174650000000000000000")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := statement.Parse(b)
		if err != nil {
			return
		}
		if !bytes.Equal(s.Marshal(), b) {
			t.Errorf("%x has another encoding, %x", b, s.Marshal())
		}
	})
}
