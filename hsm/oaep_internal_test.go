package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/big"
	"testing"

	"github.com/keyferry/keyferry/hsm/spki"
)

// unmasked is the encoded message of RFC 8017 section 7.1.1 before it is masked.
type unmasked struct {
	first byte
	seed  []byte
	db    []byte
}

func encode(hash crypto.Hash, k int, message []byte) unmasked {
	n := hash.Size()
	db := append(hash.New().Sum(nil), make([]byte, k-2*n-2-len(message))...)
	return unmasked{0, bytes.Repeat([]byte{0x5A}, n), append(append(db, 1), message...)}
}

func (e unmasked) masked(hash crypto.Hash) []byte {
	seed, db := bytes.Clone(e.seed), bytes.Clone(e.db)
	maskMGF1(db, hash, seed)
	maskMGF1(seed, hash, db)
	return append(append([]byte{e.first}, seed...), db...)
}

// malformed lists encodings that must not open, each by its fault.
func malformed(hash crypto.Hash, k int) map[string][]byte {
	all := map[string][]byte{}
	n := hash.Size()
	change := func(name string, f func(e *unmasked)) {
		e := encode(hash, k, []byte("message"))
		f(&e)
		all[name] = e.masked(hash)
	}
	for _, first := range []byte{1, 2, 0x80, 0xFF} {
		change(fmt.Sprintf("first byte %d", first), func(e *unmasked) { e.first = first })
		change(fmt.Sprintf("first byte %d and a wrong label", first), func(e *unmasked) { e.first = first; e.db[0] ^= 1 })
	}
	for i := range n {
		change(fmt.Sprintf("label byte %d", i), func(e *unmasked) { e.db[i] ^= 0x40 })
	}
	end := k - n - 1 // of the data block
	change("no separator", func(e *unmasked) { clear(e.db[n:]) })
	change("separator 2", func(e *unmasked) { e.db[end-8] = 2 })
	change("separator 255", func(e *unmasked) { e.db[end-8] = 0xFF })
	change("padding begins with 3", func(e *unmasked) { e.db[n] = 3 })
	change("padding has a 2 in it", func(e *unmasked) { e.db[n+5] = 2 })
	all["zeros"] = make([]byte, k)
	all["random"] = append([]byte{0}, bytes.Repeat([]byte{0xC3}, k-1)...)
	return all
}

func TestDecodeOAEP(t *testing.T) {
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		for _, a := range []Algorithm{RSA2048, RSA3072, RSA4096} {
			k := a.ModulusBits() / 8
			for _, n := range []int{0, 1, 2, MaxOAEP(a, hash) - 1, MaxOAEP(a, hash)} {
				message := bytes.Repeat([]byte{1, 0}, n)[:n] // looks like a separator
				got, err := decodeOAEP(hash, encode(hash, k, message).masked(hash))
				if err != nil || !bytes.Equal(got, message) || got == nil {
					t.Errorf("%s, %s, %d bytes: got %x, %v", a, hash, n, got, err)
				}
			}
			for name, em := range malformed(hash, k) {
				if got, err := decodeOAEP(hash, em); err != errOAEP || got != nil {
					t.Errorf("%s, %s, %s: got %x, %v; want the one error itself", a, hash, name, got, err)
				}
			}
			if _, err := decodeOAEP(hash, make([]byte, 2*hash.Size()+1)); err != errOAEP {
				t.Errorf("a key too short for the hash: %v", err)
			}
		}
	}
}

// TestNoOracle encrypts malformed encodings for a key in the token and expects one answer to
// all, to the letter: Manger's attack needs two.
func TestNoOracle(t *testing.T) {
	k, _ := openFaulty(t, 1)
	id := NewID()
	der, err := k.Generate(t.Context(), Spec{Role: RoleMaterial, Algorithm: RSA2048, Usage: UsageDecrypt, Name: "oracle"}, id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Destroy(context.Background(), id); err != nil {
			t.Error(err)
		}
	})
	parsed, err := spki.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	public := parsed.(*rsa.PublicKey)
	sealed := func(em []byte) []byte {
		c := new(big.Int).SetBytes(em)
		if c.Cmp(public.N) >= 0 {
			return nil
		}
		return c.Exp(c, big.NewInt(int64(public.E)), public.N).FillBytes(make([]byte, 256))
	}
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		good := encode(hash, 256, []byte("message")).masked(hash)
		if got, err := k.DecryptOAEP(t.Context(), id, hash, sealed(good)); err != nil || string(got) != "message" {
			t.Fatalf("%s: a good encoding gives %q, %v", hash, got, err)
		}
		said, tried := map[string]int{}, 0
		for _, em := range malformed(hash, 256) {
			c := sealed(em)
			if c == nil {
				continue // not below the modulus: nobody can encrypt it
			}
			tried++
			got, err := k.DecryptOAEP(t.Context(), id, hash, c)
			if err == nil || got != nil {
				t.Fatalf("%s: opened as %x", hash, got)
			}
			said[err.Error()]++
		}
		if len(said) != 1 || tried < hash.Size() {
			t.Errorf("%s: %d malformed encodings got the answers %v, want one", hash, tried, said)
		}
	}
	var random [256]byte
	rand.Read(random[1:])
	if _, err := k.DecryptOAEP(t.Context(), id, crypto.SHA256, random[:]); err == nil {
		t.Error("random bytes opened")
	}
}
