package replication_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/transport"
	"github.com/keyferry/keyferry/replication"
)

// Material travels under the newest transport key that both ends have: a ceremony that has
// ended at one end only stops nothing.
func TestTransportEpochOfOneEnd(t *testing.T) {
	sites := prepare(t, paris, east)
	source, destination := sites[0].region, sites[1].region
	name := keyopstest.SetName(source, destination, 2)
	if err := keyopstest.Transcribe(t.Context(), source, destination, name, hsmtest.Establish(source.Fake, destination.Fake, name.String())); err != nil {
		t.Fatal(err)
	}
	file := transport.Transcript{Event: transport.Established, Name: name, Role: hsm.RoleTransportDestination}.File()
	if err := os.Remove(filepath.Join(destination.Dir.Transcripts(), file)); err != nil {
		t.Fatal(err)
	}
	for _, s := range sites {
		s.start()
	}
	id := sites[0].createSymmetric()
	if got := source.UnwrapEpochs(id, destination.Descriptor.Descriptor); len(got) != 1 || got[0] != 1 {
		t.Errorf("the source can unwrap with %v", got)
	}
	sites[0].mustReplicate(id, sites[1])
	sites[0].synchronized(id, sites[1])
	encryptHereDecryptThere(t, id, sites[0], sites[1])
	if got := destination.UnwrapEpochs(id, source.Descriptor.Descriptor); len(got) != 1 || got[0] != 1 {
		t.Errorf("the destination can unwrap with %v", got)
	}
	k, err := source.SharedKey(id)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		epochs []uint64
		want   uint64
	}{{nil, 2}, {[]uint64{1}, 1}, {[]uint64{2, 1}, 2}, {[]uint64{1, 2, 3}, 2}} {
		b, err := source.WrapMaterial(t.Context(), id, k.Current, destination.Descriptor.Descriptor, tt.epochs...)
		if err != nil || b.Epoch != tt.want {
			t.Errorf("of %v: epoch %d, %v", tt.epochs, b.Epoch, err)
		}
	}
	if _, err := source.WrapMaterial(t.Context(), id, k.Current, destination.Descriptor.Descriptor, 3); err == nil {
		t.Error("wrapped under an epoch that is not here")
	}
}

// A Region with which no ceremony was held can be named, but nothing leaves for it: the status
// says what is missing, and the replica is made once the ceremony was held.
func TestReplicateWithoutTransportKeys(t *testing.T) {
	sites := prepare(t, paris, east)
	source, destination := sites[0], sites[1]
	kept := map[string][]byte{}
	for _, s := range sites {
		files, err := filepath.Glob(filepath.Join(s.region.Dir.Transcripts(), "*"))
		if err != nil || len(files) == 0 {
			t.Fatalf("transcripts of %s: %v, %v", s.name(), files, err)
		}
		for _, name := range files {
			if kept[name], err = os.ReadFile(name); err == nil {
				err = os.Remove(name)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range sites {
		s.start()
	}
	id := source.createSymmetric()
	source.mustReplicate(id, destination)
	eventually(t, "what is missing", func() (bool, string) {
		row := source.status(id, destination)
		return row.Status == replication.StatusFailed && row.Cause == string(mrk.CauseTransportKeyMissing) && row.Attempts > 0, fmt.Sprintf("%+v", row)
	})
	if n := source.region.Fake.Calls()["C_WrapKey"]; n != 0 {
		t.Errorf("%d C_WrapKey for a Region without transport keys", n)
	}
	if m := destination.describe(id); m.KeyState != "Creating" {
		t.Errorf("the replica key is %s", m.KeyState)
	}
	for name, data := range kept {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range sites {
		s.restart()
	}
	source.synchronized(id, destination)
	encryptHereDecryptThere(t, id, source, destination)
}
