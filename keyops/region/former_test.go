package region_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

// TestFormer: only this Region's own word makes an instance one whose words are history.
func TestFormer(t *testing.T) {
	self := own(t)
	dir := region.Dir(t.TempDir())
	gone := signed(t, "eu-milan-1")
	word := region.Former{SignedDescriptor: gone, At: time.Unix(1_900_000_000, 0).UTC()}
	f, err := word.Sign(t.Context(), self.Descriptor, statement.HostKey(self.key))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // again changes nothing
		if err := dir.KeepFormer(gone.Descriptor, f); err != nil {
			t.Fatal(err)
		}
	}
	all, err := dir.LoadFormer(self.Descriptor)
	if err != nil || len(all) != 1 || all[0].Fingerprint() != gone.Fingerprint() || !all[0].At.Equal(word.At) {
		t.Fatalf("former: %+v, %v", all, err)
	}
	if !region.Ours("former/" + filepath.Base(dir.Former(gone.Descriptor))) {
		t.Error("its file is nobody's")
	}

	if _, err := (region.Former{SignedDescriptor: self.SignedDescriptor}).Sign(t.Context(), self.Descriptor, statement.HostKey(self.key)); !errors.Is(err, region.ErrDescriptor) {
		t.Errorf("this very instance: %v", err)
	}
	other := own(t)
	forged, err := word.Sign(t.Context(), other.Descriptor, statement.HostKey(other.key))
	if err != nil {
		t.Fatal(err)
	}
	path := dir.Former(gone.Descriptor)
	replace := func(f statement.File, path string) {
		t.Helper()
		if err := errors.Join(os.RemoveAll(filepath.Dir(path)), os.MkdirAll(filepath.Dir(path), 0o755), statement.WriteJSON(path, f)); err != nil {
			t.Fatal(err)
		}
	}
	replace(forged, path)
	if _, err := dir.LoadFormer(self.Descriptor); !errors.Is(err, statement.ErrSignature) {
		t.Errorf("written by somebody else: %v", err)
	}
	replace(f, dir.Former(signed(t, "us-east-1").Descriptor))
	if _, err := dir.LoadFormer(self.Descriptor); err == nil {
		t.Error("under another name: believed")
	}
}
