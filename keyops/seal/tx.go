package seal

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/keyops/store"
)

// Tx is one transaction over checked rows. It is used by the goroutine that runs fn only.
type Tx struct {
	ctx    context.Context
	book   *Book
	inner  store.Tx
	staged map[uint8]*bucket // the touched buckets as they will be
	head   Head              // set by finish
	err    error             // the first failed change; it spoils the transaction
}

// bucketOf returns the bucket as this transaction sees it.
func (tx *Tx) bucketOf(n name) *bucket {
	i := n.bucket()
	if b := tx.staged[i]; b != nil {
		return b
	}
	return &tx.book.buckets[i]
}

// check compares a row, or its absence (version 0), with what the book knows of it.
func (tx *Tx) check(row store.Row) *Finding {
	bad := func(p Problem) *Finding { return &Finding{row.Kind, row.ID, row.Version, p} }
	n := name{row.Kind, row.ID}
	b := tx.bucketOf(n)
	if b.broken {
		return bad(RowUnproven)
	}
	i, known := b.find(n)
	if !known {
		if row.Version == 0 {
			return nil
		}
		return bad(RowUnknown)
	}
	e := &b.rows[i]
	if row.Version == 0 {
		return bad(RowMissing)
	}
	if row.Version != e.version || subtle.ConstantTimeCompare(row.Seal, e.seal) != 1 {
		return bad(RowReplaced)
	}
	digest := sha256.Sum256(tx.book.sealer.message(row))
	if subtle.ConstantTimeCompare(digest[:], e.digest[:]) != 1 {
		return bad(SealWrong)
	}
	return nil
}

// usable refuses what this transaction cannot vouch for.
func (tx *Tx) usable(kind store.Kind, id string) error {
	if err := store.CheckName(kind, id); err != nil {
		return err
	}
	if kind == store.KindHead || kind == store.KindBucket {
		return fmt.Errorf("%w: kind %s belongs to the seals", store.ErrInvalid, kind)
	}
	if kind.Sealed() {
		return tx.book.stopped
	}
	return nil
}

// Get returns a row that holds, store.ErrNotFound, or a *Finding: a row that ought to be
// there and is not is never taken for one that was not made.
func (tx *Tx) Get(kind store.Kind, id string) (store.Row, error) {
	if err := tx.usable(kind, id); err != nil {
		return store.Row{}, err
	}
	row, err := tx.inner.Get(kind, id)
	if !kind.Sealed() || err != nil && !errors.Is(err, store.ErrNotFound) {
		return row, err
	}
	if err != nil {
		row = store.Row{Kind: kind, ID: id}
	}
	if bad := tx.check(row); bad != nil {
		return store.Row{}, bad
	}
	return row, err
}

// Scan calls fn for every row of the kind in the order of IDs, with what is wrong with it
// or nil, and then for every row that ought to be there and is not. A row that does not
// hold comes without body.
func (tx *Tx) Scan(kind store.Kind, fn func(row store.Row, bad *Finding) error) error {
	if err := tx.usable(kind, "-"); err != nil {
		return err
	}
	if !kind.Sealed() {
		return tx.inner.Scan(kind, func(row store.Row) error { return fn(row, nil) })
	}
	seen := map[string]bool{}
	err := tx.inner.Scan(kind, func(row store.Row) error {
		seen[row.ID] = true
		bad := tx.check(row)
		if bad != nil {
			row.Body, row.Seal = nil, nil
		}
		return fn(row, bad)
	})
	if err != nil {
		return err
	}
	var missing []string
	for i := range tx.book.buckets {
		b := &tx.book.buckets[i]
		if s := tx.staged[uint8(i)]; s != nil {
			b = s
		}
		for _, e := range b.rows {
			if e.kind == kind && !seen[e.id] {
				missing = append(missing, e.id)
			}
		}
	}
	slices.Sort(missing)
	for _, id := range missing {
		if err := fn(store.Row{Kind: kind, ID: id}, &Finding{kind, id, 0, RowMissing}); err != nil {
			return err
		}
	}
	return nil
}

// Put writes the next version of a row, or the first. A row that does not hold cannot be
// written over: that would make the tampering look like our own doing.
func (tx *Tx) Put(kind store.Kind, id string, body []byte) error {
	return tx.change(func() error {
		row, err := tx.Get(kind, id)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		row = store.Row{Kind: kind, ID: id, Version: row.Version + 1, Body: body}
		if err := row.Check(); err != nil {
			return err
		}
		if !kind.Sealed() {
			return tx.inner.Put(row)
		}
		if row.Seal, err = tx.book.sealer.Seal(tx.ctx, row); err != nil {
			return err
		}
		if err := tx.inner.Put(row); err != nil {
			return err
		}
		n := name{kind, id}
		tx.stage(n, tx.bucketOf(n).with(entry{
			name:    n,
			version: row.Version,
			seal:    row.Seal,
			digest:  sha256.Sum256(tx.book.sealer.message(row)),
		}))
		return nil
	})
}

// Delete removes a row that holds; store.ErrNotFound if there is none.
func (tx *Tx) Delete(kind store.Kind, id string) error {
	return tx.change(func() error {
		row, err := tx.Get(kind, id)
		if err != nil {
			return err
		}
		if err := tx.inner.Delete(kind, id, row.Version); err != nil || !kind.Sealed() {
			return err
		}
		n := name{kind, id}
		tx.stage(n, tx.bucketOf(n).without(n))
		return nil
	})
}

// change remembers a failure, so that fn cannot overlook it and commit a half.
func (tx *Tx) change(fn func() error) error {
	if tx.err != nil {
		return tx.err
	}
	err := fn()
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		tx.err = err
	}
	return err
}

func (tx *Tx) stage(n name, rows []entry) {
	i := n.bucket()
	next := *tx.bucketOf(n)
	next.rows = rows
	if tx.staged == nil {
		tx.staged = map[uint8]*bucket{}
	}
	tx.staged[i] = &next
}

// finish writes the touched buckets and the head, if any sealed row changed.
func (tx *Tx) finish() error {
	if tx.err != nil {
		return tx.err
	}
	if len(tx.staged) == 0 {
		return nil
	}
	var hashes [buckets]hash
	for i := range tx.book.buckets {
		b := &tx.book.buckets[i]
		if s := tx.staged[uint8(i)]; s != nil {
			b = s
			body := encodeBucket(b.rows)
			b.version++
			b.hash = sha256.Sum256(body)
			row := store.Row{Kind: store.KindBucket, ID: bucketID(uint8(i)), Version: b.version, Body: body}
			if err := tx.inner.Put(row); err != nil {
				return fmt.Errorf("writing bucket %s: %w", row.ID, err)
			}
		}
		hashes[i] = b.hash
	}
	version := tx.book.Head().Version + 1
	body := encodeHead(version, &hashes)
	row := store.Row{Kind: store.KindHead, ID: headID, Version: tx.book.headRow + 1, Body: body}
	var err error
	if row.Seal, err = tx.book.sealer.Seal(tx.ctx, row); err != nil {
		return err
	}
	if err := tx.inner.Put(row); err != nil {
		return fmt.Errorf("writing the head: %w", err)
	}
	tx.head = tx.book.headOf(version, body)
	return nil
}

// apply makes the committed changes the book's own.
func (tx *Tx) apply() {
	if len(tx.staged) == 0 {
		return
	}
	for i, b := range tx.staged {
		tx.book.buckets[i] = *b
	}
	tx.book.headRow++
	tx.book.head.Store(&tx.head)
}
