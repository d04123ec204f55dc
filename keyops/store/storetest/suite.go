package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keyferry/keyferry/keyops/store"
)

// Open opens the same data with each call, as another process would, with this clock for
// its lease. The caller closes the store.
type Open func(now func() time.Time) store.Store

// Suite runs the contract of package store. fresh returns an Open over data of its own,
// new and empty, for each test.
func Suite(t *testing.T, fresh func(t *testing.T) Open) {
	for _, tc := range []struct {
		name string
		run  func(*testing.T, *fixture)
	}{
		{"RowsComeBackAsPut", testRoundTrip},
		{"VersionsMustFollow", testVersions},
		{"RowsOutsideTheirBoundsAreRefused", testBounds},
		{"AFailedUpdateAppliesNothing", testRollback},
		{"APanicAppliesNothing", testPanic},
		{"UpdatesSurviveReopening", testDurable},
		{"ScanIsOrderedAndEndsAtTheFirstError", testScan},
		{"ScanIsWholeOverManyRows", testScanMany},
		{"AViewSeesOneState", testSnapshot},
		{"AViewCannotWrite", testReadOnly},
		{"UpdatesAreSerialised", testSerial},
		{"AnEndedContextStopsTheWait", testContext},
		{"WithoutTheLeaseNothingIsWritten", testNoLease},
		{"TheLeaseHasOneHolder", testLeaseHeld},
		{"AnExpiredLeaseIsTakenAndItsHolderFenced", testLeaseExpired},
		{"AnExpiredLeaseThatNobodyTookIsRenewed", testLeaseRenewed},
		{"AReleasedLeaseIsFreeAtOnce", testLeaseReleased},
		{"ClosingReleasesTheLease", testLeaseClosed},
		{"AStandbyWaits", testStandby},
		{"AClosedStoreRefuses", testClosed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.run(t, &fixture{t: t, open: fresh(t), now: time.Unix(1_800_000_000, 0)})
		})
	}
}

const ttl = 10 * time.Second

// fixture is one test's data and clock.
type fixture struct {
	t    *testing.T
	open Open

	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (f *fixture) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fixture) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

// reader opens the store without lease.
func (f *fixture) reader() store.Store {
	f.t.Helper()
	s := f.open(f.clock)
	f.t.Cleanup(func() { s.Close() })
	return s
}

// writer opens the store and takes the lease.
func (f *fixture) writer() store.Store {
	f.t.Helper()
	s := f.reader()
	f.lease(s, "writer")
	return s
}

func (f *fixture) lease(s store.Store, owner string) store.Lease {
	f.t.Helper()
	l, err := s.AcquireLease(context.Background(), owner, ttl)
	if err != nil {
		f.t.Fatalf("acquiring the lease: %v", err)
	}
	return l
}

func (f *fixture) update(s store.Store, fn func(store.Tx) error) {
	f.t.Helper()
	if err := s.Update(context.Background(), fn); err != nil {
		f.t.Fatalf("updating: %v", err)
	}
}

func (f *fixture) put(s store.Store, rows ...store.Row) {
	f.t.Helper()
	f.update(s, func(tx store.Tx) error { return putAll(tx, rows...) })
}

func putAll(tx store.Tx, rows ...store.Row) error {
	for _, row := range rows {
		if err := tx.Put(row); err != nil {
			return err
		}
	}
	return nil
}

