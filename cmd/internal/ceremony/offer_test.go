package ceremony

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// party is a Region whose signing key is in this process, with one operator.
type party struct {
	key, operator *ecdsa.PrivateKey
	desc          region.SignedDescriptor
}

func newParty(t testing.TB, name region.Name) party {
	t.Helper()
	p := party{key: mustKey(t, elliptic.P384()), operator: mustKey(t, elliptic.P256())}
	var err error
	p.desc, err = region.Descriptor{
		Region: name, Instance: region.NewInstanceID(), Partition: "aws", SigningKey: spki(t, p.key), Version: 1, Created: now,
		Operators: approval.Roster{Threshold: 1, Operators: []approval.Operator{{Name: "op", Key: spki(t, p.operator)}}},
	}.Sign(context.Background(), statement.HostKey(p.key))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func spki(t testing.TB, k *ecdsa.PrivateKey) []byte {
	t.Helper()
	b, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sign makes the statement of a payload as the party's Region.
func (p party) sign(t testing.TB, purpose statement.Purpose, payload []byte) (statement.Signed, statement.File) {
	t.Helper()
	s, err := statement.Sign(context.Background(), statement.HostKey(p.key), purpose, payload)
	if err != nil {
		t.Fatal(err)
	}
	f, err := statement.NewFile(s, p.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return s, f
}

func offerOf(source, destination party) Offer {
	return Offer{
		Source: source.desc, Destination: destination.desc, Epoch: 1, Classes: hsm.Classes,
		Created: now, Expires: now.Add(time.Hour), Establishment: []byte("a public key"), OAEP: hsm.OAEPSHA1,
	}
}

// file signs and approves an offer.
func (p party) file(t testing.TB, o Offer) OfferFile {
	t.Helper()
	signed, f := p.sign(t, statement.CeremonyOffer, o.payload())
	a, err := approval.Sign(context.Background(), p.operator, requestOf(o, signed, 0))
	if err != nil {
		t.Fatal(err)
	}
	return OfferFile{Offer: f, Approvals: []statement.File{a}}
}

func TestOpenOffer(t *testing.T) {
	source, destination, stranger := newParty(t, "eu-paris-1"), newParty(t, "us-east-1"), newParty(t, "ap-tokyo-1")
	pins := map[region.Name]region.SignedDescriptor{"us-east-1": destination.desc}
	pinned := func(n region.Name) (region.SignedDescriptor, error) {
		if d, ok := pins[n]; ok {
			return d, nil
		}
		return region.SignedDescriptor{}, fs.ErrNotExist
	}
	again := newParty(t, "us-east-1") // the Region, initialised again
	for _, c := range []struct {
		name   string
		signer party
		change func(*Offer)
		why    string // empty if the offer is accepted
	}{
		{"as it should be", destination, func(*Offer) {}, ""},
		{"a little ahead of time", destination, func(o *Offer) { o.Created = now.Add(maxSkew); o.Expires = now.Add(time.Hour) }, ""},
		{"far ahead of time", destination, func(o *Offer) { o.Created = now.Add(maxSkew + time.Second) }, "no offer lives longer"},
		{"expired", destination, func(o *Offer) { o.Created = now.Add(-time.Hour); o.Expires = now }, "expired"},
		{"of too long a life", destination, func(o *Offer) { o.Expires = now.Add(maxExpiry + time.Second) }, "no offer lives longer"},
		{"for another source", destination, func(o *Offer) { o.Source = stranger.desc }, "offer for source"},
		{"of a Region that is not pinned", stranger, func(o *Offer) { o.Destination = stranger.desc }, "not exist"},
		{"of another instance", again, func(o *Offer) { o.Destination = again.desc }, "signature not valid"},
		{"with another descriptor", destination, func(o *Offer) { o.Destination = again.desc }, "another descriptor"},
		{"signed by another Region", stranger, func(*Offer) {}, "signature not valid"},
		{"of epoch 0", destination, func(o *Offer) { o.Epoch = 0 }, "start at 1"},
		{"of fewer classes", destination, func(o *Offer) { o.Classes = hsm.Classes[:2] }, "for classes"},
		{"of one class thrice", destination, func(o *Offer) { o.Classes = []hsm.Class{"aes", "aes", "aes"} }, "for classes"},
		{"to itself", destination, func(o *Offer) { o.Source = destination.desc }, "offer for source"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := offerOf(source, destination)
			c.change(&o)
			f := c.signer.file(t, o)
			if c.signer.desc.Region == "us-east-1" {
				// whoever signs, the operators are the destination's
				signed, err := f.Offer.Signed(statement.CeremonyOffer)
				if err != nil {
					t.Fatal(err)
				}
				if f.Approvals[0], err = approval.Sign(t.Context(), destination.operator, requestOf(o, signed, 0)); err != nil {
					t.Fatal(err)
				}
			}
			got, _, err := openOffer(f, source.desc, pinned, now)
			switch {
			case c.why == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.why == "":
				if d := cmp.Diff(o, got); d != "" {
					t.Errorf("read back (-want +got):\n%s", d)
				}
			case err == nil || !strings.Contains(err.Error(), c.why):
				t.Errorf("got %v, want a refusal that says %q", err, c.why)
			}
		})
	}
	f := destination.file(t, offerOf(source, destination))
	other := offerOf(source, destination)
	other.Establishment = []byte("the thief's public key")
	f.Offer = destination.file(t, other).Offer // approvals of one offer on another
	if _, _, err := openOffer(f, source.desc, pinned, now); !errors.Is(err, approval.ErrNotEnough) {
		t.Errorf("another offer's approvals: got %v, want ErrNotEnough", err)
	}
}

func TestCheckEpoch(t *testing.T) {
	for _, c := range []struct {
		offered, next uint64
		ok            bool
	}{
		{1, 1, true}, {3, 3, true}, {2, 3, false}, {1, 1000, false}, {7, 3, true},
		{3 + maxSkipped, 3, true}, {4 + maxSkipped, 3, false}, {math.MaxUint64, 3, false},
	} {
		if err := checkEpoch(c.offered, c.next); (err == nil) != c.ok {
			t.Errorf("offered %d, next %d: got %v, want ok %v", c.offered, c.next, err, c.ok)
		}
	}
}

// TestOffersAfterARosterChanged: the newest operators approve, and those who left do not.
func TestOffersAfterARosterChanged(t *testing.T) {
	source, destination := newParty(t, "eu-paris-1"), newParty(t, "us-east-1")
	pinned := func(region.Name) (region.SignedDescriptor, error) { return destination.desc, nil }
	successor := mustKey(t, elliptic.P256())
	first := destination.desc.Operators
	next := approval.Roster{Version: 1, Threshold: 1, Operators: []approval.Operator{{Name: "successor", Key: spki(t, successor)}}}
	q := first.RequestChange(string(destination.desc.Region), string(destination.desc.Instance), next, approval.NewSerial(), now.Add(time.Hour))
	approve := func(k *ecdsa.PrivateKey, q approval.Request) statement.File {
		t.Helper()
		f, err := approval.Sign(t.Context(), k, q)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	change, err := first.NewChange(string(destination.desc.Region), string(destination.desc.Instance), next, now,
		[]statement.File{approve(destination.operator, q), approve(successor, q)})
	if err != nil {
		t.Fatal(err)
	}
	o := offerOf(source, destination)
	signed, f := destination.sign(t, statement.CeremonyOffer, o.payload())
	by := func(k *ecdsa.PrivateKey, roster uint64, changes ...approval.Change) OfferFile {
		return OfferFile{Offer: f, Rosters: changes, Approvals: []statement.File{approve(k, requestOf(o, signed, roster))}}
	}
	for _, c := range []struct {
		name string
		file OfferFile
		why  error
	}{
		{"by the successor", by(successor, 1, change), nil},
		{"by the one who left", by(destination.operator, 1, change), approval.ErrNotEnough},
		{"by the successor to the roster before", by(successor, 0, change), approval.ErrNotEnough},
		{"by the successor, without the change", by(successor, 1), approval.ErrNotEnough},
		{"with the change twice", by(successor, 1, change, change), approval.ErrRoster},
	} {
		if _, _, err := openOffer(c.file, source.desc, pinned, now); !errors.Is(err, c.why) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.why)
		}
	}
	// Where the change is known, leaving it out helps nobody.
	dir := region.Dir(t.TempDir())
	if _, err := dir.KeepRosters(destination.desc.Descriptor, []approval.Change{change}); err != nil {
		t.Fatal(err)
	}
	old := by(destination.operator, 0)
	if _, _, err := openOffer(old, source.desc, pinned, now); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.KeepRosters(destination.desc.Descriptor, old.Rosters); !errors.Is(err, region.ErrOlderRoster) {
		t.Errorf("an offer that leaves the change out: %v", err)
	}
}

func TestOpenPackage(t *testing.T) {
	source, destination := newParty(t, "eu-paris-1"), newParty(t, "us-east-1")
	offer, _ := destination.sign(t, statement.CeremonyOffer, offerOf(source, destination).payload())
	good := Package{Offer: offer.Hash()}
	for _, c := range hsm.Classes {
		good.Keys = append(good.Keys, PackedKey{Class: c, Wrapped: []byte("w"), Proof: hsm.Proof{Wrapped: []byte("p"), Answer: []byte("a")}})
	}
	_, f := source.sign(t, statement.CeremonyPackage, good.payload())
	got, _, err := openPackage(f, source.desc.Descriptor, offer, hsm.Classes)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(good, got); d != "" {
		t.Errorf("read back (-want +got):\n%s", d)
	}
	for name, change := range map[string]func(*Package) (party, statement.Purpose){
		"another offer": func(p *Package) (party, statement.Purpose) {
			p.Offer = make([]byte, 48)
			return source, statement.CeremonyPackage
		},
		"a class less": func(p *Package) (party, statement.Purpose) {
			p.Keys = p.Keys[:2]
			return source, statement.CeremonyPackage
		},
		"classes in another order": func(p *Package) (party, statement.Purpose) {
			p.Keys = []PackedKey{p.Keys[1], p.Keys[0], p.Keys[2]}
			return source, statement.CeremonyPackage
		},
		"another signer":  func(*Package) (party, statement.Purpose) { return destination, statement.CeremonyPackage },
		"another purpose": func(*Package) (party, statement.Purpose) { return source, statement.CeremonyOffer },
	} {
		p := good
		who, purpose := change(&p)
		_, f := who.sign(t, purpose, p.payload())
		if _, _, err := openPackage(f, source.desc.Descriptor, offer, hsm.Classes); !errors.Is(err, errPackage) {
			t.Errorf("%s: got %v, want errPackage", name, err)
		}
	}
}

func TestRegionKey(t *testing.T) {
	spec := hsm.Spec{Role: hsm.RoleRegionSigning, Algorithm: hsm.ECP384, Usage: hsm.UsageSign, Name: "kfi-0123456789ab"}
	made := hsm.Object{ID: hsm.NewID(), Spec: spec, Local: true, AlwaysSensitive: true}
	created := hsm.Object{ID: hsm.NewID(), Spec: spec}
	other := made
	other.Spec.Name = "kfi-ba9876543210"
	for name, c := range map[string]struct {
		objects []hsm.Object
		ok      bool
	}{
		"the key":                        {[]hsm.Object{made}, true},
		"with one of known bytes beside": {[]hsm.Object{created, made, other}, true},
		"only one of known bytes":        {[]hsm.Object{created}, false},
		"another instance's":             {[]hsm.Object{other}, false},
		"two":                            {[]hsm.Object{made, {ID: hsm.NewID(), Spec: spec, Local: true, AlwaysSensitive: true}}, false},
		"none":                           {nil, false},
	} {
		id, err := RegionKey(c.objects, hsm.RoleRegionSigning, region.Descriptor{Instance: "kfi-0123456789ab", Version: 1})
		if c.ok && (err != nil || id != made.ID) || !c.ok && !errors.Is(err, hsm.ErrNotFound) {
			t.Errorf("%s: %s, %v", name, id, err)
		}
	}
}

func FuzzParseOffer(f *testing.F) {
	o := offerOf(newParty(f, "eu-paris-1"), newParty(f, "us-east-1"))
	f.Add(o.payload())
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := parseOffer(b); err == nil && !bytes.Equal(o.payload(), b) {
			t.Errorf("%x has another encoding", b)
		}
	})
}

