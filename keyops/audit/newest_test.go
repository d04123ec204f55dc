package audit

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"os"
	"testing"
)

// TestNewest reads the last checkpoint beside a writer, and changes nothing.
func TestNewest(t *testing.T) {
	f := newFixture(t)
	if c, err := Newest(f.cfg.Dir, keys()); err != nil || c.Number != 0 {
		t.Errorf("of no log: %+v, %v", c, err)
	}
	l := f.open()
	f.cover(l)
	if c, err := Newest(f.cfg.Dir, keys()); err != nil || c.Number != 0 {
		t.Errorf("of a log without a checkpoint: %+v, %v", c, err)
	}
	f.head.Version = 5
	f.append(l, "CreateKey")
	f.checkpoint(l)
	f.head.Version = 6
	want := f.checkpoint(l)
	f.append(l, "Encrypt")
	before := f.read()
	if c, err := Newest(f.cfg.Dir, keys()); err != nil || !same(c.Checkpoint, want.Checkpoint) {
		t.Errorf("got %+v, %v, want %+v", c, err, want)
	}
	f.close(l)
	torn := append(f.read(), `{"v":1,"se`...)
	if err := os.WriteFile(f.path(), torn, 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Newest(f.cfg.Dir, keys()); err != nil || c.Number < want.Number {
		t.Errorf("of a log with a torn line: %+v, %v", c, err)
	}
	if got := f.read(); !bytes.HasPrefix(got, before) || !bytes.Equal(got, torn) {
		t.Error("reading changed the log")
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Newest(f.cfg.Dir, []crypto.PublicKey{other.Public()}); !errors.Is(err, ErrDamaged) {
		t.Errorf("of another key's log: got %v, want %v", err, ErrDamaged)
	}
	forged := bytes.ReplaceAll(f.read(), []byte(`"storeVersion":6`), []byte(`"storeVersion":1`))
	if err := os.WriteFile(f.path(), forged, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Newest(f.cfg.Dir, keys()); !errors.Is(err, ErrDamaged) {
		t.Errorf("with a checkpoint that was edited: got %v, want %v", err, ErrDamaged)
	}
}
