package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/store"
)

// Memory is a store's file without the file. Stores that are opened on it see the same rows,
// as processes do that open one database.
type Memory struct {
	turn chan struct{} // holds one value: the right to write

	mu    sync.Mutex
	rows  image    // guarded by mu; never changed, only replaced
	lease leaseRow // guarded by mu
	kills int      // guarded by mu; stores opened before the last kill are dead
}

// image is all rows at one moment.
type image map[store.Kind]map[string]store.Row

type leaseRow struct {
	owner   string
	term    uint64
	expires time.Time
}

// NewMemory returns the store of an instance that has just been made.
func NewMemory(instance region.InstanceID) *Memory {
	m := newMemory(image{}, 0)
	tx := &memoryTx{rows: image{}, writable: true}
	if err := store.WriteMeta(tx, store.Meta{Instance: instance, StoreID: "memory", Created: time.Unix(1, 0)}); err != nil {
		panic(err) // a first meta row conflicts with nothing
	}
	m.rows = tx.rows
	return m
}

func newMemory(rows image, term uint64) *Memory {
	m := &Memory{turn: make(chan struct{}, 1), rows: rows, lease: leaseRow{term: term}}
	m.turn <- struct{}{}
	return m
}

// Copy returns a copy that nobody stamped, as a copied file or a snapshot of a disk is one.
func (m *Memory) Copy() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return newMemory(m.rows, m.lease.term)
}

// Backup returns a copy that is stamped as one, as the backup tool makes it.
func (m *Memory) Backup(taken time.Time) (*Memory, error) {
	b := m.Copy()
	tx := b.begin(true)
	meta, err := store.ReadMeta(tx)
	if err != nil {
		return nil, err
	}
	meta.Restored = taken
	if err := store.WriteMeta(tx, meta); err != nil {
		return nil, err
	}
	b.rows = tx.rows
	return b, nil
}

// Kill ends every Store that is open, as the end of a process does: nothing more is written,
// what Update has returned for stays, and the lease is free.
func (m *Memory) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kills++
	m.lease.expires = time.Time{}
}

// Open opens the store with a clock for its lease.
func (m *Memory) Open(now func() time.Time) store.Store {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &memoryStore{file: m, now: now, kills: m.kills}
}

func (m *Memory) begin(writable bool) *memoryTx {
	m.mu.Lock()
	defer m.mu.Unlock()
	rows := m.rows
	if writable {
		rows = maps.Clone(rows)
	}
	return &memoryTx{rows: rows, writable: writable}
}

// memoryStore is one process's view of a Memory.
type memoryStore struct {
	file  *Memory
	now   func() time.Time
	kills int

	mu     sync.Mutex
	term   uint64 // guarded by mu; 0 without the lease
	closed bool   // guarded by mu
}

var _ store.Store = (*memoryStore)(nil)

func (s *memoryStore) alive() error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	s.file.mu.Lock()
	defer s.file.mu.Unlock()
	if closed || s.kills != s.file.kills {
		return store.ErrClosed
	}
	return nil
}

// writing runs fn alone among all writers.
func (s *memoryStore) writing(ctx context.Context, fn func() error) error {
	select {
	case <-s.file.turn:
		defer func() { s.file.turn <- struct{}{} }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for the store: %w", ctx.Err())
	}
	if err := s.alive(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return fn()
}

// Update implements store.Store.
func (s *memoryStore) Update(ctx context.Context, fn func(store.Tx) error) error {
	return s.writing(ctx, func() error {
		if err := s.holds(); err != nil {
			return err
		}
		tx := s.file.begin(true)
		if err := fn(tx); err != nil {
			return err
		}
		s.file.mu.Lock()
		defer s.file.mu.Unlock()
		if s.kills != s.file.kills {
			return store.ErrClosed
		}
		s.file.rows = tx.rows
		return nil
	})
}

// holds refuses anybody but the present writer.
func (s *memoryStore) holds() error {
	s.mu.Lock()
	term := s.term
	s.mu.Unlock()
	s.file.mu.Lock()
	defer s.file.mu.Unlock()
	if term == 0 || term != s.file.lease.term || !s.now().Before(s.file.lease.expires) {
		return fmt.Errorf("%w: the writer is %q with term %d, this store has term %d", store.ErrLeaseLost, s.file.lease.owner, s.file.lease.term, term)
	}
	return nil
}

// View implements store.Store.
func (s *memoryStore) View(ctx context.Context, fn func(store.Tx) error) error {
	if err := errors.Join(s.alive(), ctx.Err()); err != nil {
		return err
	}
	return fn(s.file.begin(false))
}

// AcquireLease implements store.Store.
func (s *memoryStore) AcquireLease(ctx context.Context, owner string, ttl time.Duration) (store.Lease, error) {
	if owner == "" || ttl < time.Millisecond {
		return nil, fmt.Errorf("%w: a lease needs an owner and a ttl of at least a millisecond", store.ErrInvalid)
	}
	l := &memoryLease{store: s, owner: owner, ttl: ttl}
	err := s.writing(ctx, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.file.mu.Lock()
		defer s.file.mu.Unlock()
		row := &s.file.lease
		if row.term != s.term && s.now().Before(row.expires) {
			return &store.HeldError{Owner: row.owner, Term: row.term, Expires: row.expires}
		}
		l.term, l.expires = row.term+1, s.now().Add(ttl)
		*row = leaseRow{owner, l.term, l.expires}
		s.term = l.term
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("acquiring the writer lease: %w", err)
	}
	return l, nil
}

// Close implements store.Store.
func (s *memoryStore) Close() error {
	<-s.file.turn
	defer func() { s.file.turn <- struct{}{} }()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.file.mu.Lock()
	defer s.file.mu.Unlock()
	if !s.closed && s.kills == s.file.kills && s.term != 0 && s.term == s.file.lease.term {
		s.file.lease.expires = time.Time{}
	}
	s.closed = true
	return nil
}

// memoryLease implements store.Lease.
type memoryLease struct {
	store *memoryStore
	owner string
	term  uint64
	ttl   time.Duration

	mu      sync.Mutex
	expires time.Time // guarded by mu
}

// Owner implements store.Lease.
func (l *memoryLease) Owner() string { return l.owner }

// Term implements store.Lease.
func (l *memoryLease) Term() uint64 { return l.term }

// Expires implements store.Lease.
func (l *memoryLease) Expires() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expires
}