// rows returns every row of these kinds.
func (f *fixture) rows(s store.Store, kinds ...store.Kind) (rows []store.Row) {
	f.t.Helper()
	err := s.View(context.Background(), func(tx store.Tx) error {
		for _, kind := range kinds {
			err := tx.Scan(kind, func(row store.Row) error {
				rows = append(rows, row)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		f.t.Fatalf("reading: %v", err)
	}
	return rows
}

func (f *fixture) want(err, want error) {
	f.t.Helper()
	if !errors.Is(err, want) {
		f.t.Fatalf("got error %v, want %v", err, want)
	}
}

func (f *fixture) equal(got, want any) {
	f.t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		f.t.Fatalf("difference (-want +got):\n%s", diff)
	}
}

func row(kind store.Kind, id string, version uint64, body string) store.Row {
	return store.Row{Kind: kind, ID: id, Version: version, Body: []byte(body), Seal: []byte("seal of " + id)}
}

func testRoundTrip(t *testing.T, f *fixture) {
	s := f.writer()
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	rows := []store.Row{
		{Kind: "key", ID: "empty", Version: 1},
		{Kind: "key", ID: "every-byte", Version: 1, Body: every, Seal: every[:64]},
		{Kind: "key", ID: `quotes'"%_\;--`, Version: 1, Body: []byte("x")},
		{Kind: "key", ID: strings.Repeat("~", 512), Version: 1, Body: bytes.Repeat([]byte("long"), 1<<13)},
		row("peer", "every-byte", 1, "the same ID in another kind"),
	}
	f.put(s, rows...)
	f.update(s, func(tx store.Tx) error {
		for _, want := range rows {
			got, err := tx.Get(want.Kind, want.ID)
			if err != nil {
				return err
			}
			f.equal(got, want)
		}
		_, err := tx.Get("key", "none")
		f.want(err, store.ErrNotFound)
		kinds, err := tx.Kinds()
		f.equal(slices.DeleteFunc(kinds, func(k store.Kind) bool { return k == store.KindMeta }), []store.Kind{"key", "peer"})
		return err
	})
}

func testVersions(t *testing.T, f *fixture) {
	s := f.writer()
	f.put(s, row("key", "a", 1, "one"), row("key", "a", 2, "two"))
	for _, tc := range []struct {
		name string
		do   func(store.Tx) error
		want error
	}{
		{"put again as new", func(tx store.Tx) error { return tx.Put(row("key", "a", 1, "")) }, store.ErrConflict},
		{"put the same version", func(tx store.Tx) error { return tx.Put(row("key", "a", 2, "")) }, store.ErrConflict},
		{"put a version too high", func(tx store.Tx) error { return tx.Put(row("key", "a", 4, "")) }, store.ErrConflict},
		{"put version 2 of nothing", func(tx store.Tx) error { return tx.Put(row("key", "b", 2, "")) }, store.ErrConflict},
		{"delete an older version", func(tx store.Tx) error { return tx.Delete("key", "a", 1) }, store.ErrConflict},
		{"delete a version to come", func(tx store.Tx) error { return tx.Delete("key", "a", 3) }, store.ErrConflict},
		{"delete nothing", func(tx store.Tx) error { return tx.Delete("key", "b", 1) }, store.ErrNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// A conflict is an answer, not a failure: what else the transaction does stands.
			var n uint64
			f.update(s, func(tx store.Tx) error {
				f.want(tc.do(tx), tc.want)
				if old, err := tx.Get("log", "n"); err == nil {
					n = old.Version
				}
				return tx.Put(row("log", "n", n+1, ""))
			})
			f.equal(f.rows(s, "key", "log"), []store.Row{row("key", "a", 2, "two"), row("log", "n", n+1, "")})
		})
	}
	f.update(s, func(tx store.Tx) error { return tx.Delete("key", "a", 2) })
	f.equal(f.rows(s, "key"), []store.Row(nil))
	f.put(s, row("key", "a", 1, "born again"))
}

func testBounds(t *testing.T, f *fixture) {
	s := f.writer()
	ok := row("key", "a", 1, "")
	for name, change := range map[string]func(*store.Row){
		"no kind":             func(r *store.Row) { r.Kind = "" },
		"kind with capital":   func(r *store.Row) { r.Kind = "Key" },
		"kind too long":       func(r *store.Row) { r.Kind = store.Kind(strings.Repeat("k", 33)) },
		"no ID":               func(r *store.Row) { r.ID = "" },
		"ID with space":       func(r *store.Row) { r.ID = "a b" },
		"ID with line break":  func(r *store.Row) { r.ID = "a\n" },
		"ID not ASCII":        func(r *store.Row) { r.ID = "é" },
		"ID with zero byte":   func(r *store.Row) { r.ID = "a\x00" },
		"ID too long":         func(r *store.Row) { r.ID = strings.Repeat("a", 513) },
		"version zero":        func(r *store.Row) { r.Version = 0 },
		"version over 63 bit": func(r *store.Row) { r.Version = math.MaxInt64 + 1 },
		"body too long":       func(r *store.Row) { r.Body = make([]byte, store.MaxBody+1) },
		"seal too long":       func(r *store.Row) { r.Seal = make([]byte, 65) },
	} {
		t.Run(name, func(t *testing.T) {
			bad := ok
			change(&bad)
			err := s.Update(context.Background(), func(tx store.Tx) error { return tx.Put(bad) })
			f.want(err, store.ErrInvalid)
		})
	}
	f.put(s, ok)
}

func testRollback(t *testing.T, f *fixture) {
	s := f.writer()
	f.put(s, row("key", "a", 1, "one"), row("key", "b", 1, "one"))
	before := f.rows(s, "key")
	broken := errors.New("fn's own error")
	err := s.Update(context.Background(), func(tx store.Tx) error {
		err := errors.Join(tx.Put(row("key", "a", 2, "two")), tx.Delete("key", "b", 1), tx.Put(row("key", "c", 1, "")))
		if err != nil {
			t.Fatal(err)
		}
		return broken
	})
	f.want(err, broken)
	f.equal(f.rows(s, "key"), before)
}

func testPanic(t *testing.T, f *fixture) {
	s := f.writer()
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic did not reach the caller")
			}
		}()
		_ = s.Update(context.Background(), func(tx store.Tx) error {
			if err := tx.Put(row("key", "a", 1, "")); err != nil {
				t.Error(err)
			}
			panic("in fn")
		})
	}()
	f.equal(f.rows(s, "key"), []store.Row(nil))
	f.put(s, row("key", "a", 1, "the store goes on"))
}

