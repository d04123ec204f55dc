package seal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/store"
)

var (
	// ErrRolledBack says that the store is older than what a witness has seen of it.
	ErrRolledBack = errors.New("store rolled back")
	// ErrForked says that the store went another way than what a witness has seen of it.
	ErrForked = errors.New("store forked")
)

// Head names one state of all sealed rows. The zero Head is that of an empty store.
type Head struct {
	Version uint64 // grows with every change of a sealed row
	Hash    hash   // over instance, version and all buckets
}

// String returns version and hash as operators compare them.
func (h Head) String() string { return fmt.Sprintf("%d:%s", h.Version, hex.EncodeToString(h.Hash[:])) }

// Book is a store whose sealed rows are checked whenever they are read and sealed whenever
// they are written.
type Book struct {
	store  store.Store
	sealer Sealer
	head   atomic.Pointer[Head] // of the last committed transaction

	turn    chan struct{} // holds one value; who has it may use what follows
	buckets [buckets]bucket
	headRow uint64 // version of the head's own row; 0 if there is none
	stopped error  // why no sealed row can be believed or changed
}

// Open checks every row and returns what does not hold. The Book serves the rest; if the
// head itself does not hold, every read and write is refused. The caller must hold the
// writer lease before Open and as long as it uses the Book, or rows of another writer's
// making are taken for tampering.
//
// A store with neither sealed rows nor a head opens as a new one: only a witness can tell
// it from one that was emptied.
func Open(ctx context.Context, s store.Store, m MACer, instance region.InstanceID) (*Book, Findings, error) {
	b := &Book{store: s, sealer: NewSealer(m, instance), turn: make(chan struct{}, 1)}
	l := &loader{book: b}
	if err := s.View(ctx, func(tx store.Tx) error { return l.load(ctx, tx) }); err != nil {
		return nil, nil, fmt.Errorf("opening the sealed store: %w", err)
	}
	b.head.CompareAndSwap(nil, &Head{})
	b.turn <- struct{}{}
	return b, l.sorted(), nil
}

// Head returns the head of the last committed change.
func (b *Book) Head() Head { return *b.head.Load() }

// Behind compares the store's head with one that a witness has seen: ErrRolledBack if the
// store is older, ErrForked if it differs at the same version. A store that was rolled
// back and then written past the witness's version is not told apart here: the caller must
// compare with the newest witnesses before the first write.
func (h Head) Behind(witness Head) error {
	switch {
	case h.Version < witness.Version:
		return fmt.Errorf("%w: at head %d, witnessed at %d", ErrRolledBack, h.Version, witness.Version)
	case h.Version == witness.Version && h.Hash != witness.Hash:
		return fmt.Errorf("%w: another head %d was witnessed", ErrForked, h.Version)
	}
	return nil
}

func (b *Book) take(ctx context.Context) error {
	select {
	case <-b.turn:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the store: %w", ctx.Err())
	}
}

func (b *Book) give() { b.turn <- struct{}{} }

// Update runs fn in one transaction of the store, as store.Store.Update does, and seals
// what fn wrote. After an error that wraps store.ErrOutcomeUnknown the store is closed: open
// it again, and a new Book over it.
func (b *Book) Update(ctx context.Context, fn func(*Tx) error) error {
	if err := b.take(ctx); err != nil {
		return err
	}
	defer b.give()
	tx := &Tx{ctx: ctx, book: b}
	err := b.store.Update(ctx, func(inner store.Tx) error {
		tx.inner = inner
		if err := fn(tx); err != nil {
			return err
		}
		return tx.finish()
	})
	if err != nil {
		return err
	}
	tx.apply()
	return nil
}

// View runs fn on one consistent state; every change in it fails.
func (b *Book) View(ctx context.Context, fn func(*Tx) error) error {
	if err := b.take(ctx); err != nil {
		return err
	}
	defer b.give()
	return b.store.View(ctx, func(inner store.Tx) error {
		return fn(&Tx{ctx: ctx, book: b, inner: inner})
	})
}

// headOf binds the instance and the head's row, so that equal hashes mean equal stores.
func (b *Book) headOf(version uint64, body []byte) Head {
	return Head{
		Version: version,
		Hash:    sha256.Sum256(b.sealer.message(store.Row{Kind: store.KindHead, ID: headID, Version: version, Body: body})),
	}
}
