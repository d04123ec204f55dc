package keyops_test

import (
	"errors"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// TestSpecsThatNoTokenHas are known by name and refused with the limit.
func TestSpecsThatNoTokenHas(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	objects := len(r.Fake.Objects())
	for spec, part := range map[keyops.KeySpec]string{
		"ECC_NIST_EDWARDS25519": "EdDSA", "ML_DSA_44": "ML-DSA", "ML_DSA_65": "ML-DSA", "ML_DSA_87": "ML-DSA", "SM2": "SM2",
	} {
		for _, usage := range []keyops.KeyUsage{"", keyops.SignVerify} {
			_, err := r.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{KeySpec: spec, KeyUsage: usage})
			want(t, err, keyops.ErrUnsupportedOperation, "This Region's token cannot hold "+string(spec)+" keys: ")
			want(t, err, keyops.ErrUnsupportedOperation, part)
		}
	}
	if n := len(r.Fake.Objects()); n != objects {
		t.Errorf("refused calls left %d objects", n-objects)
	}
}

// TestUsagesOfSpecs tries every usage with every spec: AWS has this table.
func TestUsagesOfSpecs(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	has := map[keyops.KeySpec][]keyops.KeyUsage{keyops.ECCSECGP256K1: {keyops.SignVerify}}
	for _, f := range families {
		if f.spec != keyops.ECCSECGP256K1 {
			has[f.spec] = append(has[f.spec], f.usage)
		}
	}
	if len(has) != 12 {
		t.Fatalf("%d specs", len(has))
	}
	for spec, usages := range has {
		for _, usage := range []keyops.KeyUsage{keyops.EncryptDecrypt, keyops.SignVerify, keyops.GenerateVerifyMac, keyops.KeyAgreement, "WRAP"} {
			fits := false
			for _, u := range usages {
				fits = fits || u == usage
			}
			if fits {
				continue // families_test.go creates them
			}
			_, err := r.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{KeySpec: spec, KeyUsage: usage})
			want(t, err, keyops.ErrValidation, "KeyUsage "+string(usage)+" is not compatible with KeySpec "+string(spec))
		}
		if spec != keyops.SymmetricDefault {
			_, err := r.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{KeySpec: spec})
			want(t, err, keyops.ErrValidation, "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.")
		}
	}
}

// TestSpecsThatThisTokenLacks: a token that cannot hold, or cannot pass on, a kind of key is
// asked for none, and the region says why.
func TestSpecsThatThisTokenLacks(t *testing.T) {
	fake := hsmtest.NewFake(t, hsmtest.Options{Algorithms: []hsm.Algorithm{hsm.AES256, hsm.HMACSHA256, hsm.ECP256, hsm.ECP384}})
	r := keyopstest.New(t, keyopstest.Options{Token: fake})
	for _, spec := range []keyops.KeySpec{keyops.RSA2048, keyops.ECCNISTP521, keyops.ECCSECGP256K1} {
		_, err := r.CreateKey(t.Context(), admin(), keyops.CreateKeyInput{KeySpec: spec, KeyUsage: keyops.SignVerify})
		want(t, err, keyops.ErrUnsupportedOperation, "This Region's token cannot hold "+string(spec)+" keys: ")
	}
	out, err := r.DescribeRegion(t.Context(), admin(), keyops.DescribeRegionInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range out.KeySpecs {
		switch s.KeySpec {
		case keyops.SymmetricDefault, keyops.HMAC256, keyops.ECCNISTP256, keyops.ECCNISTP384:
			if !s.Supported {
				t.Errorf("%+v", s)
			}
		default:
			if s.Supported || s.Reason == "" {
				t.Errorf("%+v", s)
			}
		}
	}
}

// TestPublicKeysOfOthers: an object proves that it is the other half of its public key, in
// each usage, and a public key of another kind is not even tried.
func TestPublicKeysOfOthers(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	public := func(k keyops.KeyMetadata) []byte {
		out, err := r.GetPublicKey(t.Context(), admin(), keyops.GetPublicKeyInput{KeyID: k.ARN})
		if err != nil {
			t.Fatal(explain(err))
		}
		return out.PublicKey
	}
	another := map[string][]byte{
		"P-384":   public(create(t, r, keyops.CreateKeyInput{KeySpec: keyops.ECCNISTP384, KeyUsage: keyops.SignVerify})),
		"RSA":     public(create(t, r, keyops.CreateKeyInput{KeySpec: keyops.RSA3072, KeyUsage: keyops.SignVerify})),
		"garbage": x, "nothing": nil,
	}
	for _, in := range []keyops.CreateKeyInput{
		{KeySpec: keyops.RSA2048, KeyUsage: keyops.EncryptDecrypt},
		{KeySpec: keyops.RSA2048, KeyUsage: keyops.SignVerify},
		{KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.SignVerify},
		{KeySpec: keyops.ECCSECGP256K1, KeyUsage: keyops.SignVerify},
		{KeySpec: keyops.ECCNISTP256, KeyUsage: keyops.KeyAgreement},
		{KeySpec: keyops.ECCNISTP521, KeyUsage: keyops.KeyAgreement},
	} {
		t.Run(string(in.KeySpec)+" "+string(in.KeyUsage), func(t *testing.T) {
			k, sister := create(t, r, in), create(t, r, in)
			own := public(k)
			first, err := r.Identify(t.Context(), k.KeyID, own)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := r.Identify(t.Context(), k.KeyID, own); err != nil || again != first {
				t.Errorf("%s, then %s, %v", first, again, err)
			}
			if id, err := r.Identify(t.Context(), k.KeyID, public(sister)); !errors.Is(err, keyops.ErrNotOurs) {
				t.Errorf("a sister's public key: %s, %v", id, err)
			}
			calls := r.TokenCalls(t)
			for name, der := range another {
				if id, err := r.Identify(t.Context(), k.KeyID, der); !errors.Is(err, keyops.ErrNotOurs) {
					t.Errorf("%s: %s, %v", name, id, err)
				}
			}
			for f, n := range r.Fake.Calls() {
				if n != calls[f] {
					t.Errorf("%s was called for a key of another kind", f)
				}
			}
		})
	}
}
