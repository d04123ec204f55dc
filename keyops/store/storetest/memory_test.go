package storetest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/storetest"
)

// TestMemory holds the store in memory to the contract that the one on disk keeps.
func TestMemory(t *testing.T) {
	storetest.Suite(t, func(*testing.T) storetest.Open { return storetest.NewMemory("kfi-0123456789ab").Open })
}

// A killed process writes nothing more, and its successor finds what was durable.
func TestMemoryKill(t *testing.T) {
	ctx := context.Background()
	m := storetest.NewMemory("kfi-0123456789ab")
	put := func(s store.Store, id string) error {
		return s.Update(ctx, func(tx store.Tx) error { return tx.Put(store.Row{Kind: "key", ID: id, Version: 1}) })
	}
	open := func() store.Store {
		t.Helper()
		s := m.Open(time.Now)
		if _, err := s.AcquireLease(ctx, "test", time.Hour); err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := open()
	if err := put(first, "a"); err != nil {
		t.Fatal(err)
	}
	err := first.Update(ctx, func(tx store.Tx) error {
		m.Kill()
		return tx.Put(store.Row{Kind: "key", ID: "b", Version: 1})
	})
	if !errors.Is(err, store.ErrClosed) || !errors.Is(put(first, "c"), store.ErrClosed) {
		t.Fatalf("after the kill: %v", err)
	}
	second := open()
	for id, want := range map[string]error{"a": nil, "b": store.ErrNotFound, "c": store.ErrNotFound} {
		err := second.View(ctx, func(tx store.Tx) error { _, err := tx.Get("key", id); return err })
		if !errors.Is(err, want) {
			t.Errorf("row %s: %v, want %v", id, err, want)
		}
	}
}

// A backup is stamped, a copy is not, and neither follows what happens after.
func TestMemoryBackup(t *testing.T) {
	ctx := context.Background()
	m := storetest.NewMemory("kfi-0123456789ab")
	taken := time.Unix(1_800_000_000, 0).UTC()
	backup, err := m.Backup(taken)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		of   *storetest.Memory
		want time.Time
	}{{"backup", backup, taken}, {"copy", m.Copy(), time.Time{}}, {"original", m, time.Time{}}} {
		err := tc.of.Open(time.Now).View(ctx, func(tx store.Tx) error {
			meta, err := store.ReadMeta(tx)
			if !meta.Restored.Equal(tc.want) {
				t.Errorf("%s: restored %v, want %v", tc.name, meta.Restored, tc.want)
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}
