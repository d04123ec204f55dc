package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops/store"
)

// write tries one small update.
func write(s store.Store) error {
	return s.Update(context.Background(), func(tx store.Tx) error {
		old, err := tx.Get("log", "n")
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return tx.Put(row("log", "n", old.Version+1, ""))
	})
}

func testNoLease(t *testing.T, f *fixture) {
	s := f.reader()
	f.want(write(s), store.ErrLeaseLost)
	f.equal(f.rows(s, "log"), []store.Row(nil))
	for _, tc := range []struct {
		owner string
		ttl   time.Duration
	}{{"", ttl}, {"a", 0}, {"a", -ttl}} {
		_, err := s.AcquireLease(context.Background(), tc.owner, tc.ttl)
		f.want(err, store.ErrInvalid)
	}
	f.want(write(s), store.ErrLeaseLost)
}

func testLeaseHeld(t *testing.T, f *fixture) {
	first, second := f.reader(), f.reader()
	a := f.lease(first, "first")
	f.equal(a.Owner(), "first")
	f.equal(a.Expires().Equal(f.clock().Add(ttl)), true)

	_, err := second.AcquireLease(context.Background(), "second", ttl)
	f.want(err, store.ErrLeaseHeld)
	var held *store.HeldError
	if !errors.As(err, &held) || held.Owner != "first" || held.Term != a.Term() || !held.Expires.Equal(a.Expires()) {
		t.Fatalf("got %#v, want a HeldError that names the holder", err)
	}
	f.want(write(second), store.ErrLeaseLost)
	f.want(write(first), nil)

	b := f.lease(first, "first again")
	f.equal(b.Term() > a.Term(), true)
	f.want(a.Renew(context.Background()), store.ErrLeaseLost)
	f.want(a.Release(context.Background()), nil)
	f.want(write(first), nil)
}

func testLeaseExpired(t *testing.T, f *fixture) {
	first, second := f.reader(), f.reader()
	a := f.lease(first, "first")
	f.want(write(first), nil)

	f.advance(ttl - time.Millisecond)
	f.want(write(first), nil)
	_, err := second.AcquireLease(context.Background(), "second", ttl)
	f.want(err, store.ErrLeaseHeld)

	f.advance(time.Millisecond)
	f.want(write(first), store.ErrLeaseLost)
	b := f.lease(second, "second")
	f.equal(b.Term() > a.Term(), true)
	f.want(write(second), nil)
	f.want(write(first), store.ErrLeaseLost)
	// The first writer's clock going back does not make it a writer again.
	f.advance(-2 * ttl)
	f.want(write(first), store.ErrLeaseLost)
	f.want(a.Renew(context.Background()), store.ErrLeaseLost)
	f.want(a.Release(context.Background()), nil)
	f.want(write(second), nil)
	_, err = first.AcquireLease(context.Background(), "first", ttl)
	f.want(err, store.ErrLeaseHeld)
	f.equal(len(f.rows(first, "log")), 1)
}

func testLeaseRenewed(t *testing.T, f *fixture) {
	s := f.reader()
	l := f.lease(s, "only")
	f.advance(3 * ttl)
	f.want(write(s), store.ErrLeaseLost)
	f.want(l.Renew(context.Background()), nil)
	f.equal(l.Expires().Equal(f.clock().Add(ttl)), true)
	f.want(write(s), nil)
}

func testLeaseReleased(t *testing.T, f *fixture) {
	first, second := f.reader(), f.reader()
	a := f.lease(first, "first")
	f.want(a.Release(context.Background()), nil)
	f.want(write(first), store.ErrLeaseLost)
	f.want(a.Renew(context.Background()), store.ErrLeaseLost)
	b := f.lease(second, "second")
	f.equal(b.Term() > a.Term(), true)
	f.want(write(second), nil)
	f.want(a.Release(context.Background()), nil)
	f.want(write(second), nil)
}

func testLeaseClosed(t *testing.T, f *fixture) {
	first := f.writer()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	f.want(write(f.writer()), nil)
}

func testStandby(t *testing.T, f *fixture) {
	first, second := f.reader(), f.reader()
	a := f.lease(first, "first")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type result struct {
		lease store.Lease
		err   error
	}
	got := make(chan result, 1)
	go func() {
		l, _, err := store.WaitLease(ctx, second, "second", ttl, time.Millisecond)
		got <- result{l, err}
	}()
	select {
	case r := <-got:
		t.Fatalf("the standby did not wait: %v", r)
	case <-time.After(20 * time.Millisecond):
	}
	f.want(write(first), nil)
	f.want(a.Release(context.Background()), nil)
	r := <-got
	f.want(r.err, nil)
	f.equal(r.lease.Owner(), "second")
	f.want(write(second), nil)

	cancel()
	_, _, err := store.WaitLease(ctx, first, "third", ttl, time.Millisecond)
	f.want(err, context.Canceled)

	// KeepLease renews until its context ends, and says so when the lease is lost.
	f.advance(time.Second)
	ctx, cancel = context.WithCancel(context.Background())
	kept := make(chan error, 1)
	go func() {
		kept <- store.KeepLease(ctx, r.lease, 3*time.Millisecond, func(err error) { t.Error(err) })
	}()
	for deadline := time.Now().Add(10 * time.Second); !r.lease.Expires().Equal(f.clock().Add(ttl)); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the lease is not renewed")
		}
	}
	cancel()
	f.want(<-kept, nil)
	f.want(r.lease.Release(context.Background()), nil)
	f.want(store.KeepLease(context.Background(), r.lease, 3*time.Millisecond, func(err error) { t.Error(err) }), store.ErrLeaseLost)
}