func FuzzParsePackage(f *testing.F) {
	f.Add(Package{Offer: make([]byte, 48), Keys: []PackedKey{{Class: hsm.ClassAES, Wrapped: []byte("w")}}}.payload())
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parsePackage(b); err == nil && !bytes.Equal(p.payload(), b) {
			t.Errorf("%x has another encoding", b)
		}
	})
}

// Whoever can lay a file beside the approvals cannot write on the operator's screen.
func TestNothingRewritesTheScreen(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "offer.approval-\x1b[8m\noffer fingerprint 0000"), []byte("no JSON"), 0o600); err != nil {
		t.Fatal(err)
	}
	arrived, bad, err := approvals(filepath.Join(dir, "offer.approval-"))
	if err != nil || len(arrived) != 0 || bad == nil {
		t.Fatalf("%d approvals, %v, %v, want one that is none", len(arrived), bad, err)
	}
	destination := newParty(t, "us-east-1")
	signed, file := destination.sign(t, statement.CeremonyOffer, offerOf(newParty(t, "eu-paris-1"), destination).payload())
	o, err := parseOffer(signed.Payload)
	if err != nil {
		t.Fatal(err)
	}
	file.Type, file.Key = "approval", "\x1b[8m\noffer fingerprint 0000"
	missing := o.Destination.Operators.Check(requestOf(o, signed, 0), now, []statement.File{file})
	if missing == nil {
		t.Fatal("approved by nobody's key")
	}
	var out strings.Builder
	Tool{Out: &out}.say("waiting: %v, %v, %s", bad, missing, "\x1b[8m\u202e\r")
	if text := out.String(); strings.ContainsAny(text, "\x1b\r\u202e") || strings.Contains(text, "\noffer fingerprint") {
		t.Errorf("printed %q", text)
	}
}
