package hsmtest

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/spki"
)

func local(a hsm.Algorithm, u hsm.Usage) hsm.Spec {
	return hsm.Spec{Role: hsm.RoleMaterial, Algorithm: a, Usage: u, Name: "suite"}
}

var signHashes = []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}

// verifies checks a signature with the standard library, on every curve and padding.
func verifies(t *testing.T, der []byte, scheme hsm.SignScheme, digest, signature []byte) bool {
	t.Helper()
	parsed, err := spki.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	switch public := parsed.(type) {
	case *ecdsa.PublicKey:
		return spki.VerifyECDSA(public, digest, signature)
	case *rsa.PublicKey:
		if scheme.Padding == hsm.PSS {
			return rsa.VerifyPSS(public, scheme.Hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(public, scheme.Hash, digest, signature) == nil
	}
	return false
}

// suiteSign signs with every kind of key, by every scheme, and has everything else refused.
func suiteSign(t *testing.T, h Harness) {
	ctx := t.Context()
	for _, c := range []struct {
		spec     hsm.Spec
		paddings []hsm.SignPadding
	}{
		{sharedEC, []hsm.SignPadding{hsm.ECDSA}},
		{localEC, []hsm.SignPadding{hsm.ECDSA}},
		{local(hsm.ECP521, hsm.UsageSign), []hsm.SignPadding{hsm.ECDSA}},
		{shared(hsm.ECSecp256k1, hsm.UsageSign), []hsm.SignPadding{hsm.ECDSA}},
		{local(hsm.RSA2048, hsm.UsageSign), []hsm.SignPadding{hsm.PKCS1v15, hsm.PSS}},
		{region, []hsm.SignPadding{hsm.ECDSA}},
	} {
		id, public := generate(t, h.Source, c.spec)
		for _, padding := range []hsm.SignPadding{hsm.ECDSA, hsm.PKCS1v15, hsm.PSS} {
			for _, hash := range signHashes {
				scheme := hsm.SignScheme{Padding: padding, Hash: hash}
				digest := make([]byte, hash.Size())
				rand.Read(digest)
				what := fmt.Sprintf("%s with %s, %s", c.spec.Algorithm, padding, hash)
				signature, err := h.Source.Sign(ctx, id, scheme, digest)
				if !contained(c.paddings, padding) {
					wantError(t, what, err, hsm.ErrCaller)
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", what, err)
					continue
				}
				if !verifies(t, public, scheme, digest, signature) {
					t.Errorf("%s: the signature does not verify", what)
				}
				digest[0] ^= 1
				if verifies(t, public, scheme, digest, signature) {
					t.Errorf("%s: the signature verifies for another digest", what)
				}
				for _, wrong := range [][]byte{nil, digest[1:], append(bytes.Clone(digest), 0)} {
					_, err := h.Source.Sign(ctx, id, scheme, wrong)
					wantError(t, what+" and a digest of another length", err, hsm.ErrCaller)
				}
			}
			_, err := h.Source.Sign(ctx, id, hsm.SignScheme{Padding: padding, Hash: crypto.SHA1}, make([]byte, 20))
			wantError(t, "SHA-1", err, hsm.ErrCaller)
		}
		_, err := h.Source.Sign(ctx, id, hsm.SignScheme{}, make([]byte, 32))
		wantError(t, "no scheme", err, hsm.ErrCaller)
	}
}

func contained[T comparable](all []T, one T) bool {
	for _, x := range all {
		if x == one {
			return true
		}
	}
	return false
}

// suiteOAEP opens what the standard library sealed, and gives one answer to all else.
func suiteOAEP(t *testing.T, h Harness) {
	ctx := t.Context()
	id, public := generate(t, h.Source, local(hsm.RSA2048, hsm.UsageDecrypt))
	other, _ := generate(t, h.Source, shared(hsm.RSA2048, hsm.UsageDecrypt))
	parsed, err := spki.Parse(public)
	if err != nil {
		t.Fatal(err)
	}
	key := parsed.(*rsa.PublicKey)
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		seal := func(plaintext, label []byte) []byte {
			t.Helper()
			sealed, err := rsa.EncryptOAEP(hash.New(), rand.Reader, key, plaintext, label)
			if err != nil {
				t.Fatal(err)
			}
			return sealed
		}
		for _, n := range []int{0, 1, 32, hsm.MaxOAEP(hsm.RSA2048, hash)} {
			plaintext := bytes.Repeat([]byte{0, 1}, n)[:n] // begins like padding
			got, err := h.Source.DecryptOAEP(ctx, id, hash, seal(plaintext, nil))
			if err != nil || !bytes.Equal(got, plaintext) {
				t.Errorf("%s, %d bytes: got %x, %v", hash, n, got, err)
			}
		}
		good := seal([]byte("text"), nil)
		otherHash := crypto.SHA1 + crypto.SHA256 - hash
		said := map[string]bool{}
		for name, c := range map[string]struct {
			id     hsm.ID
			hash   crypto.Hash
			sealed []byte
		}{
			"another key":        {other, hash, good},
			"another hash":       {id, otherHash, good},
			"a label":            {id, hash, seal([]byte("text"), []byte("label"))},
			"a flipped bit":      {id, hash, append([]byte{good[0], good[1] ^ 1}, good[2:]...)},
			"the modulus":        {id, hash, key.N.FillBytes(make([]byte, 256))},
			"more":               {id, hash, bytes.Repeat([]byte{0xFF}, 256)},
			"zeros":              {id, hash, make([]byte, 256)},
			"nothing":            {id, hash, nil},
			"a byte less":        {id, hash, good[:255]},
			"a byte more":        {id, hash, append(bytes.Clone(good), 0)},
			"of another modulus": {id, hash, make([]byte, 384)},
		} {
			got, err := h.Source.DecryptOAEP(ctx, c.id, c.hash, c.sealed)
			wantError(t, name, err, hsm.ErrDataInvalid)
			if err != nil && c.id == id && len(c.sealed) == 256 {
				said[err.Error()] = true
			}
			if got != nil {
				t.Errorf("%s: %d bytes beside the error", name, len(got))
			}
		}
		if len(said) != 1 {
			t.Errorf("ciphertexts that do not open are told apart: %v", said)
		}
	}
	_, err = h.Source.DecryptOAEP(ctx, id, crypto.SHA512, make([]byte, 256))
	wantError(t, "SHA-512", err, hsm.ErrCaller)
}

// suiteAgree compares each curve with the standard library.
func suiteAgree(t *testing.T, h Harness) {
	ctx := t.Context()
	for algorithm, curve := range map[hsm.Algorithm]ecdh.Curve{hsm.ECP256: ecdh.P256(), hsm.ECP384: ecdh.P384(), hsm.ECP521: ecdh.P521()} {
		id, public := generate(t, h.Source, local(algorithm, hsm.UsageAgree))
		parsed, err := spki.Parse(public)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := parsed.(*ecdsa.PublicKey).ECDH()
		if err != nil {
			t.Fatal(err)
		}
		var point []byte
		// Until a point and a secret have begun with what encodings stumble over, as far as luck
		// allows: a zero byte in the secret comes once in 256 times.
		for range 100 {
			own, err := curve.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			point = own.PublicKey().Bytes()
			want, err := own.ECDH(theirs)
			if err != nil {
				t.Fatal(err)
			}
			got, err := h.Source.Agree(ctx, id, point)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: agreed on %x, %v; want %x", algorithm, got, err, want)
			}
		}
		off, zeros := bytes.Clone(point), make([]byte, len(point))
		off[len(off)-1] ^= 1
		zeros[0] = 4
		for name, bad := range map[string][]byte{
			"nothing": nil, "infinity": {0}, "off the curve": off, "zeros": zeros, "a byte less": point[:len(point)-1],
			"a byte more": append(bytes.Clone(point), 0), "compressed": append([]byte{2 | point[len(point)-1]&1}, point[1:1+len(point)/2]...),
		} {
			_, err := h.Source.Agree(ctx, id, bad)
			wantError(t, string(algorithm)+", "+name, err, hsm.ErrDataInvalid)
		}
	}
	id, _ := generate(t, h.Source, local(hsm.ECP256, hsm.UsageAgree))
	own, err := ecdh.P384().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Source.Agree(ctx, id, own.PublicKey().Bytes())
	wantError(t, "a point of another curve", err, hsm.ErrDataInvalid)
}

// suiteMAC computes MACs of every length of key.
func suiteMAC(t *testing.T, h Harness) {
	seen := map[string]bool{}
	for _, spec := range []hsm.Spec{sharedMAC, localMAC, local(hsm.HMACSHA224, ""), shared(hsm.HMACSHA384, ""), local(hsm.HMACSHA512, "")} {
		id, _ := generate(t, h.Source, spec)
		for _, n := range []int{0, 1, 64, 4096} {
			message := make([]byte, n)
			mac, err := h.Source.MAC(t.Context(), id, message)
			if err != nil || len(mac) != spec.Algorithm.MACBytes() || len(mac) == 0 {
				t.Fatalf("%s of %d bytes: %d bytes, %v", spec.Algorithm, n, len(mac), err)
			}
			if seen[string(mac)] {
				t.Errorf("%s of %d bytes is that of another message or key", spec.Algorithm, n)
			}
			seen[string(mac)] = true
			again, err := h.Source.MAC(t.Context(), id, message)
			if err != nil || !bytes.Equal(mac, again) {
				t.Errorf("the same message twice: %x and %x, %v", mac, again, err)
			}
		}
	}
}
