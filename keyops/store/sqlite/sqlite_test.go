package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/storetest"
)

const instance = "kfi-0123456789ab"

func mustCreate(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "region store?#%.db")
	if err := Create(context.Background(), path, instance); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustOpen(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(context.Background(), Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustLease(t *testing.T, s *Store) store.Lease {
	t.Helper()
	l, err := s.AcquireLease(context.Background(), t.Name(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func put(s store.Store, id string, size int) error {
	return s.Update(context.Background(), func(tx store.Tx) error {
		return tx.Put(store.Row{Kind: "key", ID: id, Version: 1, Body: make([]byte, size)})
	})
}

func ids(t *testing.T, s store.Store) (ids []string) {
	t.Helper()
	err := s.View(context.Background(), func(tx store.Tx) error {
		return tx.Scan("key", func(row store.Row) error {
			ids = append(ids, row.ID)
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func readMeta(t *testing.T, s store.Store) (m store.Meta) {
	t.Helper()
	err := s.View(context.Background(), func(tx store.Tx) (err error) {
		m, err = store.ReadMeta(tx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestContract(t *testing.T) {
	storetest.Suite(t, func(t *testing.T) storetest.Open {
		path := mustCreate(t)
		return func(now func() time.Time) store.Store {
			s, err := Open(context.Background(), Config{Path: path, Now: now})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	})
}

func TestCreate(t *testing.T) {
	path := mustCreate(t)
	s := mustOpen(t, path)
	m := readMeta(t, s)
	if m.Instance != instance || m.StoreID == "" || !m.Restored.IsZero() || time.Since(m.Created) > time.Minute {
		t.Errorf("got meta %+v", m)
	}
	mustLease(t, s)
	if err := put(s, "a", 1); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimPrefix(f, path))
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v, error %v, want 0600", f, info.Mode(), err)
		}
	}
	if diff := cmp.Diff([]string{"", "-shm", "-wal", ".lock"}, names); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if err := Create(context.Background(), path, instance); !errors.Is(err, fs.ErrExist) {
		t.Errorf("creating over a store: got %v, want %v", err, fs.ErrExist)
	}
	if got := ids(t, s); len(got) != 1 {
		t.Errorf("the refused creation changed the store: %v", got)
	}
}

func TestOpenRefuses(t *testing.T) {
	ctx := context.Background()
	for _, tc := range []struct {
		name string
		make func(t *testing.T, path string) error
		want error
	}{
		{"no file", func(*testing.T, string) error { return nil }, fs.ErrNotExist},
		{"an empty file", func(_ *testing.T, path string) error { return os.WriteFile(path, nil, 0o600) }, store.ErrNotStore},
		{"text", func(_ *testing.T, path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("listen: 127.0.0.1\n", 200)), 0o600)
		}, store.ErrNotStore},
		{"a directory", func(_ *testing.T, path string) error { return os.Mkdir(path, 0o700) }, store.ErrNotStore},
		{"another program's database", func(_ *testing.T, path string) error {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			return withDB(path, func(db *sql.DB) error {
				_, err := db.Exec(`CREATE TABLE store_row (id TEXT)`)
				return err
			})
		}, store.ErrNotStore},
		{"a damaged store", func(_ *testing.T, path string) error {
			if err := Create(ctx, path, instance); err != nil {
				return err
			}
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte(strings.Repeat("x", 3000)), 100)
			return err
		}, store.ErrNotStore},
		{"a newer release's store", func(_ *testing.T, path string) error {
			if err := Create(ctx, path, instance); err != nil {
				return err
			}
			return withDB(path, func(db *sql.DB) error {
				_, err := db.Exec(`INSERT INTO schema_migration (version, applied) VALUES (99, '')`)
				return err
			})
		}, store.ErrNewerSchema},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if err := tc.make(t, path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(path)
			s, err := Open(ctx, Config{Path: path})
			if !errors.Is(err, tc.want) {
				t.Fatalf("got store %v, error %v, want %v", s, err, tc.want)
			}
			if !strings.Contains(err.Error(), path) {
				t.Errorf("error %q does not name the file", err)
			}
			if after, _ := os.ReadFile(path); string(before) != string(after) {
				t.Error("the refused file was changed")
			}
		})
	}
	t.Run("a mode that lets others in", func(t *testing.T) {
		path := mustCreate(t)
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(ctx, Config{Path: path}); err == nil || !strings.Contains(err.Error(), "want 0600") {
			t.Fatalf("got %v, want an error that says which mode is wanted", err)
		}
	})
}

func TestDurabilitySettings(t *testing.T) {
	s := mustOpen(t, mustCreate(t))
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": busyTimeout, "trusted_schema": "0",
	} {
		for name, db := range map[string]*sql.DB{"write": s.write, "read": s.read} {
			var got string
			if err := db.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
				t.Errorf("%s of the %s connection: got %q, error %v, want %q", pragma, name, got, err, want)
			}
		}
	}
}

func TestFullDisk(t *testing.T) {
	s := mustOpen(t, mustCreate(t))
	mustLease(t, s)
	if err := put(s, "a", 1000); err != nil {
		t.Fatal(err)
	}
	var pages int
	if err := s.write.QueryRow("PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	limit := func(n int) {
		t.Helper()
		if _, err := s.write.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", n)); err != nil {
			t.Fatal(err)
		}
	}
	limit(pages + 2)
	if err := put(s, "b", 1<<20); !errors.Is(err, store.ErrFull) {
		t.Fatalf("got %v, want %v", err, store.ErrFull)
	}
	if diff := cmp.Diff([]string{"a"}, ids(t, s)); diff != "" {
		t.Fatalf("rows after a full disk (-want +got):\n%s", diff)
	}
	limit(1 << 20)
	if err := put(s, "b", 1<<20); err != nil {
		t.Fatalf("with space again: %v", err)
	}
}

// TestMigrations opens a store of each earlier schema, as its release wrote it.
func TestMigrations(t *testing.T) {
	ctx := context.Background()
	for version := 1; version <= len(current); version++ {
		t.Run(fmt.Sprintf("from version %d", version), func(t *testing.T) {
			dump, err := os.ReadFile(fmt.Sprintf("testdata/v%d.sql", version))
			if err != nil {
				t.Fatalf("every schema needs a dump of a store that its release wrote: %v", err)
			}
			path := filepath.Join(t.TempDir(), "store.db")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			err = withDB(path, func(db *sql.DB) error {
				_, err := db.ExecContext(ctx, string(dump))
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			s := mustOpen(t, path)
			if l := mustLease(t, s); l.Term() != 8 {
				t.Errorf("got term %d, want 8, the one after the old writer's", l.Term())
			}
			want := []store.Row{
				{Kind: "key", ID: "mrk-1", Version: 3, Body: []byte{0, 1, 0xff}, Seal: []byte{0xab, 0xcd}},
				{Kind: "key", ID: "plain", Version: 1},
			}
			var got []store.Row
			err = s.View(ctx, func(tx store.Tx) error {
				return tx.Scan("key", func(row store.Row) error { got = append(got, row); return nil })
			})
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
				t.Errorf("error %v, rows (-want +got):\n%s", err, diff)
			}
			if m := readMeta(t, s); m.Instance != instance || m.StoreID != "8f14e45f-ceea-4e7a-9c4b-3e1d2f5a6b7c" {
				t.Errorf("got meta %+v", m)
			}
			if v, err := schemaVersion(ctx, s.write); v != len(current) || err != nil {
				t.Errorf("got schema %d, error %v, want %d", v, err, len(current))
			}
		})
	}
}

// TestMigrationWaitsForTheLease shows that a standby of a newer release leaves the schema
// alone while the older release writes, and that the older one stops then.
func TestMigrationWaitsForTheLease(t *testing.T) {
	ctx := context.Background()
	path := mustCreate(t)
	older := mustOpen(t, path)
	mustLease(t, older)
	newer, err := open(ctx, Config{Path: path}, append(schema{}, append(current, migration{"next", `ALTER TABLE store_row ADD COLUMN extra TEXT`})...))
	if err != nil {
		t.Fatal(err)
	}
	defer newer.Close()
	version := func() int {
		t.Helper()
		v, err := schemaVersion(ctx, older.read)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if _, err := newer.AcquireLease(ctx, "newer", time.Minute); !errors.Is(err, store.ErrLeaseHeld) {
		t.Fatalf("got %v, want %v", err, store.ErrLeaseHeld)
	}
	if v := version(); v != len(current) {
		t.Fatalf("the standby migrated to %d", v)
	}
	if err := put(older, "a", 1); err != nil {
		t.Fatal(err)
	}
	older.term.Store(0) // the older release's process has stopped
	older.locks.close()
	if _, err := newer.AcquireLease(ctx, "newer", time.Minute); err != nil {
		t.Fatal(err)
	}
	if v := version(); v != len(current)+1 {
		t.Fatalf("got schema %d after the lease, want %d", v, len(current)+1)
	}
	if got := ids(t, newer); len(got) != 1 {
		t.Errorf("got rows %v", got)
	}
	if _, err := Open(ctx, Config{Path: path}); !errors.Is(err, store.ErrNewerSchema) {
		t.Errorf("the older release opening again: got %v, want %v", err, store.ErrNewerSchema)
	}
}

func TestReadSchema(t *testing.T) {
	for name, files := range map[string][]string{
		"gap":           {"0001_a", "0003_b"},
		"twice":         {"0001_a", "0001_b"},
		"not from one":  {"0002_a"},
		"not a number":  {"first"},
		"without order": {"0001_a", "2_b"},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := fstest.MapFS{}
			for _, f := range files {
				fsys["migrations/"+f+".sql"] = &fstest.MapFile{}
			}
			if s, err := readSchema(fsys); err == nil {
				t.Errorf("got schema %v, want an error", s)
			}
		})
	}
}

func TestBackup(t *testing.T) {
	ctx := context.Background()
	path := mustCreate(t)
	s := mustOpen(t, path)
	before := mustLease(t, s)
	if err := put(s, "a", 100); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "backup.db")
	if err := s.Backup(ctx, copied); err != nil {
		t.Fatal(err)
	}
	if err := s.Backup(ctx, copied); !errors.Is(err, fs.ErrExist) {
		t.Errorf("backing up over a file: got %v, want %v", err, fs.ErrExist)
	}
	if err := put(s, "b", 100); err != nil {
		t.Fatal(err)
	}
	if m := readMeta(t, s); !m.Restored.IsZero() {
		t.Errorf("the original was stamped: %+v", m)
	}

	restored := mustOpen(t, copied)
	if diff := cmp.Diff([]string{"a"}, ids(t, restored)); diff != "" {
		t.Errorf("rows of the copy (-want +got):\n%s", diff)
	}
	m := readMeta(t, restored)
	if m.Restored.IsZero() || m.StoreID != readMeta(t, s).StoreID {
		t.Errorf("got meta %+v, want the original's with a stamp", m)
	}
	err := inTx(ctx, restored.write, func(tx *sql.Tx) error {
		row, err := readLease(ctx, tx)
		if err != nil || !row.expired(time.Unix(0, 0)) {
			t.Errorf("got lease %+v, error %v, want a free one: its holder never had the copy", row, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if l := mustLease(t, restored); l.Term() <= before.Term() {
		t.Errorf("got term %d, want one over %d", l.Term(), before.Term())
	}
	err = restored.Update(ctx, func(tx store.Tx) error {
		m.Restored = time.Time{}
		return store.WriteMeta(tx, m)
	})
	if m := readMeta(t, restored); err != nil || !m.Restored.IsZero() {
		t.Errorf("clearing the stamp: error %v, meta %+v", err, m)
	}
}
