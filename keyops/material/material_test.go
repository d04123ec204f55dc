package material_test

import (
	"crypto/aes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"hash"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	_ "github.com/keyferry/keyferry/keyops/keyopstest/seededtest"
	"github.com/keyferry/keyferry/keyops/material"
)

type vector struct {
	Name, Spec, KeyID, Secret, Input, Check, ID string
}

func mustVectors(t *testing.T) []vector {
	t.Helper()
	data, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) < 8 {
		t.Fatalf("got %d vectors, want at least 8", len(vectors))
	}
	return vectors
}

func mustHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var hashes = map[string]func() hash.Hash{
	"HMAC_224": sha256.New224, "HMAC_256": sha256.New, "HMAC_384": sha512.New384, "HMAC_512": sha512.New,
}

// TestVectors checks the committed vectors, which openssl computed, against this package
// and against Go's own AES and HMAC.
func TestVectors(t *testing.T) {
	for _, v := range mustVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			check := mustHex(t, v.Check)
			switch {
			case v.Spec == "SYMMETRIC_DEFAULT":
				blocks := material.AESBlocks(v.KeyID)
				if diff := cmp.Diff(v.Input, hex.EncodeToString(blocks[:])); diff != "" {
					t.Errorf("AESBlocks (-want +got):\n%s", diff)
				}
				cipher, err := aes.NewCipher(mustHex(t, v.Secret))
				if err != nil {
					t.Fatal(err)
				}
				got := make([]byte, 32)
				cipher.Encrypt(got[:16], blocks[:16])
				cipher.Encrypt(got[16:], blocks[16:])
				if diff := cmp.Diff(check, got); diff != "" {
					t.Errorf("encrypted blocks (-want +got):\n%s", diff)
				}
			case hashes[v.Spec] != nil:
				message := material.MACMessage(v.KeyID)
				if diff := cmp.Diff(v.Input, hex.EncodeToString(message)); diff != "" {
					t.Errorf("MACMessage (-want +got):\n%s", diff)
				}
				mac := hmac.New(hashes[v.Spec], mustHex(t, v.Secret))
				mac.Write(message)
				if diff := cmp.Diff(check, mac.Sum(nil)); diff != "" {
					t.Errorf("MAC (-want +got):\n%s", diff)
				}
			case v.Spec == "ECC_NIST_P256":
				one := make([]byte, 32)
				one[31] = 1
				base, err := ecdh.P256().NewPrivateKey(one)
				if err != nil {
					t.Fatal(err)
				}
				public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), base.PublicKey().Bytes())
				if err != nil {
					t.Fatal(err)
				}
				spki, err := x509.MarshalPKIXPublicKey(public)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(check, spki); diff != "" {
					t.Errorf("SPKI (-want +got):\n%s", diff)
				}
			default:
				t.Fatalf("vector with spec %q is not checked", v.Spec)
			}
			id := material.Compute(v.Spec, v.KeyID, check)
			if id.String() != v.ID {
				t.Errorf("Compute: got %s, want %s", id, v.ID)
			}
			parsed, err := material.Parse(v.ID)
			if err != nil || parsed != id {
				t.Errorf("Parse: got %s, %v", parsed, err)
			}
			prefix := id.Prefix()
			if got := hex.EncodeToString(prefix[:]); got != v.ID[:32] {
				t.Errorf("Prefix: got %s, want %s", got, v.ID[:32])
			}
		})
	}
}

// TestAESBlocksHaveZeroCounters guards the property that keeps the check value apart from
// every keystream block.
func TestAESBlocksHaveZeroCounters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		blocks := material.AESBlocks(rapid.String().Draw(t, "key ID"))
		for _, end := range []int{16, 32} {
			if [4]byte(blocks[end-4:end]) != [4]byte{} {
				t.Fatalf("block ending at %d has counter %x, want zero", end, blocks[end-4:end])
			}
		}
	})
}

// TestComputeSeparatesFields moves bytes between neighbouring fields: the lengths before
// them must keep the IDs apart.
func TestComputeSeparatesFields(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringN(2, 40, -1).Draw(t, "text")
		i := rapid.IntRange(0, len(s)).Draw(t, "i")
		j := rapid.IntRange(0, len(s)).Draw(t, "j")
		if i == j {
			return
		}
		if material.Compute(s[:i], s[i:], nil) == material.Compute(s[:j], s[j:], nil) {
			t.Fatalf("spec and key ID %q split at %d and at %d have one material ID", s, i, j)
		}
		if material.Compute("", s[:i], []byte(s[i:])) == material.Compute("", s[:j], []byte(s[j:])) {
			t.Fatalf("key ID and check value %q split at %d and at %d have one material ID", s, i, j)
		}
	})
}

func TestParseRefuses(t *testing.T) {
	good := strings.Repeat("0a", 32)
	for name, s := range map[string]string{
		"empty":      "",
		"short":      good[:62],
		"long":       good + "00",
		"upper case": strings.ToUpper(good),
		"no hex":     strings.Repeat("0g", 32),
		"space":      " " + good[1:],
	} {
		t.Run(name, func(t *testing.T) {
			if id, err := material.Parse(s); err == nil {
				t.Errorf("Parse(%q): got %s, want an error", s, id)
			}
		})
	}
}

func TestJSON(t *testing.T) {
	id := material.Compute("HMAC_256", "mrk-1234abcd12ab34cd56ef1234567890ab", []byte{1})
	data, err := json.Marshal(id)
	if err != nil {
		t.Fatal(err)
	}
	var got material.ID
	if err := json.Unmarshal(data, &got); err != nil || got != id {
		t.Errorf("round trip through %s: got %s, %v, want %s", data, got, err, id)
	}
	if id.IsZero() || !(material.ID{}).IsZero() {
		t.Error("IsZero: want true for the zero ID only")
	}
	if err := json.Unmarshal([]byte(`"00"`), &got); err == nil {
		t.Error("unmarshalling a short ID: want an error")
	}
}
