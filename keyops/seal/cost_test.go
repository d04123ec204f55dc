package seal_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/store/sqlite"
)

// TestCost shows that a change costs two seals, however many rows there are.
func TestCost(t *testing.T) {
	f := newFixture(t)
	var ids []string
	for i := range 2000 {
		ids = append(ids, fmt.Sprintf("k%04d", i))
	}
	for chunk := range slices.Chunk(ids, 500) {
		f.put("key", chunk...)
	}
	f.stop()
	f.macer.calls.Store(0)
	f.wantFindings(f.start())
	if n := f.macer.calls.Load(); n != int64(len(ids))+1 {
		t.Errorf("a start of %d rows made %d seals, want one each and one for the head", len(ids), n)
	}
	f.macer.calls.Store(0)
	f.put("key", "k0000")
	if n := f.macer.calls.Load(); n != 2 {
		t.Errorf("an update of one row made %d seals, want 2", n)
	}
	f.macer.calls.Store(0)
	f.problem("key", "k0001")
	if n := f.macer.calls.Load(); n != 0 {
		t.Errorf("a read made %d seals, want none", n)
	}
}

func BenchmarkUpdate(b *testing.B) {
	for _, rows := range []int{10, 10_000} {
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			ctx := context.Background()
			path := filepath.Join(b.TempDir(), "store.db")
			if err := sqlite.Create(ctx, path, instance); err != nil {
				b.Fatal(err)
			}
			s, err := sqlite.Open(ctx, sqlite.Config{Path: path})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			if _, err := s.AcquireLease(ctx, "bench", time.Hour); err != nil {
				b.Fatal(err)
			}
			book, _, err := seal.Open(ctx, s, &macer{}, instance)
			if err != nil {
				b.Fatal(err)
			}
			err = book.Update(ctx, func(tx *seal.Tx) error {
				for i := range rows {
					if err := tx.Put("key", fmt.Sprintf("k%06d", i), make([]byte, 1000)); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := book.Update(ctx, func(tx *seal.Tx) error { return tx.Put("key", "k000003", make([]byte, 1000)) }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
