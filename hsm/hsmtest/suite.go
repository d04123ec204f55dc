package hsmtest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/elliptic"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/hsm"
)

// Harness is two tokens that transport keys lead between, from source to destination.
type Harness struct {
	Source, Destination Token
	Transport           map[hsm.Class]Transport
}

// Suite checks that tokens keep the contract of [Token]. open is called once for each part
// and may return the same tokens; the suite destroys what it makes and expects to share the
// tokens with nobody while it runs.
func Suite(t *testing.T, open func(t *testing.T) Harness) {
	for _, part := range []struct {
		name string
		run  func(t *testing.T, h Harness)
	}{
		{"Generate", suiteGenerate},
		{"Destroy", suiteDestroy},
		{"Lookup", suiteLookup},
		{"GCM", suiteGCM},
		{"GCMRefuses", suiteGCMRefuses},
		{"Blocks", suiteBlocks},
		{"MAC", suiteMAC},
		{"Sign", suiteSign},
		{"OAEP", suiteOAEP},
		{"Agree", suiteAgree},
		{"Signer", suiteSigner},
		{"SelfTest", suiteSelfTest},
		{"Random", suiteRandom},
		{"Roles", suiteRoles},
		{"Transport", suiteTransport},
		{"TransportRefuses", suiteTransportRefuses},
		{"TransportDamaged", suiteTransportDamaged},
		{"Import", suiteImport},
		{"ImportRefuses", suiteImportRefuses},
		{"Context", suiteContext},
		{"Concurrent", suiteConcurrent},
		{"Calls", suiteCalls},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, open(t)) })
	}
}

// Specs that every token of this project can do.
var (
	localAES  = hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.AES256, Name: "suite"}
	sharedAES = hsm.Spec{Role: hsm.RoleSharedMaterial, Algorithm: hsm.AES256, Name: "suite"}
	localMAC  = hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.HMACSHA256, Name: "suite"}
	sharedMAC = hsm.Spec{Role: hsm.RoleSharedMaterial, Algorithm: hsm.HMACSHA256, Name: "suite"}
	seal      = hsm.Spec{Role: hsm.RoleSeal, Algorithm: hsm.HMACSHA256, Name: "suite"}
	localEC   = hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.ECP384, Usage: hsm.UsageSign, Name: "suite"}
	sharedEC  = hsm.Spec{Role: hsm.RoleSharedMaterial, Algorithm: hsm.ECP256, Usage: hsm.UsageSign, Name: "suite"}
	sharedEC3 = hsm.Spec{Role: hsm.RoleSharedMaterial, Algorithm: hsm.ECP384, Usage: hsm.UsageSign, Name: "suite"}
	region    = hsm.Spec{Role: hsm.RoleRegionSigning, Algorithm: hsm.ECP384, Usage: hsm.UsageSign, Name: "suite"}

	// sharedSpecs is one multi-Region material of each class.
	sharedSpecs = map[hsm.Class]hsm.Spec{
		hsm.ClassAES:        sharedAES,
		hsm.ClassMAC224:     shared(hsm.HMACSHA224, hsm.UsageNone),
		hsm.ClassMAC256:     sharedMAC,
		hsm.ClassMAC384:     shared(hsm.HMACSHA384, hsm.UsageNone),
		hsm.ClassMAC512:     shared(hsm.HMACSHA512, hsm.UsageNone),
		hsm.ClassECSign:     sharedEC,
		hsm.ClassECAgree:    shared(hsm.ECP256, hsm.UsageAgree),
		hsm.ClassRSASign:    shared(hsm.RSA2048, hsm.UsageSign),
		hsm.ClassRSADecrypt: shared(hsm.RSA2048, hsm.UsageDecrypt),
	}

	everySpec = []hsm.Spec{localAES, sharedAES, localMAC, sharedMAC, seal, localEC, sharedEC, sharedEC3, region,
		local(hsm.HMACSHA224, ""), shared(hsm.HMACSHA384, ""), local(hsm.HMACSHA512, ""),
		local(hsm.ECP521, hsm.UsageSign), shared(hsm.ECSecp256k1, hsm.UsageSign), local(hsm.ECP384, hsm.UsageAgree),
		local(hsm.RSA2048, hsm.UsageSign), shared(hsm.RSA2048, hsm.UsageDecrypt)}
	aad = []byte("additional data")
)

func shared(a hsm.Algorithm, u hsm.Usage) hsm.Spec {
	return hsm.Spec{Role: hsm.RoleSharedMaterial, Algorithm: a, Usage: u, Name: "suite"}
}

// generate makes an object for the duration of the test.
func generate(t *testing.T, tok Token, spec hsm.Spec) (hsm.ID, []byte) {
	t.Helper()
	id := hsm.NewID()
	spki, err := tok.Generate(t.Context(), spec, id)
	if err != nil {
		t.Fatalf("generating %+v: %v", spec, err)
	}
	destroyAfter(t, tok, id)
	return id, spki
}

