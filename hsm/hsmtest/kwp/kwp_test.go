package kwp_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/keyferry/keyferry/hsm/hsmtest/kwp"
)

// TestVectors are those of RFC 5649, section 6.
func TestVectors(t *testing.T) {
	kek := unhex(t, "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8")
	for _, v := range []struct{ name, key, wrapped string }{
		{"20 bytes", "c37b7e6492584340bed12207808941155068f738", "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a"},
		{"7 bytes", "466f7250617369", "afbeb0f07dfbf5419200f2ccb50bb24f"},
	} {
		t.Run(v.name, func(t *testing.T) {
			key, want := unhex(t, v.key), unhex(t, v.wrapped)
			got, err := kwp.Wrap(kek, key)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("wrapped %x, %v; want %x", got, err, want)
			}
			got, err = kwp.Unwrap(kek, want)
			if err != nil || !bytes.Equal(got, key) {
				t.Errorf("unwrapped %x, %v; want %x", got, err, key)
			}
		})
	}
}

func TestRoundTripAndDamage(t *testing.T) {
	kek := bytes.Repeat([]byte{1}, 32)
	for n := 1; n <= 70; n++ {
		key := bytes.Repeat([]byte{byte(n)}, n)
		wrapped, err := kwp.Wrap(kek, key)
		if err != nil {
			t.Fatal(err)
		}
		if len(wrapped) != (n+7)/8*8+8 {
			t.Errorf("%d bytes became %d", n, len(wrapped))
		}
		if got, err := kwp.Unwrap(kek, wrapped); err != nil || !bytes.Equal(got, key) {
			t.Errorf("%d bytes: got %x, %v", n, got, err)
		}
		for i := range wrapped {
			damaged := bytes.Clone(wrapped)
			damaged[i] ^= 4
			if _, err := kwp.Unwrap(kek, damaged); !errors.Is(err, kwp.ErrIntegrity) {
				t.Errorf("%d bytes, byte %d changed: %v", n, i, err)
			}
		}
	}
	for _, n := range []int{0, 8, 15, 17} {
		if _, err := kwp.Unwrap(kek, make([]byte, n)); !errors.Is(err, kwp.ErrIntegrity) {
			t.Errorf("a blob of %d bytes: %v", n, err)
		}
	}
	if _, err := kwp.Wrap(kek, nil); err == nil {
		t.Error("an empty key was wrapped")
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
