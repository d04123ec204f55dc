package hsm_test

import (
	"errors"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// Both ends prove that they hold the same key, without a word about the key itself.
func TestProof(t *testing.T) {
	s, d := ceremonies(t)
	for _, class := range hsm.Classes {
		keys := transport[class]
		proof, err := s.MakeProof(class, keys.Source)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.CheckProof(class, keys.Destination, proof); err != nil {
			t.Errorf("class %s: %v", class, err)
		}
		for _, other := range hsm.Classes {
			if other != class {
				if err := d.CheckProof(class, transport[other].Destination, proof); err == nil {
					t.Errorf("a key of class %s was proven by one of class %s", other, class)
				}
			}
		}
		changed := proof
		changed.Answer = append([]byte(nil), proof.Answer...)
		changed.Answer[len(changed.Answer)-1] ^= 1
		if err := d.CheckProof(class, keys.Destination, changed); !errors.Is(err, hsm.ErrDataInvalid) {
			t.Errorf("class %s, another answer: got %v, want ErrDataInvalid", class, err)
		}
		changed = proof
		changed.Wrapped = append([]byte(nil), proof.Wrapped...)
		changed.Wrapped[0] ^= 1
		if err := d.CheckProof(class, keys.Destination, changed); !errors.Is(err, hsm.ErrDataInvalid) {
			t.Errorf("class %s, another blob: got %v, want ErrDataInvalid", class, err)
		}
	}
}

func TestPowersAreOfTransportKeysOnly(t *testing.T) {
	s, _ := ceremonies(t)
	powers, err := s.Powers()
	if err != nil {
		t.Fatal(err)
	}
	if len(powers) != len(hsm.Classes) {
		t.Errorf("powers are %+v, want one for each class", powers)
	}
	for _, p := range powers {
		if !p.Wrap || p.Unwrap || !p.Trusted {
			t.Errorf("%+v: want a source transport key, which wraps and is trusted", p)
		}
	}
}

func TestOfficerRefuses(t *testing.T) {
	s, d := ceremonies(t)
	if _, err := s.WrapTrusted(hsm.ClassAES, []byte("no key")); !errors.Is(err, hsm.ErrCaller) {
		t.Errorf("an establishment key that is none: got %v, want ErrCaller", err)
	}
	spec := hsm.Spec{Role: hsm.RoleTransportDestination, Algorithm: hsm.AES256, Class: hsm.ClassAES, Name: "x"}
	if err := d.OpenTransport(t.Context(), spec, hsm.NewID(), make([]byte, 384)); !errors.Is(err, hsm.ErrCaller) {
		t.Errorf("a package without an establishment key: got %v, want ErrCaller", err)
	}
	if _, err := d.NewEstablishment("x"); err != nil {
		t.Fatal(err)
	}
	if err := d.OpenTransport(t.Context(), spec, hsm.NewID(), make([]byte, 384)); !errors.Is(err, hsm.ErrDataInvalid) {
		t.Errorf("a package of zeros: got %v, want ErrDataInvalid", err)
	}
}

// Where the security officer cannot make trusted keys in a ceremony, those that a vendor's
// tool made are adopted, after every attribute was compared.
func TestAdopt(t *testing.T) {
	if !child(t, "one", "two") {
		return
	}
	tok, there := own(t, "one"), own(t, "two")
	cfg := hsm.CeremonyConfig{Config: config(tok), SOPINFile: tok.SOPINFile, Adopt: "vendor"}
	for _, class := range hsm.Classes {
		cfg.Trusted = append(cfg.Trusted, hsm.Spec{Role: hsm.RoleTransportSource, Algorithm: hsm.AES256, Class: class, Name: "adopted"})
	}
	if err := hsm.MakeAsVendor(t.Context(), cfg, "vendor", nil); err != nil {
		t.Fatal(err)
	}
	if err := hsm.MakeAsVendor(t.Context(), cfg, "loose", func(c hsm.Class, a []hsm.Attribute) []hsm.Attribute {
		if c == hsm.ClassMAC256 {
			return hsm.WithDecrypt(a)
		}
		return a
	}); err != nil {
		t.Fatal(err)
	}
	s, err := hsm.OpenCeremony(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	d, err := hsm.OpenCeremony(t.Context(), hsm.CeremonyConfig{Config: config(there)})
	if err != nil {
		t.Fatal(err)
	}
	spki, err := d.NewEstablishment("adopted")
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range cfg.Trusted {
		wrapped, err := s.WrapTrusted(spec.Class, spki)
		if err != nil {
			t.Fatal(err)
		}
		from, to := hsm.NewID(), hsm.NewID()
		if err := s.KeepTrusted(t.Context(), spec, from); err != nil {
			t.Fatal(err)
		}
		opened := spec
		opened.Role = hsm.RoleTransportDestination
		if err := d.OpenTransport(t.Context(), opened, to, wrapped); err != nil {
			t.Fatal(err)
		}
		proof, err := s.MakeProof(spec.Class, from)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.CheckProof(spec.Class, to, proof); err != nil {
			t.Error(err)
		}
		// The key can no longer leave: what it was copied from is gone.
		if _, err := s.WrapTrusted(spec.Class, spki); err == nil {
			t.Errorf("class %s can be wrapped a second time", spec.Class)
		}
	}
	cfg.Adopt = "loose"
	if _, err := hsm.OpenCeremony(t.Context(), cfg); !errors.Is(err, hsm.ErrModuleBroken) {
		t.Errorf("a trusted key that decrypts: got %v, want ErrModuleBroken", err)
	}
	cfg.Adopt = "nobody"
	if _, err := hsm.OpenCeremony(t.Context(), cfg); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("keys that are not there: got %v, want ErrNotFound", err)
	}
}

// ceremonies opens both tokens of this package's tests, without a security officer.
func ceremonies(t *testing.T) (s, d *hsm.Ceremony) {
	t.Helper()
	for label, into := range map[string]**hsm.Ceremony{source: &s, destination: &d} {
		c, err := hsm.OpenCeremony(t.Context(), hsm.CeremonyConfig{Config: config(softhsmtest.Named(label))})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		*into = c
	}
	return s, d
}