func testDurable(t *testing.T, f *fixture) {
	s := f.writer()
	f.put(s, row("key", "a", 1, "one"))
	// Not closed: what a returned Update wrote needs no orderly end.
	f.equal(f.rows(f.reader(), "key"), []store.Row{row("key", "a", 1, "one")})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f.equal(f.rows(f.reader(), "key"), []store.Row{row("key", "a", 1, "one")})
}

func testScan(t *testing.T, f *fixture) {
	s := f.writer()
	for _, id := range []string{"b", "a", "_", "B", "aa", "~", "!", "10", "9"} {
		f.put(s, row("key", id, 1, ""), row("other", id, 1, ""))
	}
	var ids []string
	for _, r := range f.rows(s, "key") {
		ids = append(ids, r.ID)
	}
	f.equal(ids, []string{"!", "10", "9", "B", "_", "a", "aa", "b", "~"})

	enough, calls := errors.New("enough"), 0
	err := s.View(context.Background(), func(tx store.Tx) error {
		return tx.Scan("key", func(store.Row) error {
			calls++
			if calls == 2 {
				return enough
			}
			return nil
		})
	})
	f.want(err, enough)
	f.equal(calls, 2)
}

func testScanMany(t *testing.T, f *fixture) {
	s := f.writer()
	const n = 1000
	f.update(s, func(tx store.Tx) error {
		for i := range n {
			if err := tx.Put(row("key", fmt.Sprintf("k%04d", i), 1, "")); err != nil {
				return err
			}
		}
		return nil
	})
	i := 0
	// A scan must bear other work in its transaction between two rows.
	f.update(s, func(tx store.Tx) error {
		return tx.Scan("key", func(r store.Row) error {
			f.equal(r.ID, fmt.Sprintf("k%04d", i))
			i++
			return tx.Put(row("copy", r.ID, 1, ""))
		})
	})
	f.equal(i, n)
	f.equal(len(f.rows(s, "copy")), n)
}

func testSnapshot(t *testing.T, f *fixture) {
	s := f.writer()
	f.put(s, row("key", "a", 1, "one"), row("key", "b", 1, "one"))
	err := s.View(context.Background(), func(tx store.Tx) error {
		a, err := tx.Get("key", "a")
		if err != nil {
			return err
		}
		f.put(s, row("key", "a", 2, "two"), row("key", "b", 2, "two"))
		b, err := tx.Get("key", "b")
		if err != nil {
			return err
		}
		f.equal([]uint64{a.Version, b.Version}, []uint64{1, 1})
		return nil
	})
	f.want(err, nil)
	f.equal(f.rows(s, "key"), []store.Row{row("key", "a", 2, "two"), row("key", "b", 2, "two")})
}

func testReadOnly(t *testing.T, f *fixture) {
	s := f.writer()
	f.put(s, row("key", "a", 1, ""))
	err := s.View(context.Background(), func(tx store.Tx) error {
		f.want(tx.Put(row("key", "b", 1, "")), store.ErrReadOnly)
		f.want(tx.Delete("key", "a", 1), store.ErrReadOnly)
		return nil
	})
	f.want(err, nil)
	f.equal(len(f.rows(s, "key")), 1)
}

func testSerial(t *testing.T, f *fixture) {
	s := f.writer()
	f.put(s, row("count", "n", 1, ""))
	const workers, each = 8, 10
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for range each {
				err := s.Update(context.Background(), func(tx store.Tx) error {
					n, err := tx.Get("count", "n")
					if err != nil {
						return err
					}
					n.Version++
					return tx.Put(n)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	f.equal(f.rows(s, "count")[0].Version, uint64(1+workers*each))
}

func testContext(t *testing.T, f *fixture) {
	s := f.writer()
	ctx, cancel := context.WithCancel(context.Background())
	inside, leave := make(chan struct{}), make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		err := s.Update(ctx, func(tx store.Tx) error {
			close(inside)
			<-leave
			return tx.Put(row("key", "first", 1, ""))
		})
		if err != nil {
			t.Errorf("a transaction that has begun ends with its context: %v", err)
		}
	})
	<-inside
	group.Go(func() {
		err := s.Update(ctx, func(tx store.Tx) error { return tx.Put(row("key", "second", 1, "")) })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("waiting with an ended context: got %v, want %v", err, context.Canceled)
		}
		close(leave)
	})
	cancel()
	group.Wait()
	f.equal(f.rows(s, "key"), []store.Row{row("key", "first", 1, "")})
}

func testClosed(t *testing.T, f *fixture) {
	s := f.writer()
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	nothing := func(store.Tx) error { t.Error("fn ran"); return nil }
	f.want(s.Update(context.Background(), nothing), store.ErrClosed)
	f.want(s.View(context.Background(), nothing), store.ErrClosed)
	_, err := s.AcquireLease(context.Background(), "late", ttl)
	f.want(err, store.ErrClosed)
}