func destroyAfter(t *testing.T, tok Token, id hsm.ID) {
	t.Cleanup(func() {
		if err := tok.Destroy(context.Background(), id); err != nil {
			t.Errorf("destroying %s: %v", id, err)
		}
	})
}

// wantError fails the test unless err is want.
func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func suiteGenerate(t *testing.T, h Harness) {
	for _, spec := range everySpec {
		id, spki := generate(t, h.Source, spec)
		if pair := !spec.Algorithm.Secret(); pair != (spki != nil) {
			t.Errorf("%s %s: SPKI of %d bytes", spec.Role, spec.Algorithm, len(spki))
		}
		shared := spec.Role == hsm.RoleSharedMaterial
		want := hsm.Object{ID: id, Spec: spec, Local: true, AlwaysSensitive: true, Extractable: shared, WrapWithTrusted: shared}
		if got, err := h.Source.Present(t.Context(), id); err != nil || got != want {
			t.Errorf("%s: present is %+v, %v; want %+v", want.Spec, got, err, want)
		}
		if got, err := h.Source.Lookup(t.Context(), id); err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
		_, err := h.Source.Generate(t.Context(), spec, id)
		wantError(t, "the same ID again", err, hsm.ErrExists)
	}
	for _, spec := range []hsm.Spec{
		{},
		{Role: hsm.RoleMaterial, Algorithm: "AES_64"},
		{Role: "other", Algorithm: hsm.AES256},
		{Role: hsm.RoleMaterial, Algorithm: hsm.AES256, Usage: hsm.UsageSign},
		{Role: hsm.RoleMaterial, Algorithm: hsm.ECP256},
		{Role: hsm.RoleMaterial, Algorithm: hsm.AES256, Class: hsm.ClassAES},
		{Role: hsm.RoleMaterial, Algorithm: hsm.AES256, Name: "two words"},
		{Role: hsm.RoleSeal, Algorithm: hsm.AES256},
		{Role: hsm.RoleRegionSigning, Algorithm: hsm.ECP256, Usage: hsm.UsageSign},
		{Role: hsm.RoleTransportSource, Algorithm: hsm.AES256, Class: hsm.ClassAES},
		{Role: hsm.RoleTransportDestination, Algorithm: hsm.AES256, Class: hsm.ClassAES},
		{Role: hsm.RoleEstablishment, Algorithm: hsm.RSA3072},
	} {
		id := hsm.NewID()
		_, err := h.Source.Generate(t.Context(), spec, id)
		wantError(t, "generating an invalid spec", err, hsm.ErrCaller)
		if contains(h.Source, id) {
			t.Errorf("%+v was refused and yet made", spec)
		}
	}
}

func contains(tok Token, id hsm.ID) bool {
	return slices.ContainsFunc(tok.Objects(), func(o hsm.Object) bool { return o.ID == id })
}

