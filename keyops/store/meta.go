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
	m, err := decodeMeta(row.Body)
	if err != nil {
		return Meta{}, fmt.Errorf("reading the meta row: %w", err)
	}
	m.version = row.Version
	return m, nil
}

// WriteMeta writes a meta row that ReadMeta returned, or the first one.
func WriteMeta(tx Tx, m Meta) error {
	if err := tx.Put(Row{Kind: KindMeta, ID: metaID, Version: m.version + 1, Body: m.encode()}); err != nil {
		return fmt.Errorf("writing the meta row: %w", err)
	}
	return nil
}

const metaForm = 1

func (m Meta) encode() []byte {
	var w wire.Writer
	w.Uint(metaForm)
	w.String(string(m.Instance))
	w.String(m.StoreID)
	w.Time(m.Created)
	w.Time(m.Restored)
	return w.Out()
}

func decodeMeta(body []byte) (Meta, error) {
	r := wire.NewReader(body)
	if v := r.Uint(); v != metaForm {
		r.Fail("meta row of form %d", v)
	}
	m := Meta{
		Instance: region.InstanceID(r.String(64)),
		StoreID:  r.String(64),
		Created:  r.Time(),
		Restored: r.Time(),
	}
	return m, r.Done()
}