// Renew implements store.Lease.
func (l *memoryLease) Renew(ctx context.Context) error {
	return l.store.writing(ctx, func() error {
		f := l.store.file
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.lease.term != l.term || f.lease.expires.IsZero() {
			return fmt.Errorf("renewing the writer lease: %w: the writer is %q with term %d", store.ErrLeaseLost, f.lease.owner, f.lease.term)
		}
		f.lease.expires = l.store.now().Add(l.ttl)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.expires = f.lease.expires
		return nil
	})
}

// Release implements store.Lease.
func (l *memoryLease) Release(ctx context.Context) error {
	return l.store.writing(ctx, func() error {
		l.store.mu.Lock()
		defer l.store.mu.Unlock()
		f := l.store.file
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.lease.term == l.term {
			f.lease.expires = time.Time{}
		}
		if l.store.term == l.term {
			l.store.term = 0
		}
		return nil
	})
}

// memoryTx implements store.Tx on rows of its own.
type memoryTx struct {
	rows     image
	writable bool
	copied   map[store.Kind]bool // kinds whose rows are this transaction's
}

// Get implements store.Tx.
func (t *memoryTx) Get(kind store.Kind, id string) (store.Row, error) {
	if err := store.CheckName(kind, id); err != nil {
		return store.Row{}, err
	}
	row, ok := t.rows[kind][id]
	if !ok {
		return store.Row{}, fmt.Errorf("%w: %s %s", store.ErrNotFound, kind, id)
	}
	return own(row), nil
}

func own(row store.Row) store.Row {
	row.Body, row.Seal = bytes.Clone(row.Body), bytes.Clone(row.Seal)
	return row
}

// change returns the rows of a kind, to be changed.
func (t *memoryTx) change(kind store.Kind) map[string]store.Row {
	if !t.copied[kind] {
		if t.copied == nil {
			t.copied = map[store.Kind]bool{}
		}
		t.copied[kind] = true
		rows := maps.Clone(t.rows[kind])
		if rows == nil {
			rows = map[string]store.Row{}
		}
		t.rows[kind] = rows
	}
	return t.rows[kind]
}

// Put implements store.Tx.
func (t *memoryTx) Put(row store.Row) error {
	if !t.writable {
		return store.ErrReadOnly
	}
	if err := row.Check(); err != nil {
		return err
	}
	if t.rows[row.Kind][row.ID].Version+1 != row.Version {
		return fmt.Errorf("%w: version %d of %s %s does not follow the stored one", store.ErrConflict, row.Version, row.Kind, row.ID)
	}
	t.change(row.Kind)[row.ID] = own(row)
	return nil
}

// Delete implements store.Tx.
func (t *memoryTx) Delete(kind store.Kind, id string, version uint64) error {
	if !t.writable {
		return store.ErrReadOnly
	}
	row, err := t.Get(kind, id)
	if err != nil {
		return err
	}
	if row.Version != version {
		return fmt.Errorf("%w: %s %s has version %d, not %d", store.ErrConflict, kind, id, row.Version, version)
	}
	delete(t.change(kind), id)
	return nil
}

// Scan implements store.Tx.
func (t *memoryTx) Scan(kind store.Kind, fn func(store.Row) error) error {
	if err := store.CheckName(kind, "-"); err != nil {
		return err
	}
	rows := t.rows[kind]
	for _, id := range slices.Sorted(maps.Keys(rows)) {
		if err := fn(own(rows[id])); err != nil {
			return err
		}
	}
	return nil
}

// Kinds implements store.Tx.
func (t *memoryTx) Kinds() ([]store.Kind, error) {
	var kinds []store.Kind
	for _, kind := range slices.Sorted(maps.Keys(t.rows)) {
		if len(t.rows[kind]) > 0 {
			kinds = append(kinds, kind)
		}
	}
	return kinds, nil
}
