package seal

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Inspection is what is to be said of a store before anybody believes it.
type Inspection struct {
	Head     Head     // zero if there is none, or none that holds
	Findings Findings // what does not hold
	Rows     int      // rows that a new seal would cover
	// Contents is the hash of all these rows, and of head and buckets, as they are stored:
	// findings alone would let somebody edit a row that does not hold again after the
	// operators have looked at it.
	Contents hash
}

// Inspect reads one state of the store and changes nothing. It needs no lease, so a daemon
// may be using the store.
func Inspect(ctx context.Context, s store.Store, m MACer, instance region.InstanceID) (Inspection, error) {
	b := &Book{store: s, sealer: NewSealer(m, instance)}
	b.head.Store(&Head{})
	l := &loader{book: b}
	var found inspected
	err := s.View(ctx, func(tx store.Tx) (err error) {
		if found, err = inspectRows(tx); err != nil {
			return err
		}
		return l.load(ctx, tx)
	})
	if err != nil {
		return Inspection{}, fmt.Errorf("inspecting the sealed store: %w", err)
	}
	return Inspection{Head: b.Head(), Findings: l.sorted(), Rows: found.rows, Contents: found.contents}, nil
}

// inspected is what inspectRows sees.
type inspected struct {
	rows      int
	contents  hash
	malformed Findings
}

func inspectRows(tx store.Tx) (inspected, error) {
	var in inspected
	kinds, err := tx.Kinds()
	if err != nil {
		return in, err
	}
	sum := sha256.New()
	l := &loader{} // for what it calls malformed
	for _, kind := range kinds {
		if !kind.Sealed() && kind != store.KindHead && kind != store.KindBucket {
			continue
		}
		if store.CheckName(kind, "-") != nil {
			l.malformed(store.Row{Kind: kind})
			continue
		}
		err := tx.Scan(kind, func(row store.Row) error {
			if kind.Sealed() {
				in.rows++
				if row.Check() != nil {
					l.malformed(row)
				}
			}
			var w wire.Writer
			w.String(string(row.Kind))
			w.String(row.ID)
			w.Uint(row.Version)
			w.Bytes(row.Body)
			w.Bytes(row.Seal)
			sum.Write(w.Out())
			return nil
		})
		if err != nil {
			return in, err
		}
	}
	sum.Sum(in.contents[:0])
	in.malformed = l.sorted()
	return in, nil
}
