package spki_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	k1 "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/keyferry/keyferry/hsm/spki"
)

func TestAgreesWithX509(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys := []crypto.PublicKey{&rsaKey.PublicKey}
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, &k.PublicKey)
	}
	for _, k := range keys {
		want, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			t.Fatal(err)
		}
		got, err := spki.Marshal(k)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%T: %x, %v; want %x", k, got, err, want)
		}
		back, err := spki.Parse(got)
		if eq, ok := back.(interface{ Equal(crypto.PublicKey) bool }); err != nil || !ok || !eq.Equal(k) {
			t.Errorf("%T came back as %v, %v", k, back, err)
		}
	}
}

// TestAgreesWithOpenSSL reads a secp256k1 key and its signature as OpenSSL makes them.
func TestAgreesWithOpenSSL(t *testing.T) {
	dir := t.TempDir()
	openssl := func(args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "openssl", args...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("openssl %v: %v", args, err)
		}
		return out
	}
	openssl("ecparam", "-name", "secp256k1", "-genkey", "-noout", "-out", "key.pem")
	der := openssl("pkey", "-in", "key.pem", "-pubout", "-outform", "DER")
	parsed, err := spki.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	key := parsed.(*ecdsa.PublicKey)
	if again, err := spki.Marshal(key); err != nil || !bytes.Equal(again, der) {
		t.Errorf("encoded %x, %v; OpenSSL has %x", again, err, der)
	}
	for _, hash := range []struct {
		name string
		sum  func([]byte) []byte
	}{
		{"sha256", func(b []byte) []byte { h := sha256.Sum256(b); return h[:] }},
		{"sha384", func(b []byte) []byte { h := sha512.Sum384(b); return h[:] }},
		{"sha512", func(b []byte) []byte { h := sha512.Sum512(b); return h[:] }},
	} {
		if err := os.WriteFile(filepath.Join(dir, "message"), []byte("message"), 0o600); err != nil {
			t.Fatal(err)
		}
		signature := openssl("dgst", "-"+hash.name, "-sign", "key.pem", "message")
		if !spki.VerifyECDSA(key, hash.sum([]byte("message")), signature) {
			t.Errorf("%s: OpenSSL's signature does not verify", hash.name)
		}
		if spki.VerifyECDSA(key, hash.sum([]byte("other")), signature) {
			t.Errorf("%s: the signature verifies for another message", hash.name)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	private, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	public := private.PubKey()
	good, err := spki.Marshal(spki.FromSecp256k1(public))
	if err != nil {
		t.Fatal(err)
	}
	edit := func(f func(b []byte)) []byte { b := bytes.Clone(good); f(b); return b }
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edDER, err := x509.MarshalPKIXPublicKey(ed.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{
		"nothing":              nil,
		"a byte more":          append(bytes.Clone(good), 0),
		"a byte less":          good[:len(good)-1],
		"off the curve":        edit(func(b []byte) { b[len(b)-1] ^= 1 }),
		"hybrid point":         edit(func(b []byte) { b[len(b)-65] = 6 | public.SerializeUncompressed()[64]&1 }),
		"coordinate too large": edit(func(b []byte) { copy(b[len(b)-64:], bytes.Repeat([]byte{0xFF}, 32)) }),
		"unused bits":          edit(func(b []byte) { b[len(b)-66] = 1 }),
		"another curve":        edit(func(b []byte) { b[len(b)-69] = 11 }),
		"Ed25519":              edDER,
	} {
		if pub, err := spki.Parse(der); !errors.Is(err, spki.ErrInvalid) {
			t.Errorf("%s: parsed to %v, %v", name, pub, err)
		}
	}
	if _, err := spki.Parse(good); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func TestParsePointRefuses(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521(), spki.Secp256k1()} {
		p := curve.Params()
		size := (p.BitSize + 7) / 8
		good := make([]byte, 1+2*size)
		good[0] = 4
		p.Gx.FillBytes(good[1 : 1+size])
		p.Gy.FillBytes(good[1+size:])
		key, err := spki.ParsePoint(curve, good)
		if err != nil {
			t.Fatalf("%s: the generator: %v", p.Name, err)
		}
		if point, err := spki.Point(key); err != nil || !bytes.Equal(point, good) {
			t.Errorf("%s: encoded as %x, %v", p.Name, point, err)
		}
		off := bytes.Clone(good)
		off[len(off)-1] ^= 1
		compressed := append([]byte{2 | good[2*size]&1}, good[1:1+size]...)
		unreduced := bytes.Clone(good)
		copy(unreduced[1:], bytes.Repeat([]byte{0xFF}, size))
		for name, point := range map[string][]byte{
			"empty": nil, "infinity": {0}, "zeros": make([]byte, len(good)), "zero coordinates": append([]byte{4}, make([]byte, 2*size)...),
			"off the curve": off, "compressed": compressed, "short": good[:len(good)-1], "long": append(bytes.Clone(good), 0), "unreduced": unreduced,
		} {
			if _, err := spki.ParsePoint(curve, point); !errors.Is(err, spki.ErrInvalid) {
				t.Errorf("%s, %s: %v", p.Name, name, err)
			}
		}
	}
}

func TestVerifyECDSARefusesOtherForms(t *testing.T) {
	private, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	key := spki.FromSecp256k1(private.PubKey())
	digest := sha256.Sum256([]byte("message"))
	good := k1.Sign(private, digest[:]).Serialize()
	if !spki.VerifyECDSA(key, digest[:], good) {
		t.Fatal("a good signature is refused")
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(good, &rs); err != nil {
		t.Fatal(err)
	}
	n := key.Params().N
	encode := func(r, s *big.Int) []byte {
		b, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	// The other half of the malleable pair is a signature too, as FIPS 186 has it.
	if !spki.VerifyECDSA(key, digest[:], encode(rs.R, new(big.Int).Sub(n, rs.S))) {
		t.Error("n - s is refused, and tokens make such signatures")
	}
	for name, bad := range map[string][]byte{
		"r plus n": encode(new(big.Int).Add(rs.R, n), rs.S), "s plus n": encode(rs.R, new(big.Int).Add(rs.S, n)),
		"r zero": encode(new(big.Int), rs.S), "s zero": encode(rs.R, new(big.Int)), "s is n": encode(rs.R, n),
		"negative": encode(rs.R, new(big.Int).Neg(rs.S)), "trailing byte": append(bytes.Clone(good), 0), "empty": nil,
		"another r": encode(new(big.Int).Xor(rs.R, big.NewInt(1)), rs.S),
	} {
		if spki.VerifyECDSA(key, digest[:], bad) {
			t.Errorf("%s verifies", name)
		}
	}
}
