package seal

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/store"
)

// ErrChanged says that the store is not the one that was approved.
var ErrChanged = errors.New("store changed since it was inspected")

// Approved is what operators agreed to believe.
type Approved struct {
	Contents  hash   // of the Inspection that they saw
	Witnessed uint64 // the highest head that any witness has seen, so that the new head is over it
	// Record, if not nil, runs in the same transaction before rows are sealed. What it puts,
	// without a seal, is sealed with the others; its error leaves the store as it is.
	Record func(store.Tx) error
}

// Reseal believes every row as it is now, seals them all, and returns a Book without
// findings. It is for operators who have restored a store or replaced its token, and have
// approved what they see; nothing else may call it.
func Reseal(ctx context.Context, s store.Store, m MACer, instance region.InstanceID, approved Approved) (*Book, error) {
	r := &resealer{ctx: ctx, sealer: NewSealer(m, instance)}
	err := s.Update(ctx, func(tx store.Tx) error {
		switch found, err := inspectRows(tx); {
		case err != nil:
			return err
		case len(found.malformed) > 0:
			return fmt.Errorf("%w: it cannot be sealed; delete it from the file", &found.malformed[0])
		case found.contents != approved.Contents:
			return ErrChanged
		}
		if approved.Record != nil {
			if err := approved.Record(tx); err != nil {
				return err
			}
		}
		return r.run(tx, approved.Witnessed)
	})
	if err != nil {
		return nil, fmt.Errorf("sealing the store anew: %w", err)
	}
	book, findings, err := Open(ctx, s, m, instance)
	if err != nil {
		return nil, err
	}
	if len(findings) > 0 {
		return nil, fmt.Errorf("sealing the store anew: %w", &findings[0])
	}
	return book, nil
}

// resealer rebuilds all buckets from the rows.
type resealer struct {
	ctx     context.Context
	sealer  Sealer
	buckets [buckets]bucket
}

func (r *resealer) run(tx store.Tx, witnessed uint64) error {
	version, err := r.clear(tx)
	if err != nil {
		return err
	}
	version = max(version, witnessed)
	kinds, err := tx.Kinds()
	if err != nil {
		return err
	}
	for _, kind := range kinds {
		if kind.Sealed() {
			if err := r.rows(tx, kind); err != nil {
				return err
			}
		}
	}
	var hashes [buckets]hash
	for i := range r.buckets {
		if len(r.buckets[i].rows) == 0 {
			continue
		}
		body := encodeBucket(r.buckets[i].rows)
		hashes[i] = sha256.Sum256(body)
		if err := tx.Put(store.Row{Kind: store.KindBucket, ID: bucketID(uint8(i)), Version: 1, Body: body}); err != nil {
			return err
		}
	}
	head := store.Row{Kind: store.KindHead, ID: headID, Version: 1, Body: encodeHead(version+1, &hashes)}
	if head.Seal, err = r.sealer.Seal(r.ctx, head); err != nil {
		return err
	}
	return tx.Put(head)
}

// maxHead is more changes than a store can see. A head that claims more was forged to leave
// no version over it.
const maxHead = 1 << 62

// clear deletes head and buckets and returns the head's version, its seal believed or not:
// it only raises the next.
func (r *resealer) clear(tx store.Tx) (version uint64, err error) {
	head, err := tx.Get(store.KindHead, headID)
	switch {
	case err == nil:
		if v, _, bad := decodeHead(head.Body); bad == nil && v < maxHead {
			version = v
		}
		err = tx.Delete(store.KindHead, headID, head.Version)
	case errors.Is(err, store.ErrNotFound):
		err = nil
	}
	if err != nil {
		return 0, err
	}
	old := map[string]uint64{}
	err = tx.Scan(store.KindBucket, func(row store.Row) error {
		old[row.ID] = row.Version
		return nil
	})
	for id, v := range old {
		err = errors.Join(err, tx.Delete(store.KindBucket, id, v))
	}
	return version, err
}

// rows seals every row of a kind under its next version.
func (r *resealer) rows(tx store.Tx, kind store.Kind) error {
	var rows []store.Row
	err := tx.Scan(kind, func(row store.Row) error {
		rows = append(rows, row)
		return row.Check()
	})
	if err != nil {
		return err
	}
	for _, row := range rows {
		row.Version++
		if row.Seal, err = r.sealer.Seal(r.ctx, row); err != nil {
			return err
		}
		if err := tx.Put(row); err != nil {
			return err
		}
		n := name{row.Kind, row.ID}
		b := &r.buckets[n.bucket()]
		b.rows = b.with(entry{name: n, version: row.Version, seal: row.Seal})
	}
	return nil
}