func suiteDestroy(t *testing.T, h Harness) {
	id := hsm.NewID()
	if _, err := h.Source.Generate(t.Context(), sharedAES, id); err != nil {
		t.Fatal(err)
	}
	if !contains(h.Source, id) {
		t.Error("a new object is not listed")
	}
	for range 2 { // the second time there is nothing to destroy
		if err := h.Source.Destroy(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if contains(h.Source, id) {
		t.Error("a destroyed object is listed")
	}
	_, err := h.Source.Lookup(t.Context(), id)
	wantError(t, "looking up a destroyed object", err, hsm.ErrNotFound)
	_, err = h.Source.Present(t.Context(), id)
	wantError(t, "asking for a destroyed object", err, hsm.ErrNotFound)
	_, _, err = h.Source.EncryptGCM(t.Context(), id, aad, nil)
	wantError(t, "encrypting with a destroyed object", err, hsm.ErrNotFound)
}

func suiteLookup(t *testing.T, h Harness) {
	_, err := h.Source.Lookup(t.Context(), hsm.NewID())
	wantError(t, "unknown ID", err, hsm.ErrNotFound)
	id, _ := generate(t, h.Source, sharedMAC)
	before := h.Source.Objects()
	if err := h.Source.Rescan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := h.Source.Objects(); !slices.Equal(before, after) {
		t.Errorf("after a rescan the token has %+v, before %+v", after, before)
	}
	if !contains(h.Source, id) {
		t.Error("the object was lost in the rescan")
	}
	if q := h.Source.Quarantined(); len(q) != 0 {
		t.Errorf("in quarantine: %+v", q)
	}
	if i := h.Source.Info(); i.Serial == "" || i.Label == "" || i.Serial == h.Destination.Info().Serial {
		t.Errorf("tokens %+v and %+v: want labels, and serial numbers that differ", i, h.Destination.Info())
	}
	if err := h.Source.Health(t.Context()); err != nil {
		t.Errorf("health: %v", err)
	}
}

// generator is a curve's base point, uncompressed.
func generator(c elliptic.Curve) []byte {
	p := c.Params()
	n := (p.BitSize + 7) / 8
	b := append([]byte{4}, make([]byte, 2*n)...)
	p.Gx.FillBytes(b[1 : 1+n])
	p.Gy.FillBytes(b[1+n:])
	return b
}

func suiteSelfTest(t *testing.T, h Harness) {
	before := h.Source.Objects()
	report, err := h.Source.SelfTest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Err(); err != nil {
		t.Errorf("self-test: %v", err)
	}
	c := h.Source.Capabilities()
	if c.Boundary != report.Boundary || report.Boundary == hsm.BoundaryNone {
		t.Errorf("boundary %q reported and %q in the capabilities", report.Boundary, c.Boundary)
	}
	for _, spec := range everySpec {
		if k := c.Of(spec.Algorithm, spec.Usage); !k.Generate || !k.Use || !k.Wrap || k.Limit != "" {
			t.Errorf("capability %+v: want all", k)
		}
	}
	if k := c.Of("ED25519", hsm.UsageSign); k.Generate || k.Use || k.Wrap || k.Limit == "" {
		t.Errorf("capability %+v of an unknown algorithm", k)
	}
	if err := h.Source.Rescan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := h.Source.Objects(); !slices.Equal(before, after) {
		t.Errorf("after the self-test the token has %+v, before %+v", after, before)
	}
}

func suiteRandom(t *testing.T, h Harness) {
	var seen [][]byte
	for _, n := range []int{16, 32, hsm.MaxRandom} {
		for range 3 {
			b, err := h.Source.Random(t.Context(), n)
			if err != nil || len(b) != n {
				t.Fatalf("%d random bytes: got %d, %v", n, len(b), err)
			}
			for _, other := range seen {
				if bytes.Equal(other[:16], b[:16]) {
					t.Error("the same random bytes twice")
				}
			}
			seen = append(seen, b)
		}
	}
	for _, n := range []int{-1, 0, hsm.MaxRandom + 1} {
		_, err := h.Source.Random(t.Context(), n)
		wantError(t, "random bytes out of range", err, hsm.ErrCaller)
	}
}

// suiteRoles tries every use on every role and expects just what the table allows.
func suiteRoles(t *testing.T, h Harness) {
	allowed := map[hsm.Spec]string{
		localAES: "gcm blocks", sharedAES: "gcm blocks",
		localMAC: "mac", sharedMAC: "mac", seal: "mac",
		localEC: "sign", sharedEC3: "sign", region: "sign",
		local(hsm.ECP384, hsm.UsageAgree): "agree",
		local(hsm.RSA2048, hsm.UsageSign): "rsasig", local(hsm.RSA2048, hsm.UsageDecrypt): "oaep",
	}
	ids := map[hsm.ID]string{}
	for spec, uses := range allowed {
		id, _ := generate(t, h.Source, spec)
		ids[id] = uses
	}
	for _, keys := range h.Transport {
		ids[keys.Source] = "" // wraps, and that is all
	}
	for id, uses := range ids {
		ctx := t.Context()
		o, err := h.Source.Lookup(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		_, _, gcm := h.Source.EncryptGCM(ctx, id, aad, []byte("x"))
		_, open := h.Source.DecryptGCM(ctx, id, make([]byte, 12), aad, make([]byte, 32))
		_, blocks := h.Source.EncryptBlocks(ctx, id, make([]byte, 32))
		_, mac := h.Source.MAC(ctx, id, []byte("x"))
		_, sign := h.Source.Sign(ctx, id, hsm.RegionScheme, make([]byte, 48))
		_, rsasig := h.Source.Sign(ctx, id, hsm.SignScheme{Padding: hsm.PKCS1v15, Hash: crypto.SHA256}, make([]byte, 32))
		_, oaep := h.Source.DecryptOAEP(ctx, id, crypto.SHA1, make([]byte, 256))
		if errors.Is(oaep, hsm.ErrDataInvalid) { // zeros are no ciphertext, and the key was asked
			oaep = nil
		}
		_, agree := h.Source.Agree(ctx, id, generator(hsm.ECP384.Curve()))
		_, imp := h.Source.ImportUnwrap(ctx, id, localAES, hsm.NewID(), make([]byte, 256))
		for use, err := range map[string]error{"gcm": gcm, "blocks": blocks, "mac": mac, "sign": sign, "rsasig": rsasig, "oaep": oaep, "agree": agree, "import": imp} {
			if slices.Contains(strings.Fields(uses), use) {
				if err != nil {
					t.Errorf("%s with role %s, %s: %v", use, o.Spec.Role, o.Spec.Algorithm, err)
				}
				continue
			}
			wantError(t, use+" with role "+string(o.Spec.Role)+", "+string(o.Spec.Algorithm), err, hsm.ErrCaller)
		}
		if want := hsm.ErrCaller; strings.Contains(uses, "gcm") {
			wantError(t, "opening garbage", open, hsm.ErrDataInvalid)
		} else {
			wantError(t, "decrypting with role "+string(o.Spec.Role), open, want)
		}
	}
}
