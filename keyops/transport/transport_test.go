package transport_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/transport"
)

// place is a Region with a signing key on the host.
type place struct {
	key  *ecdsa.PrivateKey
	desc region.SignedDescriptor
}

func newPlace(t *testing.T, name region.Name) place {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	d, err := region.Descriptor{
		Region: name, Instance: region.NewInstanceID(), Partition: "aws", SigningKey: spki, Version: 1,
		Operators: approval.Roster{Threshold: 1, Operators: []approval.Operator{{Name: "op", Key: spki}}},
		Created:   time.Unix(1_900_000_000, 0),
	}.Sign(t.Context(), statement.HostKey(k))
	if err != nil {
		t.Fatal(err)
	}
	return place{k, d}
}

func (p place) end() transport.End { return transport.EndOf(p.desc.Descriptor) }

// transcript is one of p's, as the source of keys for peer.
func (p place) transcript(peer place, epoch uint64) transport.Transcript {
	n := transport.Name{Source: p.end(), Destination: peer.end(), Epoch: epoch}
	t := transport.Transcript{
		Event: transport.Established, Name: n, Role: hsm.RoleTransportSource, TokenSerial: "0123",
		Offer: make([]byte, 48), Package: make([]byte, 48), Peer: peer.desc, At: time.Unix(1_900_000_000, 0).UTC(),
	}
	for _, c := range hsm.Classes {
		t.Keys = append(t.Keys, transport.Key{Name: n, Role: t.Role, Class: c, ID: hsm.NewID()})
	}
	return t
}

func (p place) dir(t *testing.T) region.Dir {
	t.Helper()
	d := region.Dir(t.TempDir())
	if err := d.Make(); err != nil {
		t.Fatal(err)
	}
	if err := p.desc.Save(d.Own()); err != nil {
		t.Fatal(err)
	}
	return d
}

func (p place) write(t *testing.T, d region.Dir, name string, tr transport.Transcript) {
	t.Helper()
	f, err := tr.Sign(t.Context(), p.desc.Descriptor, statement.HostKey(p.key))
	if err != nil {
		t.Fatal(err)
	}
	if err := statement.WriteJSON(filepath.Join(d.Transcripts(), name), f); err != nil {
		t.Fatal(err)
	}
}

func retired(tr transport.Transcript) transport.Transcript {
	tr.Event = transport.Retired
	return tr
}

func TestNameHasOneForm(t *testing.T) {
	n := newPlace(t, "eu-paris-1").transcript(newPlace(t, "us-east-1"), 3).Name
	got, err := transport.ParseName(n.String())
	if err != nil || got != n {
		t.Errorf("ParseName(%q) is %v, %v", n, got, err)
	}
	if err := n.Spec(hsm.RoleTransportSource, hsm.ClassMAC256).Check(); err != nil {
		t.Errorf("its spec: %v", err)
	}
	s := "eu-paris-1@kfi-0123456789ab>us-east-1@kfi-ba9876543210#"
	for _, bad := range []string{
		"", s, s + "0", s + "01", s + "+1", s + "18446744073709551616", s + "1 ", "E" + s[1:] + "1",
		"eu-paris-1>us-east-1#1", "eu-paris-1@kfi-0123456789ab>eu-paris-1@kfi-ba9876543210#1",
		"eu-paris-1@kfi-0123456789ab>us-east-1@kfi-0123456789ab#1",
	} {
		if n, err := transport.ParseName(bad); err == nil {
			t.Errorf("ParseName(%q) is %v", bad, n)
		}
	}
}

