package seal_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/sqlite"
	"github.com/keyferry/keyferry/keyops/store/storetest"
)

const instance = region.InstanceID("kfi-0123456789ab")

var errAway = errors.New("token gone")

// macer stands for the token's seal key.
type macer struct {
	key   string
	away  atomic.Bool
	calls atomic.Int64
}

func (m *macer) MAC(ctx context.Context, message []byte) ([]byte, error) {
	m.calls.Add(1)
	if m.away.Load() {
		return nil, errAway
	}
	h := hmac.New(sha256.New, []byte("seal key"+m.key))
	h.Write(message)
	return h.Sum(nil), ctx.Err()
}

// fixture is one store file and a daemon's view of it.
type fixture struct {
	*testing.T
	path  string
	macer *macer
	store store.Store
	book  *seal.Book
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, path: filepath.Join(t.TempDir(), "store.db"), macer: &macer{}}
	if err := sqlite.Create(context.Background(), f.path, instance); err != nil {
		t.Fatal(err)
	}
	if findings := f.start(); len(findings) != 0 {
		t.Fatalf("a new store has findings: %v", findings)
	}
	return f
}

// start opens the file as a daemon does.
func (f *fixture) start() seal.Findings {
	f.Helper()
	ctx := context.Background()
	s, err := sqlite.Open(ctx, sqlite.Config{Path: f.path})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	if _, err := s.AcquireLease(ctx, "test", time.Hour); err != nil {
		f.Fatal(err)
	}
	book, findings, err := seal.Open(ctx, s, f.macer, instance)
	if err != nil {
		f.Fatal(err)
	}
	f.store, f.book = s, book
	return findings
}

func (f *fixture) stop() {
	f.Helper()
	if err := f.store.Close(); err != nil {
		f.Fatal(err)
	}
}

// behind changes the file behind the daemon's back, and starts it again.
func (f *fixture) behind(statements ...string) seal.Findings {
	f.Helper()
	f.stop()
	db, err := sql.Open("sqlite", f.path)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range statements {
		result, err := db.Exec(s)
		if err != nil {
			f.Fatalf("%s: %v", s, err)
		}
		if n, err := result.RowsAffected(); !strings.HasPrefix(s, "CREATE") && (err != nil || n == 0) {
			f.Fatalf("%s: changed %d rows, error %v", s, n, err)
		}
	}
	if err := db.Close(); err != nil {
		f.Fatal(err)
	}
	return f.start()
}

func (f *fixture) copyTo(path string) {
	f.Helper()
	b, err := os.ReadFile(f.path)
	if err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) update(fn func(*seal.Tx) error) error {
	return f.book.Update(context.Background(), fn)
}

