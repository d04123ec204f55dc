package ciphertext_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/ciphertext"
	_ "github.com/keyferry/keyferry/keyops/keyopstest/seededtest"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/wire"
)

// hexBytes is a byte string that the vectors spell in hexadecimal.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

type vectors struct {
	Accepted []struct {
		Name                         string
		KeyID                        arn.KeyID
		Material                     material.ID
		Context                      map[string]string
		Secret, AAD, Plaintext, Blob hexBytes
	}
	Refused []struct {
		Name    string
		Blob    hexBytes
		Zeros   int // to append to Blob
		Refusal string
	}
}

func mustVectors(t testing.TB) vectors {
	t.Helper()
	data, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Accepted) < 9 || len(v.Refused) < 13 {
		t.Fatalf("got %d accepted and %d refused vectors, want at least 9 and 13", len(v.Accepted), len(v.Refused))
	}
	return v
}

func mustGCM(t testing.TB, secret []byte, ivSize int) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(secret)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, ivSize)
	if err != nil {
		t.Fatal(err)
	}
	return gcm
}

func TestAcceptedVectors(t *testing.T) {
	for _, v := range mustVectors(t).Accepted {
		t.Run(v.Name, func(t *testing.T) {
			h, sealed, err := ciphertext.Parse(v.Blob)
			if err != nil {
				t.Fatal(err)
			}
			if h.KeyID() != v.KeyID {
				t.Errorf("KeyID: got %s, want %s", h.KeyID(), v.KeyID)
			}
			want := ciphertext.NewHeader(v.KeyID, v.Material)
			want.IV = h.IV
			if diff := cmp.Diff(want, h); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			aad, err := ciphertext.AAD(h, v.Material, v.Context)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]byte(v.AAD), aad); diff != "" {
				t.Errorf("AAD (-want +got):\n%s", diff)
			}
			plaintext, err := mustGCM(t, v.Secret, len(h.IV)).Open(nil, h.IV, sealed, aad)
			if err != nil {
				t.Fatalf("opening with crypto/cipher: %v", err)
			}
			if !bytes.Equal(plaintext, v.Plaintext) {
				t.Errorf("plaintext: got %x, want %x", plaintext, v.Plaintext)
			}
			blob, err := ciphertext.Build(h, sealed)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(blob, v.Blob) {
				t.Errorf("Build: got %x, want %x", blob, v.Blob)
			}
		})
	}
}

// TestEveryBitCounts flips each bit of a blob, opens it as Decrypt would, and expects no
// plaintext from any of them.
func TestEveryBitCounts(t *testing.T) {
	v := mustVectors(t).Accepted[3]
	for bit := range 8 * len(v.Blob) {
		blob := bytes.Clone(v.Blob)
		blob[bit/8] ^= 1 << (bit % 8)
		h, sealed, err := ciphertext.Parse(blob)
		if err != nil {
			continue
		}
		aad, err := ciphertext.AAD(h, v.Material, v.Context)
		if err != nil {
			continue
		}
		if _, err := mustGCM(t, v.Secret, len(h.IV)).Open(nil, h.IV, sealed, aad); err == nil {
			t.Errorf("bit %d of byte %d does not count", bit%8, bit/8)
		}
	}
}

func TestRefusedVectors(t *testing.T) {
	for _, v := range mustVectors(t).Refused {
		t.Run(v.Name, func(t *testing.T) {
			_, _, err := ciphertext.Parse(append(v.Blob, make([]byte, v.Zeros)...))
			if !errors.Is(err, ciphertext.ErrInvalid) {
				t.Fatalf("got %v, want an error that wraps ErrInvalid", err)
			}
			if !strings.Contains(err.Error(), v.Refusal) {
				t.Errorf("got %q, want it to say %q", err, v.Refusal)
			}
		})
	}
}

func TestLargestBlob(t *testing.T) {
	h := ciphertext.NewHeader("mrk-1234abcd12ab34cd56ef1234567890ab", material.ID{})
	h.IV = make([]byte, 12)
	blob, err := ciphertext.Build(h, make([]byte, ciphertext.MaxSize-35-12))
	if err != nil || len(blob) != ciphertext.MaxSize {
		t.Fatalf("got %d bytes, %v, want %d bytes", len(blob), err, ciphertext.MaxSize)
	}
	if _, _, err := ciphertext.Parse(blob); err != nil {
		t.Error(err)
	}
}

func TestBuildRefuses(t *testing.T) {
	good := ciphertext.NewHeader("mrk-1234abcd12ab34cd56ef1234567890ab", material.ID{})
	good.IV = make([]byte, 12)
	tests := map[string]struct {
		change func(*ciphertext.Header)
		sealed int
	}{
		"no IV":        {func(h *ciphertext.Header) { h.IV = nil }, 16},
		"IV of 8":      {func(h *ciphertext.Header) { h.IV = h.IV[:8] }, 16},
		"unknown flag": {func(h *ciphertext.Header) { h.Flags |= 4 }, 16},
		"no tag":       {func(*ciphertext.Header) {}, 15},
		"too large":    {func(*ciphertext.Header) {}, ciphertext.MaxSize - 35 - 12 + 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := good
			test.change(&h)
			if _, err := ciphertext.Build(h, make([]byte, test.sealed)); !errors.Is(err, ciphertext.ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
		})
	}
}

