package hsm_test

import (
	"crypto"
	"crypto/rsa"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/spki"
)

// The longest key there is goes from token to token and signs there. The suite has the
// other lengths of RSA from 2048, which takes a tenth of the time to make.
func TestLongestKeyTravels(t *testing.T) {
	s, d := open(t, source), open(t, destination)
	ctx := t.Context()
	spec := hsm.Spec{Role: hsm.RoleSharedMaterial, Algorithm: hsm.RSA4096, Usage: hsm.UsageSign, Name: "longest"}
	here, der := generate(t, s, spec)
	keys := transport[hsm.ClassRSASign]
	wrapped, err := s.Wrap(ctx, keys.Source, here)
	if err != nil {
		t.Fatal(err)
	}
	short := spec
	short.Algorithm = hsm.RSA3072
	if err := d.Unwrap(ctx, keys.Destination, short, hsm.NewID(), wrapped); err == nil {
		t.Error("an RSA-4096 key was taken for RSA-3072")
	}
	there := hsm.NewID()
	if err := d.Unwrap(ctx, keys.Destination, spec, there, wrapped); err != nil {
		t.Fatal(err)
	}
	destroyAfter(t, d, there)
	digest := make([]byte, 64)
	signature, err := d.Sign(ctx, there, hsm.SignScheme{Padding: hsm.PSS, Hash: crypto.SHA512}, digest)
	if err != nil {
		t.Fatal(err)
	}
	public, err := spki.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := rsa.VerifyPSS(public.(*rsa.PublicKey), crypto.SHA512, digest, signature, nil); err != nil {
		t.Errorf("%d bytes wrapped: %v", len(wrapped), err)
	}
}
