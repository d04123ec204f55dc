package storetest_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/sqlite"
	"github.com/keyferry/keyferry/keyops/store/storetest"
)

func TestFaulty(t *testing.T) {
	ctx := context.Background()
	for _, tc := range []struct {
		name    string
		at      storetest.Stage
		fault   error
		applied bool
		unknown bool
		dead    bool
	}{
		{name: "no fault", at: "never", applied: true},
		{name: "failed before", at: storetest.Before, fault: errors.New("no")},
		{name: "failed, not applied", at: storetest.Within, fault: errors.New("no")},
		{name: "failed, but applied", at: storetest.After, fault: errors.New("no"), applied: true, unknown: true, dead: true},
		{name: "crash before", at: storetest.Before, fault: storetest.ErrCrash, dead: true},
		{name: "crash, not applied", at: storetest.Within, fault: storetest.ErrCrash, dead: true},
		{name: "crash, but applied", at: storetest.After, fault: storetest.ErrCrash, applied: true, unknown: true, dead: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if err := sqlite.Create(ctx, path, "kfi-0123456789ab"); err != nil {
				t.Fatal(err)
			}
			inner, err := sqlite.Open(ctx, sqlite.Config{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			defer inner.Close()
			var points []string
			s := storetest.NewFaulty(inner, func(p storetest.Point) error {
				points = append(points, p.String())
				if p.Stage == tc.at {
					return tc.fault
				}
				return nil
			})
			if _, err := s.AcquireLease(ctx, "test", time.Minute); err != nil {
				t.Fatal(err)
			}
			put := func(id string) error {
				return s.Update(ctx, func(tx store.Tx) error {
					return tx.Put(store.Row{Kind: "key", ID: id, Version: 1})
				})
			}
			err = put("a")
			if !errors.Is(err, tc.fault) || errors.Is(err, storetest.ErrInjected) != (tc.fault != nil) {
				t.Errorf("got error %v, want %v", err, tc.fault)
			}
			if got := errors.Is(err, store.ErrOutcomeUnknown); got != tc.unknown {
				t.Errorf("outcome unknown is %t in %v, want %t", got, err, tc.unknown)
			}
			err = inner.View(ctx, func(tx store.Tx) error {
				_, err := tx.Get("key", "a")
				return err
			})
			if applied := err == nil; applied != tc.applied {
				t.Errorf("applied is %t, want %t", applied, tc.applied)
			}
			err = s.View(ctx, func(store.Tx) error { return nil })
			if dead := errors.Is(err, store.ErrClosed); dead != tc.dead {
				t.Errorf("dead is %t (%v), want %t", dead, err, tc.dead)
			}
			want := []string{"before update 1", "within put key a", "after put key a"}
			for i, stage := range []storetest.Stage{storetest.Before, storetest.Within} {
				if tc.at == stage {
					want = want[:i+1]
				}
			}
			if diff := cmp.Diff(want, points); diff != "" {
				t.Errorf("points (-want +got):\n%s", diff)
			}
		})
	}
}
