package keyops_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// fakeClock is a clock that a test moves: as time passes, or by setting it.
type fakeClock struct {
	mu      sync.Mutex
	wall    time.Time
	elapsed time.Duration
}

func newClock() *fakeClock {
	return &fakeClock{wall: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}
}

func (c *fakeClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall
}

func (c *fakeClock) passed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.elapsed
}

// advance lets time pass.
func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.elapsed = c.wall.Add(d), c.elapsed+d
}

// set moves the clock while no time passes.
func (c *fakeClock) set(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = c.wall.Add(by)
}

// TestConfirmClock: a quorum of operators ends the day in which nothing is destroyed, once,
// for the keys that it was shown; fewer operators, or another set of keys, do not.
func TestConfirmClock(t *testing.T) {
	c := newClock()
	r := keyopstest.New(t, keyopstest.Options{Clock: c.now, Elapsed: c.passed, Operators: 3})
	first, second := create(t, r, keyops.CreateKeyInput{}), create(t, r, keyops.CreateKeyInput{})
	schedule(t, r, first, 7)
	work(t, r)
	r.Stop()
	c.advance(20 * aDay)
	in, stale, err := r.InspectClock(t.Context())
	if err != nil || len(in.Pending) != 1 || in.Pending[0].Key != first.KeyID {
		t.Fatalf("%+v, %v", in, err)
	}
	if err := r.ConfirmClock(t.Context(), r.Approve(t, stale, 1)); !errors.Is(err, approval.ErrNotEnough) {
		t.Errorf("one of three operators: %v", err)
	}
	if err := r.ConfirmClock(t.Context(), nil); !errors.Is(err, approval.ErrNotEnough) {
		t.Errorf("no approvals: %v", err)
	}
	if err := startErr(r); err != nil {
		t.Fatal(err)
	}
	schedule(t, r, second, 7)
	pass(t, r, c, time.Hour, 20*time.Minute)
	if !exists(t, r, first) {
		t.Fatal("deleted although the clock is in doubt")
	}
	r.Stop()
	if err := r.ConfirmClock(t.Context(), r.Approve(t, stale, 3)); !errors.Is(err, approval.ErrNotEnough) && !errors.Is(err, approval.ErrExpired) {
		t.Errorf("approvals of another set of keys: %v", err)
	}
	_, q, err := r.InspectClock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	approvals := r.Approve(t, q, 2)
	if err := r.ConfirmClock(t.Context(), approvals); err != nil {
		t.Fatal(err)
	}
	if err := r.ConfirmClock(t.Context(), approvals); err == nil {
		t.Error("approvals count twice")
	}
	if err := startErr(r); err != nil {
		t.Fatal(err)
	}
	c.advance(time.Minute)
	work(t, r)
	if exists(t, r, first) || !exists(t, r, second) {
		t.Errorf("after the confirmation: the key that is due exists: %v, the other: %v", exists(t, r, first), exists(t, r, second))
	}
	records := events(t, r, keyops.EventConfirmClock)
	if len(records) < 2 || records[0].Outcome != "Begun" || records[1].Outcome != "Success" || records[1].Details["approvedBy"] != "operator-1, operator-2" {
		t.Errorf("audited as %+v", records)
	}
}

// TestRestoredStoreDeletesNothingForADay: a backup has forgotten that a deletion was
// cancelled, even if it is minutes old.
func TestRestoredStoreDeletesNothingForADay(t *testing.T) {
	r, c := onAClock(t)
	k := create(t, r, keyops.CreateKeyInput{})
	schedule(t, r, k, 7)
	pass(t, r, c, 7*aDay-10*time.Minute, time.Hour)
	r.Stop()
	stamp(t, r)
	c.advance(20 * time.Minute)
	for range 2 { // the second start knows no more of the backup
		if err := startErr(r); err != nil {
			t.Fatal(err)
		}
		r.Stop()
	}
	if err := startErr(r); err != nil {
		t.Fatal(err)
	}
	pass(t, r, c, 23*time.Hour, time.Hour)
	if !exists(t, r, k) {
		t.Fatal("deleted by a restored store within a day")
	}
	pass(t, r, c, 2*time.Hour, time.Hour)
	if exists(t, r, k) {
		t.Error("not deleted after a day")
	}
}
