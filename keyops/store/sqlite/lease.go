package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keyferry/keyferry/keyops/store"
)

// leaseRow is the one row of writer_lease.
type leaseRow struct {
	owner   string
	term    uint64
	expires int64 // milliseconds since 1970; 0 if released
}

func (r leaseRow) expired(now time.Time) bool { return now.UnixMilli() >= r.expires }

func readLease(ctx context.Context, tx *sql.Tx) (row leaseRow, err error) {
	err = tx.QueryRowContext(ctx, `SELECT owner, term, expires FROM writer_lease WHERE slot = 1`).
		Scan(&row.owner, &row.term, &row.expires)
	if errors.Is(err, sql.ErrNoRows) {
		return leaseRow{}, nil
	}
	return row, wrap("reading the writer lease", err)
}

func writeLease(ctx context.Context, tx *sql.Tx, row leaseRow) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO writer_lease (slot, owner, term, expires) VALUES (1, $1, $2, $3)
		ON CONFLICT (slot) DO UPDATE SET owner = excluded.owner, term = excluded.term, expires = excluded.expires`,
		row.owner, int64(row.term), row.expires)
	return wrap("writing the writer lease", err)
}

// checkLease refuses a write by anybody but the present writer.
func (s *Store) checkLease(ctx context.Context, tx *sql.Tx) error {
	row, err := readLease(ctx, tx)
	if err != nil {
		return err
	}
	if term := s.term.Load(); term == 0 || term != row.term {
		return fmt.Errorf("%w: the writer is %q with term %d, this process has term %d", store.ErrLeaseLost, row.owner, row.term, term)
	}
	if row.expired(s.now()) {
		return fmt.Errorf("%w: term %d has expired", store.ErrLeaseLost, row.term)
	}
	return nil
}

// AcquireLease implements store.Store.
func (s *Store) AcquireLease(ctx context.Context, owner string, ttl time.Duration) (store.Lease, error) {
	if owner == "" || ttl < time.Millisecond {
		return nil, fmt.Errorf("%w: a lease needs an owner and a ttl of at least a millisecond", store.ErrInvalid)
	}
	l := &lease{store: s, owner: owner, ttl: ttl}
	err := s.writing(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := s.schema.migrate(ctx, tx, s.now()); err != nil {
			return err
		}
		row, err := readLease(ctx, tx)
		if err != nil {
			return err
		}
		mine := row.term == s.term.Load()
		if !mine && !row.expired(s.now()) && !s.locks.abandoned(row.term) {
			return &store.HeldError{Owner: row.owner, Term: row.term, Expires: time.UnixMilli(row.expires)}
		}
		l.term = row.term + 1
		l.expires = s.now().Add(ttl)
		if err := s.locks.lock(l.term); err != nil {
			return err
		}
		return writeLease(ctx, tx, leaseRow{owner: owner, term: l.term, expires: l.expires.UnixMilli()})
	})
	if err != nil {
		if l.term != 0 {
			s.locks.unlock(l.term)
		}
		return nil, fmt.Errorf("acquiring the writer lease: %w", err)
	}
	if before := s.term.Swap(l.term); before != 0 {
		s.locks.unlock(before)
	}
	return l, nil
}

// release gives up the term, if it is still the present one. The caller holds s.turn.
func (s *Store) release(ctx context.Context, term uint64) error {
	err := inTx(ctx, s.write, func(tx *sql.Tx) error {
		row, err := readLease(ctx, tx)
		if err != nil || row.term != term {
			return err
		}
		row.expires = 0
		return writeLease(ctx, tx, row)
	})
	s.locks.unlock(term)
	return err
}

// lease implements store.Lease.
type lease struct {
	store *Store
	owner string
	term  uint64
	ttl   time.Duration

	mu      sync.Mutex
	expires time.Time // guarded by mu
}

// Owner implements store.Lease.
func (l *lease) Owner() string { return l.owner }

// Term implements store.Lease.
func (l *lease) Term() uint64 { return l.term }

// Expires implements store.Lease.
func (l *lease) Expires() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expires
}

// Renew implements store.Lease.
func (l *lease) Renew(ctx context.Context) error {
	var expires time.Time
	err := l.store.writing(ctx, func(ctx context.Context, tx *sql.Tx) error {
		row, err := readLease(ctx, tx)
		if err != nil {
			return err
		}
		if row.term != l.term || row.expires == 0 {
			return fmt.Errorf("%w: the writer is %q with term %d", store.ErrLeaseLost, row.owner, row.term)
		}
		expires = l.store.now().Add(l.ttl)
		row.expires = expires.UnixMilli()
		return writeLease(ctx, tx, row)
	})
	if err != nil {
		return fmt.Errorf("renewing the writer lease: %w", err)
	}
	l.mu.Lock()
	l.expires = expires
	l.mu.Unlock()
	return nil
}

// Release implements store.Lease.
func (l *lease) Release(ctx context.Context) error {
	err := l.store.writing(ctx, func(ctx context.Context, tx *sql.Tx) error {
		row, err := readLease(ctx, tx)
		if err != nil || row.term != l.term {
			return err
		}
		row.expires = 0
		return writeLease(ctx, tx, row)
	})
	if err != nil {
		return fmt.Errorf("releasing the writer lease: %w", err)
	}
	if l.store.term.CompareAndSwap(l.term, 0) {
		l.store.locks.unlock(l.term)
	}
	return nil
}
