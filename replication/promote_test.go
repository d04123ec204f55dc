package replication_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/region"
)

// The primary Region is dark, another one is promoted and works, and the old one is fenced at
// first contact and catches up: what was encrypted on either side opens everywhere.
func TestForcedPromotion(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	a, b, c := sites[0], sites[1], sites[2]
	id := a.createSymmetric()
	a.mustReplicate(id, b, c)
	a.synchronized(id, b, c)
	seal := func(s *site, text string) []byte {
		t.Helper()
		out, err := s.region.Encrypt(context.Background(), keyopstest.Admin(), keyops.EncryptInput{KeyID: string(id), Plaintext: []byte(text)})
		if err != nil {
			t.Fatal(err)
		}
		return out.CiphertextBlob
	}
	before := seal(a, "before")
	a.stop()
	b.region.Promote(t, []region.Name{paris}, id)
	led(t, id, b, b, c)
	eventually(t, "a rotation without the dark Region", func() (bool, string) {
		_, err := b.region.RotateKeyOnDemand(context.Background(), keyopstest.Admin(), keyops.RotateKeyOnDemandInput{KeyID: string(id)})
		if err != nil {
			return false, err.Error()
		}
		return true, ""
	})
	first := b.material(before)
	eventually(t, "new material", func() (bool, string) {
		now := c.describe(id).CurrentKeyMaterialID
		return now != first, now
	})
	meanwhile := seal(c, "meanwhile")

	a.start()
	led(t, id, b, sites...)
	b.synchronized(id, a, c)
	if k, err := a.region.SharedKey(id); err != nil || k.Set.Acting() {
		t.Errorf("the old primary Region acts: %v", err)
	}
	after := seal(a, "after")
	for _, s := range sites {
		for text, blob := range map[string][]byte{"before": before, "meanwhile": meanwhile, "after": after} {
			out, err := s.region.Decrypt(context.Background(), keyopstest.Admin(), keyops.DecryptInput{CiphertextBlob: blob})
			if err != nil || !bytes.Equal(out.Plaintext, []byte(text)) {
				t.Errorf("%s does not open what was encrypted %s: %v", s.name(), text, err)
			}
		}
		s.noAlarms()
	}
}

// material returns the ID of the material that a ciphertext names, as the token finds it.
func (s *site) material(blob []byte) string {
	s.t.Helper()
	out, err := s.region.Decrypt(context.Background(), keyopstest.Admin(), keyops.DecryptInput{CiphertextBlob: blob})
	if err != nil {
		s.t.Fatal(err)
	}
	return out.KeyMaterialID
}

// Two Regions are promoted at once, apart from each other: when they meet they agree on one of
// them, and nothing that either encrypted is lost.
func TestTwoForcedPromotions(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	a, b, c := sites[0], sites[1], sites[2]
	id := a.createSymmetric()
	a.mustReplicate(id, b, c)
	a.synchronized(id, b, c)
	var blobs [][]byte
	for _, s := range []*site{b, c} { // one at a time, so that neither hears of the other
		for _, other := range sites {
			if other != s && other.repl != nil {
				other.stop()
			}
		}
		if s.repl == nil {
			s.start()
		}
		var dark []region.Name
		for _, other := range sites {
			if other != s {
				dark = append(dark, other.name())
			}
		}
		s.region.Promote(t, dark, id)
		if _, err := s.region.RotateKeyOnDemand(context.Background(), keyopstest.Admin(), keyops.RotateKeyOnDemandInput{KeyID: string(id), AcceptAlone: true}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "released alone", func() (bool, string) {
			k, err := s.region.SharedKey(id)
			return err == nil && k.Set.Pending().IsZero(), "pending"
		})
		out, err := s.region.Encrypt(context.Background(), keyopstest.Admin(), keyops.EncryptInput{KeyID: string(id), Plaintext: []byte("p")})
		if err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, out.CiphertextBlob)
	}
	for _, s := range sites {
		if s.repl == nil {
			s.start()
		}
	}
	leader := b // lines of one generation are ordered by Region
	if tokyo > east {
		leader = c
	}
	led(t, id, leader, sites...)
	leader.synchronized(id, sites...)
	for _, s := range sites {
		for i, blob := range blobs {
			eventually(t, "what both encrypted opens everywhere", func() (bool, string) {
				out, err := s.region.Decrypt(context.Background(), keyopstest.Admin(), keyops.DecryptInput{CiphertextBlob: blob})
				return err == nil && string(out.Plaintext) == "p", string(s.name()) + " " + string(rune('0'+i))
			})
		}
	}
}
