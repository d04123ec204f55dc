package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/keyferry/keyferry/keyops/store"
)

var (
	// ErrInjected is wrapped by every error that a Faulty store makes up.
	ErrInjected = errors.New("injected failure")
	// ErrCrash, returned by a hook, stops the process as far as the store can tell: this
	// call and all later ones fail. The test opens the inner store anew.
	ErrCrash = errors.New("injected crash")
)

// Stage is where in an Update a hook is called.
type Stage string

const (
	Before Stage = "before" // nothing has happened; an error here means failed, not applied
	Within Stage = "within" // fn has run; an error here rolls it back: failed, not applied
	After  Stage = "after"  // the update is durable; an error here means failed, but applied
)

// Point is one place where a store may fail.
type Point struct {
	Stage  Stage
	Update int      // counts the updates of this wrapper from 1
	Wrote  []string // what fn wrote so far: "put key abc", "delete intent xyz"
}

// String names the point, for tables of crash points: "after put intent i1, put key k1".
func (p Point) String() string {
	if p.Stage == Before {
		return fmt.Sprintf("before update %d", p.Update)
	}
	return fmt.Sprintf("%s %s", p.Stage, strings.Join(p.Wrote, ", "))
}

// Faulty is a store that fails where its hook says so. It asserts that nobody uses a
// transaction after its end.
type Faulty struct {
	store.Store
	hook func(Point) error

	mu      sync.Mutex
	updates int   // guarded by mu
	dead    error // guarded by mu
}

var _ store.Store = (*Faulty)(nil)

// NewFaulty wraps a store. The hook is called at each Point; nil lets the update go on.
func NewFaulty(s store.Store, hook func(Point) error) *Faulty { return &Faulty{Store: s, hook: hook} }

func (f *Faulty) alive() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// at calls the hook and turns its error into what a caller may expect of a store.
func (f *Faulty) at(p Point) error {
	err := f.hook(p)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%w at %q: %w", ErrInjected, p, err)
	if p.Stage == After {
		err = fmt.Errorf("%w: %w", store.ErrOutcomeUnknown, err)
	}
	// A store stops after an unknown outcome, whatever the cause.
	if p.Stage == After || errors.Is(err, ErrCrash) {
		f.mu.Lock()
		f.dead = fmt.Errorf("%w after: %w", store.ErrClosed, err)
		f.mu.Unlock()
	}
	return err
}

// Update implements store.Store.
func (f *Faulty) Update(ctx context.Context, fn func(store.Tx) error) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.mu.Lock()
	f.updates++
	p := Point{Stage: Before, Update: f.updates}
	f.mu.Unlock()
	if err := f.at(p); err != nil {
		return err
	}
	err := f.Store.Update(ctx, func(inner store.Tx) error {
		tx := &recorder{Tx: inner}
		defer func() { tx.ended = true }()
		if err := fn(tx); err != nil {
			return err
		}
		p.Wrote = tx.wrote
		p.Stage = Within
		return f.at(p)
	})
	if err != nil {
		return err
	}
	p.Stage = After
	return f.at(p)
}

// View implements store.Store.
func (f *Faulty) View(ctx context.Context, fn func(store.Tx) error) error {
	if err := f.alive(); err != nil {
		return err
	}
	return f.Store.View(ctx, fn)
}

// AcquireLease implements store.Store.
func (f *Faulty) AcquireLease(ctx context.Context, owner string, ttl time.Duration) (store.Lease, error) {
	if err := f.alive(); err != nil {
		return nil, err
	}
	return f.Store.AcquireLease(ctx, owner, ttl)
}

// recorder notes what a transaction writes.
type recorder struct {
	store.Tx
	wrote []string
	ended bool
}

func (r *recorder) note(verb string, kind store.Kind, id string) {
	if r.ended {
		panic("storetest: a transaction is used after its end")
	}
	r.wrote = append(r.wrote, fmt.Sprintf("%s %s %s", verb, kind, id))
}

// Put implements store.Tx.
func (r *recorder) Put(row store.Row) error {
	r.note("put", row.Kind, row.ID)
	return r.Tx.Put(row)
}

// Delete implements store.Tx.
func (r *recorder) Delete(kind store.Kind, id string, version uint64) error {
	r.note("delete", kind, id)
	return r.Tx.Delete(kind, id, version)
}