func (f *fixture) put(kind store.Kind, ids ...string) {
	f.Helper()
	err := f.update(func(tx *seal.Tx) error {
		for _, id := range ids {
			if err := tx.Put(kind, id, []byte("body of "+id)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		f.Fatalf("putting %s %v: %v", kind, ids, err)
	}
}

// problem returns what a read of the row says: "" if it holds, NOT_FOUND, or the problem.
func (f *fixture) problem(kind store.Kind, id string) seal.Problem {
	f.Helper()
	var found *seal.Finding
	err := f.book.View(context.Background(), func(tx *seal.Tx) error {
		_, err := tx.Get(kind, id)
		return err
	})
	switch {
	case err == nil:
		return ""
	case errors.Is(err, store.ErrNotFound):
		return "NOT_FOUND"
	case errors.As(err, &found) && errors.Is(err, seal.ErrTampered):
		return found.Problem
	}
	f.Fatalf("reading %s %s: %v", kind, id, err)
	return ""
}

func (f *fixture) wantFindings(got seal.Findings, want ...string) {
	f.Helper()
	var have []string
	for _, g := range got {
		have = append(have, fmt.Sprintf("%s %s %s", g.Kind, g.ID, g.Problem))
	}
	if diff := cmp.Diff(want, have); diff != "" {
		f.Fatalf("findings (-want +got):\n%s", diff)
	}
}

func TestSealBindsEverything(t *testing.T) {
	ctx := context.Background()
	m := &macer{}
	s := seal.NewSealer(m, instance)
	row := store.Row{Kind: "key", ID: "ab", Version: 3, Body: []byte("body")}
	mac, err := s.Seal(ctx, row)
	if err != nil {
		t.Fatal(err)
	}
	// The sealed bytes, written out: a change of them makes every stored seal void.
	want := hmac.New(sha256.New, []byte("seal key"))
	want.Write([]byte("\x00\x00\x00\x0fkeyferry/row/v1" + "\x00\x00\x00\x10kfi-0123456789ab" + "\x00\x00\x00\x03key" + "\x00\x00\x00\x02ab" +
		"\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x01" + "\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x03" + "\x00\x00\x00\x04body"))
	if !bytes.Equal(mac, want.Sum(nil)) {
		t.Fatal("the sealed bytes have changed")
	}
	row.Seal = mac
	if err := s.Check(ctx, row); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*store.Row){
		"kind":             func(r *store.Row) { r.Kind = "peer" },
		"ID":               func(r *store.Row) { r.ID = "ac" },
		"kind against ID":  func(r *store.Row) { r.Kind, r.ID = "keya", "b" },
		"version":          func(r *store.Row) { r.Version = 4 },
		"body":             func(r *store.Row) { r.Body = []byte("bodY") },
		"no body":          func(r *store.Row) { r.Body = nil },
		"seal":             func(r *store.Row) { r.Seal = bytes.Clone(mac); r.Seal[31] ^= 1 },
		"no seal":          func(r *store.Row) { r.Seal = nil },
		"half a seal":      func(r *store.Row) { r.Seal = mac[:16] },
		"more than a seal": func(r *store.Row) { r.Seal = append(bytes.Clone(mac), 0) },
	} {
		bad := row
		change(&bad)
		if err := s.Check(ctx, bad); !errors.Is(err, seal.ErrSeal) {
			t.Errorf("another %s: got %v, want %v", name, err, seal.ErrSeal)
		}
	}
	if err := seal.NewSealer(m, "kfi-ffffffffffff").Check(ctx, row); !errors.Is(err, seal.ErrSeal) {
		t.Errorf("another instance: got %v, want %v", err, seal.ErrSeal)
	}
	m.away.Store(true)
	if err := s.Check(ctx, row); !errors.Is(err, errAway) || errors.Is(err, seal.ErrSeal) {
		t.Errorf("without the token: got %v, want %v", err, errAway)
	}
}

func TestBook(t *testing.T) {
	f := newFixture(t)
	if head := f.book.Head(); head != (seal.Head{}) {
		t.Errorf("got head %v of a new store", head)
	}
	f.put("key", "a", "b")
	first := f.book.Head()
	if first.Version != 1 {
		t.Errorf("got head %v after one update, want version 1", first)
	}
	f.put("key", "a")
	f.put(store.KindMark, "a:us-east-1")
	second := f.book.Head()
	if second.Version != 2 || second.Hash == first.Hash {
		t.Errorf("got head %v after two sealed updates and one not sealed, want version 2", second)
	}
	err := f.update(func(tx *seal.Tx) error {
		row, err := tx.Get("key", "a")
		if err != nil || row.Version != 2 || string(row.Body) != "body of a" {
			t.Errorf("got %+v, error %v", row, err)
		}
		if err := tx.Delete("key", "b"); err != nil {
			return err
		}
		if _, err := tx.Get("key", "b"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a row that this transaction deleted: got %v", err)
		}
		if err := tx.Put("key", "c", nil); err != nil {
			return err
		}
		row, err = tx.Get("key", "c")
		if err != nil || row.Version != 1 {
			t.Errorf("a row that this transaction put: got %+v, error %v", row, err)
		}
		if err := tx.Delete("key", "none"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("deleting nothing: got %v", err)
		}
		return tx.Delete(store.KindMark, "a:us-east-1")
	})
	if err != nil {
		t.Fatal(err)
	}
	want := f.book.Head()
	f.stop()
	if findings := f.start(); len(findings) != 0 {
		t.Errorf("got findings %v", findings)
	}
	if got := f.book.Head(); got != want {
		t.Errorf("got head %v after a restart, want %v", got, want)
	}
	var ids []string
	err = f.book.View(context.Background(), func(tx *seal.Tx) error {
		if err := tx.Put("key", "x", nil); !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("a change in a view: got %v", err)
		}
		return tx.Scan("key", func(row store.Row, bad *seal.Finding) error {
			ids = append(ids, row.ID)
			if bad != nil {
				t.Error(bad)
			}
			return nil
		})
	})
	if diff := cmp.Diff([]string{"a", "c"}, ids); err != nil || diff != "" {
		t.Errorf("error %v, rows (-want +got):\n%s", err, diff)
	}
}

func TestRollback(t *testing.T) {
	f := newFixture(t)
	f.put("key", "a")
	before := f.book.Head()
	for name, fn := range map[string]func(*seal.Tx) error{
		"fn fails":                  func(tx *seal.Tx) error { return errors.Join(tx.Put("key", "a", nil), errAway) },
		"a failed Put is not heard": func(tx *seal.Tx) error { _ = tx.Put("key", "a b", nil); return tx.Put("key", "b", nil) },
		"a seal's own kind":         func(tx *seal.Tx) error { return tx.Put(store.KindHead, "store", nil) },
		"another of those":          func(tx *seal.Tx) error { return tx.Put(store.KindBucket, "00", nil) },
		"the token goes away": func(tx *seal.Tx) error {
			if err := tx.Put("key", "a", nil); err != nil {
				return err
			}
			f.macer.away.Store(true)
			return nil
		},
	} {
		err := f.update(fn)
		f.macer.away.Store(false)
		if err == nil {
			t.Errorf("%s: the update went through", name)
		}
	}
	if got := f.book.Head(); got != before {
		t.Errorf("got head %v, want %v", got, before)
	}
	f.put("key", "a")
	f.stop()
	f.wantFindings(f.start())
}

func TestBehind(t *testing.T) {
	f := newFixture(t)
	f.put("key", "a")
	old := filepath.Join(t.TempDir(), "old.db")
	f.stop()
	f.copyTo(old)
	f.wantFindings(f.start())
	first := f.book.Head()
	f.put("key", "a")
	second := f.book.Head()
	for name, tc := range map[string]struct {
		witness seal.Head
		want    error
	}{
		"the same":             {second, nil},
		"an older one":         {first, nil},
		"nothing":              {seal.Head{}, nil},
		"a newer one":          {seal.Head{Version: 3}, seal.ErrRolledBack},
		"another of this name": {seal.Head{Version: 2, Hash: first.Hash}, seal.ErrForked},
	} {
		if err := f.book.Head().Behind(tc.witness); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
	// The old file, written in another way: same version, another hash.
	f.stop()
	f.path = old
	f.wantFindings(f.start())
	if err := f.book.Head().Behind(second); !errors.Is(err, seal.ErrRolledBack) {
		t.Errorf("the older file: got %v, want %v", err, seal.ErrRolledBack)
	}
	f.put("key", "b")
	if err := f.book.Head().Behind(second); !errors.Is(err, seal.ErrForked) {
		t.Errorf("the older file written on: got %v, want %v", err, seal.ErrForked)
	}
}

// TestCrashes fails each stage of an update, restarts, and checks the whole state.
func TestCrashes(t *testing.T) {
	for _, stage := range []storetest.Stage{storetest.Before, storetest.Within, storetest.After} {
		for _, fault := range []error{storetest.ErrCrash, errors.New("failed")} {
			t.Run(fmt.Sprintf("%s %v", stage, fault), func(t *testing.T) {
				ctx := context.Background()
				f := newFixture(t)
				f.put("key", "a")
				before := f.book.Head()
				faulty := storetest.NewFaulty(f.store, func(p storetest.Point) error {
					if p.Stage == stage {
						return fault
					}
					return nil
				})
				book, _, err := seal.Open(ctx, faulty, f.macer, instance)
				if err != nil {
					t.Fatal(err)
				}
				err = book.Update(ctx, func(tx *seal.Tx) error { return errors.Join(tx.Delete("key", "a"), tx.Put("key", "b", nil)) })
				if !errors.Is(err, fault) {
					t.Fatalf("got %v, want %v", err, fault)
				}
				if book.Head() != before {
					t.Error("the head moved though the update failed")
				}
				if errors.Is(err, store.ErrOutcomeUnknown) {
					err := book.Update(ctx, func(tx *seal.Tx) error { return tx.Put("key", "c", nil) })
					if !errors.Is(err, store.ErrClosed) {
						t.Errorf("after an unknown outcome: got %v, want a refusal", err)
					}
				}
				f.stop()
				f.wantFindings(f.start())
				want := map[string]seal.Problem{"a": "", "b": "NOT_FOUND"}
				if stage == storetest.After {
					want = map[string]seal.Problem{"a": "NOT_FOUND", "b": ""}
				}
				for id, want := range want {
					if got := f.problem("key", id); got != want {
						t.Errorf("reading %s: got %q, want %q", id, got, want)
					}
				}
			})
		}
	}
}
