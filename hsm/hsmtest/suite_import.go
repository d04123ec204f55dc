package hsmtest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest/kwp"
	"github.com/keyferry/keyferry/hsm/spki"
)

// customer wraps as a customer does, in software.
type customer struct {
	scheme hsm.ImportScheme
	key    *rsa.PublicKey
}

func (c customer) wrap(t *testing.T, material []byte) []byte {
	t.Helper()
	inner := material
	if c.scheme.KeyWrap() {
		inner = make([]byte, 32)
		rand.Read(inner)
	}
	blob, err := rsa.EncryptOAEP(c.scheme.Hash().New(), rand.Reader, c.key, inner, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.scheme.KeyWrap() {
		wrapped, err := kwp.Wrap(inner, material)
		if err != nil {
			t.Fatal(err)
		}
		blob = append(blob, wrapped...)
	}
	return blob
}

// importKeys returns importKey for a test that needs some keys more than once.
func importKeys(t *testing.T, tok Token) func(scheme hsm.ImportScheme, material hsm.Spec) (hsm.ID, customer) {
	type made struct {
		id hsm.ID
		customer
	}
	all := map[hsm.Spec]made{}
	return func(scheme hsm.ImportScheme, material hsm.Spec) (hsm.ID, customer) {
		spec := importSpec(scheme, material)
		m, ok := all[spec]
		if !ok {
			m.id, m.customer = importKey(t, tok, scheme, material)
			all[spec] = m
		}
		return m.id, m.customer
	}
}

// importKey makes a wrapping key for the test.
func importKey(t *testing.T, tok Token, scheme hsm.ImportScheme, material hsm.Spec) (hsm.ID, customer) {
	t.Helper()
	id := hsm.NewID()
	der, err := tok.GenerateImportKey(t.Context(), importSpec(scheme, material), id)
	if err != nil {
		t.Fatalf("%s for %s %s: %v", scheme, material.Algorithm, material.Usage, err)
	}
	destroyAfter(t, tok, id)
	parsed, err := spki.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	return id, customer{scheme, parsed.(*rsa.PublicKey)}
}

func importSpec(scheme hsm.ImportScheme, material hsm.Spec) hsm.Spec {
	return hsm.Spec{Role: hsm.RoleImportWrapping, Algorithm: hsm.RSA2048, Name: "suite", Import: hsm.ImportFor{
		Scheme: scheme, Role: material.Role, Algorithm: material.Algorithm, Usage: material.Usage}}
}

// suiteImport imports a key of each kind, multi-Region and not, and uses it.
func suiteImport(t *testing.T, h Harness) {
	schemes := h.Source.Capabilities().ImportSchemes
	for _, scheme := range hsm.ImportSchemes {
		if slices.Contains(schemes, scheme) {
			continue
		}
		id := hsm.NewID()
		_, err := h.Source.GenerateImportKey(t.Context(), importSpec(scheme, localAES), id)
		wantError(t, string(scheme), err, hsm.ErrNotSupported)
	}
	keyWrap := slices.IndexFunc(schemes, hsm.ImportScheme.KeyWrap)
	if keyWrap < 0 || schemes[0].KeyWrap() {
		t.Fatalf("schemes %v: want one with and one without an AES key", schemes)
	}
	for _, c := range []struct {
		scheme hsm.ImportScheme
		spec   hsm.Spec
	}{
		{schemes[0], sharedAES}, {schemes[keyWrap], localAES},
		{schemes[0], local(hsm.HMACSHA224, "")}, {schemes[keyWrap], local(hsm.HMACSHA384, "")}, {schemes[0], shared(hsm.HMACSHA512, "")},
		{schemes[0], local(hsm.ECP256, hsm.UsageSign)}, {schemes[keyWrap], shared(hsm.ECP256, hsm.UsageAgree)},
		{schemes[0], local(hsm.ECSecp256k1, hsm.UsageSign)}, {schemes[keyWrap], local(hsm.ECP521, hsm.UsageSign)},
		{schemes[keyWrap], local(hsm.RSA2048, hsm.UsageSign)}, {schemes[keyWrap], shared(hsm.RSA2048, hsm.UsageDecrypt)},
	} {
		wrapping, customer := importKey(t, h.Source, c.scheme, c.spec)
		bytesOf, own := importable(t, c.spec)
		id := hsm.NewID()
		der, err := h.Source.ImportUnwrap(t.Context(), wrapping, c.spec, id, customer.wrap(t, bytesOf))
		if err != nil {
			t.Errorf("%s, %s %s: %v", c.scheme, c.spec.Algorithm, c.spec.Usage, err)
			continue
		}
		destroyAfter(t, h.Source, id)
		isShared := c.spec.Role == hsm.RoleSharedMaterial
		want := hsm.Object{ID: id, Spec: c.spec, Extractable: isShared, WrapWithTrusted: isShared}
		if got, err := h.Source.Lookup(t.Context(), id); err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
		if err := h.Source.Rescan(t.Context()); err != nil || !contains(h.Source, id) || !contains(h.Source, wrapping) {
			t.Errorf("after a rescan %s is gone: %v, quarantined %+v", c.spec.Algorithm, err, h.Source.Quarantined())
		}
		if c.spec.Algorithm.ModulusBits() != 0 {
			if public, err := spki.Marshal(own.public()); err != nil || !bytes.Equal(der, public) {
				t.Errorf("%s: SPKI %x, %v; want %x", c.spec.Algorithm, der, err, public)
			}
		} else if c.spec.Algorithm.Secret() && der != nil {
			t.Errorf("%s: a secret key with an SPKI", c.spec.Algorithm)
		}
		if err := isImported(t, h.Source, id, c.spec, bytesOf, own); err != nil {
			t.Errorf("%s, %s %s: %v", c.scheme, c.spec.Algorithm, c.spec.Usage, err)
		}
		_, err = h.Source.ImportUnwrap(t.Context(), wrapping, c.spec, id, customer.wrap(t, bytesOf))
		wantError(t, "importing under a taken ID", err, hsm.ErrExists)
	}
}

// importable makes a key outside of every token.
func importable(t *testing.T, spec hsm.Spec) ([]byte, *private) {
	t.Helper()
	if spec.Algorithm.Secret() {
		b := make([]byte, spec.Algorithm.SecretBytes())
		rand.Read(b)
		return b, nil
	}
	f := NewFake(t, Options{})
	o := &object{Object: hsm.Object{Spec: spec}}
	if err := f.fill(o); err != nil {
		t.Fatal(err)
	}
	der, err := o.private.marshal()
	if err != nil {
		t.Fatal(err)
	}
	return der, o.private
}

// isImported uses the object in the token and the key outside, and compares.
func isImported(t *testing.T, tok Token, id hsm.ID, spec hsm.Spec, secret []byte, own *private) error {
	t.Helper()
	ctx := t.Context()
	there := NewFake(t, Options{})
	twin := hsm.NewID()
	there.objects[twin] = &object{Object: hsm.Object{ID: twin, Spec: spec}, secret: secret, private: own}
	switch {
	case spec.Algorithm == hsm.AES256:
		iv, sealed, err := tok.EncryptGCM(ctx, id, aad, text)
		if err != nil {
			return err
		}
		got, err := there.DecryptGCM(ctx, twin, iv, aad, sealed)
		return differs(got, text, err)
	case spec.Algorithm.Secret():
		got, err := tok.MAC(ctx, id, text)
		want, _ := there.MAC(ctx, twin, text)
		return differs(got, want, err)
	case spec.Usage == hsm.UsageSign:
		scheme := hsm.SignScheme{Padding: hsm.ECDSA, Hash: crypto.SHA256}
		if spec.Algorithm.ModulusBits() != 0 {
			scheme.Padding = hsm.PKCS1v15
		}
		digest := sha256.Sum256(text)
		signature, err := tok.Sign(ctx, id, scheme, digest[:])
		if err != nil {
			return err
		}
		public, err := spki.Marshal(own.public())
		if err != nil {
			return err
		}
		if !verifies(t, public, scheme, digest[:], signature) {
			return errors.New("the signature is of another key")
		}
		return nil
	case spec.Usage == hsm.UsageAgree:
		peer, err := ecPrivate(spec.Algorithm.Curve(), append(make([]byte, 31), 7))
		if err != nil {
			return err
		}
		point, err := peer.ec.PublicKey.Bytes()
		if err != nil {
			return err
		}
		got, err := tok.Agree(ctx, id, point)
		want, _ := there.Agree(ctx, twin, point)
		return differs(got, want, err)
	}
	sealed, err := rsa.EncryptOAEP(crypto.SHA256.New(), rand.Reader, &own.rsa.PublicKey, text, nil)
	if err != nil {
		return err
	}
	got, err := tok.DecryptOAEP(ctx, id, crypto.SHA256, sealed)
	return differs(got, text, err)
}

func differs(got, want []byte, err error) error {
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("got %x, want %x", got, want)
	}
	return nil
}

