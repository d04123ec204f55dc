package replication_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// imports wraps material as its owner does, and imports it.
func (s *site) imports(id arn.KeyID, secret []byte, as keyops.ImportType) (material string, err error) {
	s.t.Helper()
	p, err := s.region.GetParametersForImport(s.t.Context(), keyopstest.Admin(), keyops.GetParametersForImportInput{
		KeyID: string(id), WrappingAlgorithm: keyops.WrapOAEPSHA1, WrappingKeySpec: keyops.WrappingRSA2048,
	})
	if err != nil {
		return "", err
	}
	public, err := x509.ParsePKIXPublicKey(p.PublicKey)
	if err != nil {
		s.t.Fatal(err)
	}
	wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, public.(*rsa.PublicKey), secret, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := s.region.ImportKeyMaterial(s.t.Context(), keyopstest.Admin(), keyops.ImportKeyMaterialInput{
		KeyID: string(id), ImportToken: p.ImportToken, EncryptedKeyMaterial: wrapped, ImportType: as, ExpirationModel: keyops.MaterialDoesNotExpire,
	})
	return out.KeyMaterialID, err
}

func (s *site) mustImport(id arn.KeyID, secret []byte, as keyops.ImportType) string {
	s.t.Helper()
	m, err := s.imports(id, secret, as)
	if err != nil {
		s.t.Fatalf("%s: %v", s.name(), err)
	}
	return m
}

// inState waits until the key is in a state.
func (s *site) inState(id arn.KeyID, state string) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("the key in %s %s", s.name(), state), func() (bool, string) {
		k, err := s.region.SharedKey(id)
		return err == nil && string(k.State) == state, fmt.Sprint(err)
	})
}

// A key of origin EXTERNAL between two SoftHSM tokens: its owner imports the same bytes in each
// Region, none travel, and other bytes are refused; new material waits for both, and for the
// owner's word.
func TestImportedKeyInTwoRegions(t *testing.T) {
	sites := realSites(t, nil)
	a, b := sites[0], sites[1]
	out, err := a.region.CreateKey(t.Context(), keyopstest.Admin(), keyops.CreateKeyInput{MultiRegion: true, Origin: keyops.OriginExternal})
	if err != nil {
		t.Fatal(err)
	}
	id := out.KeyMetadata.KeyID
	wraps, unwraps := counts(a, "C_WrapKey"), counts(b, "C_WrapKey")
	first, second := randomBytes(32), randomBytes(32)
	material := a.mustImport(id, first, "")
	a.mustReplicate(id, b)
	b.inState(id, "PendingImport")
	if _, err := b.imports(id, second, ""); !errors.Is(err, keyops.ErrIncorrectKeyMaterial) {
		t.Errorf("other bytes: %v", err)
	}
	if got := b.mustImport(id, first, ""); got != material {
		t.Errorf("the same bytes are %s in one Region and %s in the other", material, got)
	}
	a.synchronized(id, b)
	v := vault{t: t}
	for i, s := range sites {
		v.put(s, id)
		v.open(sites[1-i], i)
	}

	pending := a.mustImport(id, second, keyops.NewKeyMaterial)
	status := func(s *site) string {
		out, err := s.region.ListKeyRotations(t.Context(), keyopstest.Admin(), keyops.ListKeyRotationsInput{KeyID: string(id), IncludeKeyMaterial: keyops.AllKeyMaterial})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range out.Rotations {
			if e.KeyMaterialID == pending {
				return string(e.KeyMaterialState)
			}
		}
		return ""
	}
	if got := status(a); got != string(keyops.MaterialPendingMultiRegionImportRotation) {
		t.Errorf("the new material is %s", got)
	}
	if err := a.rotateOnDemand(id); !errors.Is(err, keyops.ErrInvalidState) {
		t.Errorf("rotating before the other Region has the material: %v", err)
	}
	eventually(t, "the new material known at the replica", func() (bool, string) { got := status(b); return got != "", got })
	if _, err := b.imports(id, randomBytes(32), ""); !errors.Is(err, keyops.ErrIncorrectKeyMaterial) {
		t.Errorf("bytes that nobody knows: %v", err)
	}
	if got := b.mustImport(id, second, ""); got != pending {
		t.Errorf("imported %s, want %s", got, pending)
	}
	eventually(t, "the primary Region hears of the import", func() (bool, string) {
		got := status(a)
		return got == string(keyops.MaterialPendingRotation), got
	})
	for _, s := range sites {
		if got := v.put(s, id).KeyMaterialID; got != material {
			t.Errorf("%s encrypts with new material before its owner has said so", s.name())
		}
	}
	if err := a.rotateOnDemand(id); err != nil {
		t.Fatal(err)
	}
	rotated(t, id, material, sites...)
	for _, s := range sites {
		v.put(s, id)
	}
	for _, s := range sites {
		v.open(s, 0)
		s.noAlarms()
	}
	if n := counts(a, "C_WrapKey") - wraps + counts(b, "C_WrapKey") - unwraps; n != 0 {
		t.Errorf("%d C_WrapKey: imported material is to stay in its token", n)
	}
}

// A replica key of origin EXTERNAL whose Region has lost its store is made again by the word of
// the others, asks for the same bytes, and is open to nobody before a policy is put.
func TestImportedKeyIsMadeAgain(t *testing.T) {
	sites := deploy(t, paris, east)
	a, b := sites[0], sites[1]
	b.stop()
	old, err := os.ReadFile(b.region.StorePath)
	if err != nil {
		t.Fatal(err)
	}
	b.start()
	out, err := a.region.CreateKey(t.Context(), keyopstest.Admin(), keyops.CreateKeyInput{MultiRegion: true, Origin: keyops.OriginExternal})
	if err != nil {
		t.Fatal(err)
	}
	id, secret := out.KeyMetadata.KeyID, randomBytes(32)
	material := a.mustImport(id, secret, "")
	a.mustReplicate(id, b)
	b.inState(id, "PendingImport")
	b.mustImport(id, secret, "")
	a.synchronized(id, b)
	v := vault{t: t}
	v.put(b, id)

	b.stop()
	b.putStore(old)
	b.region.Believe(t)
	b.start()
	eventually(t, "the key made again", func() (bool, string) {
		k, err := b.region.SharedKey(id)
		return err == nil && k.PolicyLost(), fmt.Sprint(err)
	})
	if _, err := b.imports(id, secret, ""); !errors.Is(err, keyops.ErrAccessDenied) {
		t.Errorf("importing before a policy is put: %v", err)
	}
	open := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + string(keyopstest.Account) + `"},"Action":"kms:*","Resource":"*"}]}`
	if _, err := b.region.PutKeyPolicy(t.Context(), keyopstest.Admin(), keyops.PutKeyPolicyInput{KeyID: string(id), Policy: open}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.imports(id, randomBytes(32), ""); !errors.Is(err, keyops.ErrIncorrectKeyMaterial) {
		t.Errorf("other bytes: %v", err)
	}
	if got := b.mustImport(id, secret, ""); got != material {
		t.Errorf("the same bytes are %s now, and were %s", got, material)
	}
	if b.describe(id).KeyState == "Disabled" {
		if _, err := b.region.EnableKey(t.Context(), keyopstest.Admin(), keyops.EnableKeyInput{KeyID: string(id)}); err != nil {
			t.Fatal(err)
		}
	}
	a.synchronized(id, b)
	v.put(b, id)
	for _, s := range sites {
		v.open(s, 0)
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
