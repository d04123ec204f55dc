package region_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

// TestRetired: neither the name nor the instance of a Region that was retired is a peer again,
// and only this Region's own word retires one.
func TestRetired(t *testing.T) {
	self := own(t)
	dir := region.Dir(t.TempDir())
	if err := errors.Join(dir.Make(), self.Save(dir.Own())); err != nil {
		t.Fatal(err)
	}
	peer := func(name region.Name) region.SignedDescriptor {
		t.Helper()
		k, d := descriptor(t, string(name))
		s, err := d.Sign(t.Context(), statement.HostKey(k))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Save(dir.Peer(name)); err != nil {
			t.Fatal(err)
		}
		return s
	}
	gone, stays := peer("eu-milan-1"), peer("us-east-1")
	word := region.Retirement{Region: gone.Region, Instance: gone.Instance, Fingerprint: gone.Fingerprint(), At: time.Unix(1_900_000_000, 0).UTC()}
	f, err := word.Sign(t.Context(), self.Descriptor, statement.HostKey(self.key))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // again changes nothing
		if err := dir.KeepRetirement(gone.Region, f); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(dir.Peer(gone.Region)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its pin is there: %v", err)
	}
	if all, err := dir.LoadRetired(self.Descriptor); err != nil || len(all) != 1 || all[0] != word {
		t.Errorf("retired: %+v, %v", all, err)
	}
	if _, err := dir.LoadPeer(stays.Region); err != nil {
		t.Errorf("another peer: %v", err)
	}
	if _, err := dir.LoadPeer(gone.Region); !errors.Is(err, region.ErrRetired) {
		t.Errorf("without a pin: %v", err)
	}
	another := peer(gone.Region) // another instance of that name
	if _, err := dir.LoadPeer(gone.Region); !errors.Is(err, region.ErrRetired) {
		t.Errorf("another instance of the name: %v", err)
	}
	if _, err := dir.LoadPeers(); !errors.Is(err, region.ErrRetired) {
		t.Errorf("all peers: %v", err)
	}
	renamed := another.Descriptor
	renamed.Region, renamed.Instance = "eu-rome-1", gone.Instance
	if err := dir.CheckRetired(self.Descriptor, renamed); !errors.Is(err, region.ErrRetired) {
		t.Errorf("the instance under another name: %v", err)
	}

	thief := own(t)
	forged, err := region.Retirement{Region: stays.Region, Instance: stays.Instance, At: word.At}.Sign(t.Context(), self.Descriptor, statement.HostKey(thief.key))
	if err == nil {
		err = statement.WriteJSON(dir.Retired(stays.Region), forged)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dir.LoadRetired(self.Descriptor); !errors.Is(err, statement.ErrSignature) {
		t.Errorf("the word of somebody else: %v", err)
	}
	if err := os.Rename(dir.Retired(gone.Region), dir.Retired("eu-rome-1")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir.Retired(stays.Region)); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.LoadRetired(self.Descriptor); err == nil {
		t.Error("a word about one Region retires another")
	}
}