// suiteImportRefuses imports what does not fit, and expects that nothing is left behind.
func suiteImportRefuses(t *testing.T, h Harness) {
	ctx := t.Context()
	schemes := h.Source.Capabilities().ImportSchemes
	oaep, keyWrap := schemes[0], schemes[slices.IndexFunc(schemes, hsm.ImportScheme.KeyWrap)]
	importKey := importKeys(t, h.Source)
	ec256, ec384 := local(hsm.ECP256, hsm.UsageSign), local(hsm.ECP384, hsm.UsageSign)
	rsaSign := local(hsm.RSA2048, hsm.UsageSign)
	_, p384 := importable(t, ec384)
	p384DER, err := p384.marshal()
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024+512)
	if err != nil {
		t.Fatal(err)
	}
	smallDER, err := x509.MarshalPKCS8PrivateKey(small)
	if err != nil {
		t.Fatal(err)
	}
	rsaDER, _ := importable(t, rsaSign)
	for _, c := range []struct {
		name     string
		scheme   hsm.ImportScheme
		spec     hsm.Spec
		material []byte
	}{
		{"an AES-128 key", oaep, localAES, make([]byte, 16)},
		{"an AES-192 key", oaep, localAES, make([]byte, 24)},
		{"a byte less than AES-256", oaep, localAES, make([]byte, 31)},
		{"a byte more than AES-256", oaep, localAES, make([]byte, 33)},
		{"AES-128 under an AES key", keyWrap, localAES, make([]byte, 16)},
		{"a short MAC key", oaep, localMAC, make([]byte, 31)},
		{"a long MAC key", oaep, localMAC, make([]byte, 33)},
		{"a MAC key of another hash", oaep, local(hsm.HMACSHA512, ""), make([]byte, 48)},
		{"a key of 64 bytes for one of 48", oaep, local(hsm.HMACSHA384, ""), make([]byte, 64)},
		{"another curve", keyWrap, ec256, p384DER},
		{"RSA as a curve", keyWrap, ec256, rsaDER},
		{"a curve as RSA", keyWrap, rsaSign, p384DER},
		{"a short modulus", keyWrap, rsaSign, smallDER},
		{"bytes that are no PKCS #8", keyWrap, ec256, bytes.Repeat([]byte{0x30}, 64)},
		{"a PKCS #8 that is cut off", keyWrap, rsaSign, rsaDER[:len(rsaDER)/2/8*8]},
	} {
		wrapping, customer := importKey(c.scheme, c.spec)
		id := hsm.NewID()
		_, err := h.Source.ImportUnwrap(ctx, wrapping, c.spec, id, customer.wrap(t, c.material))
		wantError(t, c.name, err, hsm.ErrDataInvalid)
		if contains(h.Source, id) {
			t.Errorf("%s: refused, and yet made", c.name)
		}
	}
	wrapping, customer := importKey(oaep, localAES)
	stepped, stepCustomer := importKey(keyWrap, localAES)
	before := h.Source.Objects()
	good, twoParts := customer.wrap(t, make([]byte, 32)), stepCustomer.wrap(t, make([]byte, 32))
	damaged := func(b []byte, at int) []byte { b = bytes.Clone(b); b[at] ^= 1; return b }
	otherHash := customer
	otherHash.scheme = hsm.OAEPSHA256Import
	if oaep == otherHash.scheme {
		otherHash.scheme = hsm.OAEPSHA1Import
	}
	for _, c := range []struct {
		name     string
		wrapping hsm.ID
		spec     hsm.Spec
		blob     []byte
		want     error
	}{
		{"nothing", wrapping, localAES, nil, hsm.ErrDataInvalid},
		{"a byte less", wrapping, localAES, good[1:], hsm.ErrDataInvalid},
		{"a byte more", wrapping, localAES, append(bytes.Clone(good), 0), hsm.ErrDataInvalid},
		{"a flipped bit", wrapping, localAES, damaged(good, 200), hsm.ErrDataInvalid},
		{"another hash", wrapping, localAES, otherHash.wrap(t, make([]byte, 32)), hsm.ErrDataInvalid},
		{"another wrapping key", wrapping, localAES, twoParts[:256], hsm.ErrDataInvalid},
		{"the first part damaged", stepped, localAES, damaged(twoParts, 200), hsm.ErrDataInvalid},
		{"the second part damaged", stepped, localAES, damaged(twoParts, 270), hsm.ErrDataInvalid},
		{"the first part alone", stepped, localAES, twoParts[:256], hsm.ErrDataInvalid},
		{"as another role", wrapping, sharedAES, good, hsm.ErrCaller},
		{"as another kind", wrapping, localMAC, good, hsm.ErrCaller},
		{"with material", before[0].ID, localAES, good, hsm.ErrCaller},
		{"with nothing", hsm.NewID(), localAES, good, hsm.ErrNotFound},
		{"with a transport key", h.Transport[hsm.ClassAES].Source, localAES, good, hsm.ErrCaller},
	} {
		if c.wrapping == before[0].ID && before[0].Spec.Role == hsm.RoleImportWrapping {
			continue
		}
		id := hsm.NewID()
		_, err := h.Source.ImportUnwrap(ctx, c.wrapping, c.spec, id, c.blob)
		wantError(t, c.name, err, c.want)
	}
	if err := h.Source.Rescan(ctx); err != nil {
		t.Fatal(err)
	}
	if after := h.Source.Objects(); !slices.Equal(before, after) || len(h.Source.Quarantined()) != 0 {
		t.Errorf("%d objects before refused imports, %d after, in quarantine %+v", len(before), len(after), h.Source.Quarantined())
	}
	for _, spec := range []hsm.Spec{
		{Role: hsm.RoleImportWrapping, Algorithm: hsm.RSA2048},
		importSpec("RSAES_PKCS1_V1_5", localAES),
		importSpec(oaep, seal),
		importSpec(oaep, hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.ECP256}),
		importSpec(oaep, rsaSign), // too long for RSA-OAEP
		localAES,
	} {
		id := hsm.NewID()
		_, err := h.Source.GenerateImportKey(ctx, spec, id)
		wantError(t, fmt.Sprintf("an import key for %+v", spec), err, hsm.ErrCaller)
		if contains(h.Source, id) {
			t.Errorf("%+v was refused and yet made", spec)
		}
	}
	_, err = h.Source.Generate(ctx, importSpec(oaep, localAES), hsm.NewID())
	wantError(t, "an import key by Generate", err, hsm.ErrCaller)
}
