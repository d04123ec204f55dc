package keyops_test

import (
	"context"
	"crypto"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/store"
)

// TestSaveWitness shows that each checkpoint of a peer is in the audit log once, over a
// restart too, and the newest in the store.
func TestSaveWitness(t *testing.T) {
	ctx := context.Background()
	r, peer := keyopstest.New(t, keyopstest.Options{}), keyopstest.New(t, keyopstest.Options{Name: "us-east-1"})
	shown := func() keyops.Witness {
		t.Helper()
		c, err := peer.AuditLog().Checkpoint(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return keyops.Witness{Peer: "us-east-1", Instance: c.Instance, Checkpoint: c.Statement, Seen: time.Now()}
	}
	save := func(w keyops.Witness) {
		t.Helper()
		if err := r.SaveWitness(ctx, w); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Witness(ctx, "us-east-1"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("before anything was shown: got error %v, want %v", err, store.ErrNotFound)
	}
	first := shown()
	save(first)
	save(first)
	r.Restart(t)
	save(first)
	if _, err := peer.ListKeys(ctx, keyopstest.Admin(), keyops.ListKeysInput{}); err != nil {
		t.Fatal(err)
	}
	second := shown()
	save(second)
	if w, err := r.Witness(ctx, "us-east-1"); err != nil || string(w.Checkpoint.Payload) != string(second.Checkpoint.Payload) {
		t.Errorf("got %+v, error %v, want the newest checkpoint", w, err)
	}
	garbled := second
	garbled.Checkpoint.Payload = garbled.Checkpoint.Payload[1:]
	if err := r.SaveWitness(ctx, garbled); err == nil {
		t.Error("what is no checkpoint was kept")
	}
	dir, descriptor := r.AuditDir, r.Descriptor
	r.Stop()
	key, err := descriptor.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	report, err := audit.Verify(os.DirFS(dir), []crypto.PublicKey{key})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Seen) != 2 || report.Seen[0].Number >= report.Seen[1].Number || report.Seen[1].Region != "us-east-1" {
		t.Errorf("the audit log keeps %+v, want the two checkpoints", report.Seen)
	}
}
