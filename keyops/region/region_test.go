package region_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

func key(t *testing.T, c elliptic.Curve) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return k, der
}

func descriptor(t *testing.T, name string) (*ecdsa.PrivateKey, region.Descriptor) {
	t.Helper()
	k, spki := key(t, elliptic.P384())
	_, op := key(t, elliptic.P256())
	return k, region.Descriptor{
		Region: region.Name(name), Instance: region.NewInstanceID(), Partition: "aws", SigningKey: spki, Version: 1,
		Operators: approval.Roster{Threshold: 1, Operators: []approval.Operator{{Name: "op", Key: op}}},
		Created:   time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

func signed(t *testing.T, name string) region.SignedDescriptor {
	t.Helper()
	k, d := descriptor(t, name)
	s, err := d.Sign(t.Context(), statement.HostKey(k))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNames(t *testing.T) {
	for s, ok := range map[string]bool{
		"eu-paris-1": true, "us-east-1": true, "ap-tokyo-12": true, "us-gov-west-1": true,
		"paris-1": false, "eu-paris": false, "eu-paris-1-": false, "EU-paris-1": false, "a-b-c-d-1": false, "": false,
		"eu-paris-1\n": false, "eu-paris-x1": false, "aaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbb-1": false,
	} {
		if _, err := region.ParseName(s); (err == nil) != ok {
			t.Errorf("ParseName(%q): %v, want ok %v", s, err, ok)
		}
	}
	for s, ok := range map[string]bool{"kfi-0123456789ab": true, string(region.NewInstanceID()): true, "kfi-0123456789a": false, "kfi-0123456789AB": false, "0123456789ab": false, "": false} {
		if _, err := region.ParseInstanceID(s); (err == nil) != ok {
			t.Errorf("ParseInstanceID(%q): %v, want ok %v", s, err, ok)
		}
	}
	for s, ok := range map[string]bool{"aws": true, "aws-cn": true, "": false, "AWS": false, "a:b": false, "1a": false} {
		if _, err := region.ParsePartition(s); (err == nil) != ok {
			t.Errorf("ParsePartition(%q): %v, want ok %v", s, err, ok)
		}
	}
}

func TestDescriptorSurvivesItsFile(t *testing.T) {
	s := signed(t, "eu-paris-1")
	path := filepath.Join(t.TempDir(), "region.json")
	if err := s.Save(path); err != nil {
		t.Fatal(err)
	}
	back, err := region.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, back); d != "" {
		t.Errorf("read back (-want +got):\n%s", d)
	}
	if s.Fingerprint() != back.Fingerprint() {
		t.Error("the fingerprint changed")
	}
	if err := s.Save(path); !errors.Is(err, os.ErrExist) {
		t.Errorf("saving over it: got %v, want ErrExist", err)
	}
}

func TestDescriptorsThatAreRefused(t *testing.T) {
	k384, spki384 := key(t, elliptic.P384())
	_, spki256 := key(t, elliptic.P256())
	for name, change := range map[string]func(*region.Descriptor){
		"a bad name":               func(d *region.Descriptor) { d.Region = "paris" },
		"a bad instance":           func(d *region.Descriptor) { d.Instance = "kfi-1" },
		"a bad partition":          func(d *region.Descriptor) { d.Partition = "a b" },
		"no signing key":           func(d *region.Descriptor) { d.SigningKey = nil },
		"a signing key on P-256":   func(d *region.Descriptor) { d.SigningKey = spki256 },
		"another's signing key":    func(d *region.Descriptor) { d.SigningKey = spki384 },
		"version 0":                func(d *region.Descriptor) { d.Version = 0 },
		"no operators":             func(d *region.Descriptor) { d.Operators = approval.Roster{} },
		"a threshold out of reach": func(d *region.Descriptor) { d.Operators.Threshold = 2 },
	} {
		k, d := descriptor(t, "eu-paris-1")
		change(&d)
		if _, err := d.Sign(t.Context(), statement.HostKey(k)); !errors.Is(err, region.ErrDescriptor) {
			t.Errorf("%s: got %v, want ErrDescriptor", name, err)
		}
	}
	// A statement of another purpose by the right key, and bytes that are no descriptor.
	for _, p := range []statement.Purpose{statement.Approval, statement.Descriptor} {
		s, err := statement.Sign(t.Context(), statement.HostKey(crypto.Signer(k384)), p, []byte("no descriptor"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := region.Open(s); !errors.Is(err, region.ErrDescriptor) {
			t.Errorf("%s: got %v, want ErrDescriptor", p, err)
		}
	}
}

// Whatever byte of a signed descriptor is changed, it is no longer one.
func TestEveryByteIsSigned(t *testing.T) {
	s := signed(t, "eu-paris-1").Statement
	for i := range s.Payload {
		other := s
		other.Payload = bytes.Clone(s.Payload)
		other.Payload[i] ^= 1
		if _, err := region.Open(other); !errors.Is(err, region.ErrDescriptor) {
			t.Errorf("byte %d changed: got %v, want ErrDescriptor", i, err)
		}
	}
}

func TestPeers(t *testing.T) {
	dir := region.Dir(filepath.Join(t.TempDir(), "paris"))
	if err := dir.Make(); err != nil {
		t.Fatal(err)
	}
	own, peer := signed(t, "eu-paris-1"), signed(t, "us-east-1")
	if err := own.Save(dir.Own()); err != nil {
		t.Fatal(err)
	}
	if err := peer.Save(dir.Peer("us-east-1")); err != nil {
		t.Fatal(err)
	}
	got, err := dir.LoadPeers()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]region.SignedDescriptor{peer}, got); d != "" {
		t.Errorf("peers (-want +got):\n%s", d)
	}
	if _, err := dir.LoadPeer("ap-tokyo-1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a peer that is not pinned: got %v, want ErrNotExist", err)
	}
	// Under another Region's name a descriptor is refused, and so is the whole directory.
	if err := peer.Save(dir.Peer("ap-tokyo-1")); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.LoadPeers(); !errors.Is(err, region.ErrDescriptor) {
		t.Errorf("a descriptor under another name: got %v, want ErrDescriptor", err)
	}
}

func TestAccepts(t *testing.T) {
	own := signed(t, "eu-paris-1")
	k, d := descriptor(t, "us-east-1")
	d.Partition = "aws-cn"
	elsewhere, err := d.Sign(t.Context(), statement.HostKey(k))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		n    region.Name
		peer region.SignedDescriptor
		ok   bool
	}{
		"a peer":            {"us-east-1", signed(t, "us-east-1"), true},
		"another name":      {"us-west-1", signed(t, "us-east-1"), false},
		"itself":            {"eu-paris-1", own, false},
		"its namesake":      {"eu-paris-1", signed(t, "eu-paris-1"), false},
		"another partition": {"us-east-1", elsewhere, false},
	} {
		if err := own.Accepts(c.n, c.peer); (err == nil) != c.ok {
			t.Errorf("%s: got %v, want ok %v", name, err, c.ok)
		}
	}
}