func TestTranscriptSurvivesItsFile(t *testing.T) {
	paris, east := newPlace(t, "eu-paris-1"), newPlace(t, "us-east-1")
	want := paris.transcript(east, 1)
	f, err := want.Sign(t.Context(), paris.desc.Descriptor, statement.HostKey(paris.key))
	if err != nil {
		t.Fatal(err)
	}
	got, err := transport.Open(f, paris.desc.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("read back (-want +got):\n%s", d)
	}
	if _, err := transport.Open(f, east.desc.Descriptor); err == nil {
		t.Error("another Region took the transcript for its own")
	}
	for i := 0; i < len(f.Payload); i += 7 {
		f.Payload[i] ^= 1
		if _, err := transport.Open(f, paris.desc.Descriptor); err == nil {
			t.Errorf("accepted with byte %d changed", i)
		}
		f.Payload[i] ^= 1
	}
}

func TestTranscriptsThatAreRefused(t *testing.T) {
	paris, east, tokyo := newPlace(t, "eu-paris-1"), newPlace(t, "us-east-1"), newPlace(t, "ap-tokyo-1")
	for name, change := range map[string]func(*transport.Transcript){
		"another event":      func(tr *transport.Transcript) { tr.Event = "lost" },
		"another role":       func(tr *transport.Transcript) { tr.Role = hsm.RoleMaterial },
		"the other end":      func(tr *transport.Transcript) { tr.Role = hsm.RoleTransportDestination },
		"another peer":       func(tr *transport.Transcript) { tr.Peer = tokyo.desc },
		"epoch 0":            func(tr *transport.Transcript) { tr.Name.Epoch = 0 },
		"no keys":            func(tr *transport.Transcript) { tr.Keys = nil },
		"an unknown class":   func(tr *transport.Transcript) { tr.Keys[0].Class = "des" },
		"one class twice":    func(tr *transport.Transcript) { tr.Keys[0].Class = tr.Keys[1].Class },
		"one ID twice":       func(tr *transport.Transcript) { tr.Keys[0].ID = tr.Keys[1].ID },
		"a key of another":   func(tr *transport.Transcript) { tr.Keys[0].Name.Epoch = 7 },
		"no offer":           func(tr *transport.Transcript) { tr.Offer = nil },
		"no package":         func(tr *transport.Transcript) { tr.Package = nil },
		"no token serial":    func(tr *transport.Transcript) { tr.TokenSerial = "" },
		"an instance of old": func(tr *transport.Transcript) { tr.Name.Source.Instance = region.NewInstanceID() },
	} {
		tr := paris.transcript(east, 1)
		change(&tr)
		if _, err := tr.Sign(t.Context(), paris.desc.Descriptor, statement.HostKey(paris.key)); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	tr := paris.transcript(east, 1)
	if _, err := tr.Sign(t.Context(), paris.desc.Descriptor, statement.HostKey(east.key)); err == nil {
		t.Error("signed by another Region's key")
	}
}

func TestSet(t *testing.T) {
	paris, east, tokyo := newPlace(t, "eu-paris-1"), newPlace(t, "us-east-1"), newPlace(t, "ap-tokyo-1")
	d := paris.dir(t)
	first, second, third := paris.transcript(east, 1), paris.transcript(east, 2), paris.transcript(east, 3)
	other := paris.transcript(tokyo, 9)
	for _, tr := range []transport.Transcript{second, first, third, other, retired(third)} {
		paris.write(t, d, tr.File(), tr)
	}
	// A write that a crash cut short is not a transcript.
	if err := os.WriteFile(filepath.Join(d.Transcripts(), "x.1.part"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Pinned as at the ceremony, and pinned anew after the peer was initialised again.
	for _, pinned := range []place{east, newPlace(t, "ap-tokyo-1")} {
		if err := pinned.desc.Save(d.Peer(pinned.desc.Region)); err != nil {
			t.Fatal(err)
		}
	}
	set, err := transport.Load(d)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(set.All()); got != 3*len(hsm.Classes) {
		t.Errorf("%d keys are in use, want those of three ceremonies", got)
	}
	if got := len(set.Retired()); got != len(hsm.Classes) {
		t.Errorf("%d keys are retired, want those of one ceremony", got)
	}
	for _, c := range hsm.Classes {
		k, ok := set.Newest(paris.end(), east.end(), c)
		if !ok || k.Name.Epoch != 2 || k.Class != c {
			t.Errorf("newest of class %s is %+v, %v, want epoch 2", c, k, ok)
		}
		if d := cmp.Diff([]uint64{2, 1}, set.Epochs(paris.end(), east.end(), c)); d != "" {
			t.Errorf("epochs of class %s (-want +got):\n%s", c, d)
		}
		if k, ok := set.At(first.Name, c); !ok || k.Name != first.Name {
			t.Errorf("at epoch 1: %+v, %v", k, ok)
		}
		if _, ok := set.At(third.Name, c); ok {
			t.Error("a retired key is in use")
		}
		if _, ok := set.Newest(east.end(), paris.end(), c); ok {
			t.Error("the other direction has a key")
		}
	}
	if got := set.NextEpoch(paris.end(), east.end()); got != 4 {
		t.Errorf("next epoch is %d, want 4: a retired epoch is not used again", got)
	}
	if got := set.NextEpoch(east.end(), paris.end()); got != 1 {
		t.Errorf("next epoch of a new pair is %d, want 1", got)
	}
}

func TestSetsThatAreRefused(t *testing.T) {
	paris, east, tokyo := newPlace(t, "eu-paris-1"), newPlace(t, "us-east-1"), newPlace(t, "ap-tokyo-1")
	tr := paris.transcript(east, 1)
	for name, prepare := range map[string]func(d region.Dir){
		"under another name": func(d region.Dir) { paris.write(t, d, "renamed.json", tr) },
		"no statement": func(d region.Dir) {
			if err := os.WriteFile(filepath.Join(d.Transcripts(), tr.File()), []byte("{}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"another Region's": func(d region.Dir) { foreign := tokyo.transcript(east, 1); tokyo.write(t, d, foreign.File(), foreign) },
		"one object in two sets": func(d region.Dir) {
			twin := paris.transcript(east, 2)
			twin.Keys[0].ID = tr.Keys[0].ID
			paris.write(t, d, tr.File(), tr)
			paris.write(t, d, twin.File(), twin)
		},
		"retired with other keys": func(d region.Dir) {
			paris.write(t, d, tr.File(), tr)
			other := retired(paris.transcript(east, 1))
			paris.write(t, d, other.File(), other)
		},
		"retired, never established": func(d region.Dir) { r := retired(tr); paris.write(t, d, r.File(), r) },
		"another signing key pinned that claims to follow": func(d region.Dir) {
			paris.write(t, d, tr.File(), tr)
			thief := newPlace(t, "us-east-1")
			next := east.desc.Next(thief.desc.SigningKey, time.Now()) // its past is true, and nobody has approved it
			desc, err := next.Sign(t.Context(), statement.HostKey(thief.key))
			if err != nil {
				t.Fatal(err)
			}
			if err := desc.Save(d.Peer("us-east-1")); err != nil {
				t.Fatal(err)
			}
		},
		"another signing key pinned": func(d region.Dir) {
			paris.write(t, d, tr.File(), tr)
			thief := newPlace(t, "us-east-1")
			thief.desc.Instance = east.desc.Instance
			desc, err := thief.desc.Descriptor.Sign(t.Context(), statement.HostKey(thief.key))
			if err != nil {
				t.Fatal(err)
			}
			if err := desc.Save(d.Peer("us-east-1")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := paris.dir(t)
			prepare(d)
			if set, err := transport.Load(d); err == nil {
				t.Errorf("loaded %+v", set.All())
			}
		})
	}
}

func FuzzParseName(f *testing.F) {
	f.Add("eu-paris-1@kfi-0123456789ab>us-east-1@kfi-ba9876543210#1")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := transport.ParseName(s)
		if err == nil && n.String() != s {
			t.Errorf("%q is %q", s, n)
		}
	})
}
