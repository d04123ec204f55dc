package keyops_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// pinned is a peer with a signing key on the host.
type pinned struct {
	region.SignedDescriptor
	key *ecdsa.PrivateKey
}

func newKey(t *testing.T) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return k, spki
}

func signWith(t *testing.T, k *ecdsa.PrivateKey, d region.Descriptor) pinned {
	t.Helper()
	s, err := d.Sign(t.Context(), statement.HostKey(k))
	if err != nil {
		t.Fatal(err)
	}
	return pinned{s, k}
}

func newPinned(t *testing.T, instance region.InstanceID) pinned {
	t.Helper()
	k, spki := newKey(t)
	return signWith(t, k, region.Descriptor{
		Region: "us-east-1", Instance: instance, Partition: "aws", SigningKey: spki, Version: 1, Created: time.Unix(1_800_000_000, 0).UTC(),
		Operators: approval.Roster{Threshold: 1, Operators: []approval.Operator{{Name: "op", Key: spki}}},
	})
}

// TestDirectoryRemembered shows a Region its directory at one start after another, as somebody
// leaves it who can write there and has no key.
func TestDirectoryRemembered(t *testing.T) {
	id := region.NewInstanceID()
	peer, other := newPinned(t, id), newPinned(t, region.NewInstanceID())
	forged := newPinned(t, id)
	k, spki := newKey(t)
	next := signWith(t, k, peer.Next(spki, time.Now()))
	r, err := region.NewReplacement(t.Context(), statement.HostKey(peer.key), peer.SignedDescriptor, next.SignedDescriptor)
	if err != nil {
		t.Fatal(err)
	}
	q := region.RequestReplacement(peer.Operators, peer.SignedDescriptor, next.SignedDescriptor, approval.NewSerial(), time.Now().Add(time.Hour).Truncate(time.Second).UTC())
	f, err := approval.Sign(t.Context(), peer.key, q)
	if err != nil {
		t.Fatal(err)
	}
	r.Approvals = append(r.Approvals, f)
	dir := region.Dir(t.TempDir())
	roster := func(version uint64, name string) keyops.RosterSeen {
		seen := peer.Operators
		seen.Version, seen.Operators = version, []approval.Operator{{Name: name, Key: seen.Operators[0].Key}}
		return keyops.RosterSeen{Region: "us-east-1", Instance: id, Roster: seen}
	}
	home := keyopstest.New(t, keyopstest.Options{})
	for _, step := range []struct {
		name   string
		pin    pinned
		roster keyops.RosterSeen
		before func() error
		want   error
	}{
		{"first", peer, roster(0, "op"), nil, nil},
		{"again", peer, roster(0, "op"), nil, nil},
		{"another roster of the same version", peer, roster(0, "eve"), nil, keyops.ErrForgotten},
		{"the next roster", peer, roster(2, "anna"), nil, nil},
		{"an older roster", peer, roster(1, "op"), nil, keyops.ErrForgotten},
		{"another key of the same instance", forged, roster(2, "anna"), nil, keyops.ErrForgotten},
		{"another instance, without a ceremony", other, roster(2, "anna"), nil, keyops.ErrForgotten},
		{"the next key, which nobody has approved", next, roster(2, "anna"), nil, keyops.ErrForgotten},
		{"the next key", next, roster(2, "anna"), func() error { return dir.KeepReplacement(peer.Descriptor, 2, r) }, nil},
		{"the key before", peer, roster(2, "anna"), nil, keyops.ErrForgotten},
		{"at last", next, roster(2, "anna"), nil, nil},
	} {
		home.Stop()
		if step.before != nil {
			if err := step.before(); err != nil {
				t.Fatal(err)
			}
		}
		home.Options.Files = keyops.RegionFiles{Dir: dir, Pins: []region.SignedDescriptor{step.pin.SignedDescriptor}, Rosters: []keyops.RosterSeen{step.roster}}
		if err := startErr(home); !errors.Is(err, step.want) {
			t.Errorf("%s: got %v, want %v", step.name, err, step.want)
		}
	}
	head := home.StoreHead()
	home.Restart(t)
	if after := home.StoreHead(); after != head {
		t.Errorf("a start that shows nothing new changes the store from %s to %s", head, after)
	}
}

// TestTakenOffTheRoster: who was taken off cannot decide again by taking the change away.
func TestTakenOffTheRoster(t *testing.T) {
	v := newVault(t)
	later := v.Descriptor.Operators
	later.Version = 1
	v.Options.Files = keyops.RegionFiles{Rosters: []keyops.RosterSeen{{Region: v.Descriptor.Region, Instance: v.Descriptor.Instance, Roster: later}}}
	v.start(t)
	v.Stop()
	v.editBody(t, "a", "before", "BEFORE")
	_, q := v.Inspect(t)
	if _, err := v.Reseal(t.Context(), v.Approve(t, q, 2)); !errors.Is(err, region.ErrOlderRoster) {
		t.Errorf("approved by the roster before: %v", err)
	}
}