func TestAADRefusesForeignMaterial(t *testing.T) {
	id := material.Compute("SYMMETRIC_DEFAULT", "k", []byte{1})
	h := ciphertext.NewHeader("mrk-1234abcd12ab34cd56ef1234567890ab", id)
	other := id
	other[0] ^= 1
	if _, err := ciphertext.AAD(h, other, nil); !errors.Is(err, ciphertext.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
	other = id
	other[31] ^= 1 // beyond the prefix: a material of another key, which the AAD tells apart
	a, errA := ciphertext.AAD(h, id, nil)
	b, errB := ciphertext.AAD(h, other, nil)
	if errA != nil || errB != nil || bytes.Equal(a, b) {
		t.Errorf("the material ID's second half does not count: %v, %v", errA, errB)
	}
}

func TestContextBounds(t *testing.T) {
	// count 12, and 4 for each length
	value := func(n int) map[string]string { return map[string]string{"k": strings.Repeat("v", n-12-4-1-4)} }
	many := func(n int) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprintf("%04d", i)] = ""
		}
		return m
	}
	tests := map[string]struct {
		context map[string]string
		ok      bool
	}{
		"nil":                   {nil, true},
		"empty":                 {map[string]string{}, true},
		"empty value":           {map[string]string{"k": ""}, true},
		"largest value":         {value(ciphertext.MaxContextSize), true},
		"value one too large":   {value(ciphertext.MaxContextSize + 1), false},
		"as many as fit":        {many(681), true},
		"one more":              {many(682), false},
		"empty key":             {map[string]string{"": "v"}, false},
		"key is no UTF-8":       {map[string]string{"\xff": "v"}, false},
		"value is no UTF-8":     {map[string]string{"k": "\xc3"}, false},
		"value has a surrogate": {map[string]string{"k": "\xed\xa0\x80"}, false},
		"zero byte":             {map[string]string{"k\x00": "v\x00"}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ciphertext.AAD(ciphertext.Header{}, material.ID{}, test.context)
			if (err == nil) != test.ok {
				t.Fatalf("got %v, want ok = %t", err, test.ok)
			}
			if err != nil && (!errors.Is(err, ciphertext.ErrContext) || !errors.Is(err, ciphertext.ErrInvalid)) {
				t.Errorf("got %v, want ErrContext and ErrInvalid", err)
			}
		})
	}
}

// TestContextIsInjective reads the canonical form back: what can be read back is told apart.
func TestContextIsInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		context := rapid.MapOf(rapid.StringN(1, 12, -1), rapid.StringN(0, 12, -1)).Draw(t, "context")
		aad, err := ciphertext.AAD(ciphertext.Header{}, material.ID{}, context)
		if err != nil {
			t.Fatal(err)
		}
		r := wire.NewReader(aad[34+32:])
		got := map[string]string{}
		last := ""
		for range r.Count(ciphertext.MaxContextSize) {
			k := r.String(ciphertext.MaxContextSize)
			if k <= last {
				t.Fatalf("key %q does not come after %q", k, last)
			}
			got[k], last = r.String(ciphertext.MaxContextSize), k
		}
		if err := r.Done(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(context, got); diff != "" {
			t.Fatalf("read back (-want +got):\n%s", diff)
		}
	})
}

func FuzzParse(f *testing.F) {
	v := mustVectors(f)
	for _, a := range v.Accepted {
		f.Add([]byte(a.Blob))
	}
	for _, r := range v.Refused {
		f.Add([]byte(r.Blob))
	}
	f.Fuzz(func(t *testing.T, blob []byte) {
		h, sealed, err := ciphertext.Parse(blob)
		if err != nil {
			if !errors.Is(err, ciphertext.ErrInvalid) {
				t.Fatalf("got %v, want an error that wraps ErrInvalid", err)
			}
			return
		}
		again, err := ciphertext.Build(h, sealed)
		if err != nil {
			t.Fatalf("building what was parsed: %v", err)
		}
		if !bytes.Equal(again, blob) {
			t.Fatalf("parsed and built: got %x, want %x", again, blob)
		}
		if back := ciphertext.NewHeader(h.KeyID(), material.ID(append(h.Material[:], make([]byte, 16)...))); back.Key != h.Key || back.Flags != h.Flags {
			t.Fatalf("header of %s: got %+v, want %+v", h.KeyID(), back, h)
		}
	})
}

func FuzzContext(f *testing.F) {
	f.Add("env", "prod", "e", "nvprod")
	f.Add("a", "", "", "a")
	f.Add("\xff", "v", "\ufffd", "v")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		one := map[string]string{k1: v1}
		other := map[string]string{k2: v2}
		both := map[string]string{k1: v1, k2: v2}
		seen := map[string]string{}
		for _, context := range []map[string]string{nil, one, other, both} {
			aad, err := ciphertext.AAD(ciphertext.Header{}, material.ID{}, context)
			if err != nil {
				if !errors.Is(err, ciphertext.ErrContext) {
					t.Fatalf("got %v, want ErrContext", err)
				}
				continue
			}
			said := fmt.Sprintf("%q", context)
			if before, ok := seen[string(aad)]; ok && before != said {
				t.Fatalf("%s and %s have one AAD", before, said)
			}
			seen[string(aad)] = said
		}
	})
}

func BenchmarkAAD(b *testing.B) {
	id := material.Compute("SYMMETRIC_DEFAULT", "k", []byte{1})
	h := ciphertext.NewHeader("mrk-1234abcd12ab34cd56ef1234567890ab", id)
	context := map[string]string{"env": "prod", "app": "payroll"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ciphertext.AAD(h, id, context); err != nil {
			b.Fatal(err)
		}
	}
}
