package store

import (
	"fmt"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/wire"
)

// metaID is the ID of the one row of KindMeta.
const metaID = "store"

// Meta is what a store says about itself. It is not sealed, so that a backup tool without
// a token can stamp a copy; nothing but caution may depend on it.
type Meta struct {
	Instance region.InstanceID // the instance whose store this is
	StoreID  string            // made when the store was made, kept by its copies
	Created  time.Time
	Restored time.Time // when the backup that this store came from was taken; zero if it came from none

	version uint64
}

// ReadMeta returns the store's meta row.
func ReadMeta(tx Tx) (Meta, error) {
	row, err := tx.Get(KindMeta, metaID)
	if err != nil {
		return Meta{}, fmt.Errorf("reading the meta row: %w", err)
	}
	r := wire.NewReader(row.Body)
	if v := r.Uint(); v != 1 {
		r.Fail("meta row of version %d", v)
	}
	m := Meta{
		Instance: region.InstanceID(r.String(64)),
		StoreID:  r.String(64),
		Created:  readTime(r),
		Restored: readTime(r),
		version:  row.Version,
	}
	if err := r.Done(); err != nil {
		return Meta{}, fmt.Errorf("reading the meta row: %w", err)
	}
	return m, nil
}

// WriteMeta writes a meta row that ReadMeta returned, or the first one.
func WriteMeta(tx Tx, m Meta) error {
	var w wire.Writer
	w.Uint(1)
	w.String(string(m.Instance))
	w.String(m.StoreID)
	writeTime(&w, m.Created)
	writeTime(&w, m.Restored)
	if err := tx.Put(Row{Kind: KindMeta, ID: metaID, Version: m.version + 1, Body: w.Out()}); err != nil {
		return fmt.Errorf("writing the meta row: %w", err)
	}
	return nil
}

func writeTime(w *wire.Writer, t time.Time) {
	if t.IsZero() {
		w.Uint(0)
		return
	}
	w.Uint(uint64(t.UnixNano()))
}

func readTime(r *wire.Reader) time.Time {
	n := r.Uint()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(n)).UTC()
}
