package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/keyferry/keyferry/cmd/internal/config"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/store"
)

// TestStandbyOfAStoreThatWasMoved: a standby that gets the lease of a store that a restore
// has moved aside does not serve from it.
func TestStandbyOfAStoreThatWasMoved(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	path := filepath.Join(t.TempDir(), "store.db")
	open := func(standby bool) *daemon {
		d := &daemon{config: &config.Config{Store: config.Store{Path: path}}, log: log, standby: standby}
		d.self.Instance = region.InstanceID("kfi-0123456789ab")
		t.Cleanup(func() { d.close(t.Context()) })
		return d
	}
	first := open(false)
	if err := first.openStore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := open(false).openStore(t.Context()); !errors.Is(err, store.ErrLeaseHeld) {
		t.Errorf("a second daemon: %v", err)
	}
	standby, done := open(true), make(chan error)
	go func() { done <- standby.openStore(t.Context()) }()
	select {
	case err := <-done:
		t.Fatalf("the standby has not waited: %v", err)
	case <-time.After(2 * standbyPoll):
	}
	if err := os.Rename(path, path+".before"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := first.lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, errReplaced) {
		t.Errorf("a standby whose store was moved aside: %v", err)
	}
}
