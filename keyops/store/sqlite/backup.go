package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/keyops/store"
)

// Backup writes a consistent copy to a file that must not exist, while the store is in use.
// The copy is stamped with the time, so that whoever opens it as a store knows that it was
// restored; its lease is free and its terms go on.
func (s *Store) Backup(ctx context.Context, path string) error {
	if err := s.backup(ctx, path); err != nil {
		return fmt.Errorf("backing up store %s to %s: %w", s.path, path, err)
	}
	return nil
}

func (s *Store) backup(ctx context.Context, path string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.refused != nil {
		return s.refused
	}
	taken := s.now()
	return assemble(path, func(tmp string) error {
		// A connection of its own: it reads one state while updates go on.
		err := withDB(s.path, func(db *sql.DB) error {
			_, err := db.ExecContext(ctx, `VACUUM INTO $1`, tmp)
			return wrap("copying", err)
		})
		if err != nil {
			return err
		}
		return withDB(tmp, func(db *sql.DB) error {
			return inTx(ctx, db, func(tx *sql.Tx) error { return stamp(ctx, tx, taken) })
		})
	})
}

func stamp(ctx context.Context, tx *sql.Tx, taken time.Time) error {
	t := &transaction{ctx: ctx, tx: tx}
	meta, err := store.ReadMeta(t)
	if err != nil {
		return err
	}
	meta.Restored = taken
	if err := store.WriteMeta(t, meta); err != nil {
		return err
	}
	row, err := readLease(ctx, tx)
	if err != nil || row.term == 0 {
		return err
	}
	row.expires = 0
	return writeLease(ctx, tx, row)
}
