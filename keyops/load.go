package keyops

import (
	"context"
	"fmt"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Kinds of rows of this package, beside store.KindMark.
const (
	kindKey       store.Kind = "key"
	kindIntent    store.Kind = "intent"
	kindTombstone store.Kind = "tombstone"
	kindWitness   store.Kind = "witness"
	kindClock     store.Kind = "clock"
	kindUsage     store.Kind = "usage"
	kindWrapping  store.Kind = "wrapping" // import wrapping keys
)

// tombstone is what stays of a deleted key: its ID, so that it is never used again, and the
// objects that must not exist any more. Deletion writes it; the start obeys it.
type tombstone struct {
	account arn.Account
	objects []hsm.ID
}

const tombstoneSchema = 1

func (t tombstone) encode() []byte {
	var w wire.Writer
	w.Uint(tombstoneSchema)
	w.String(string(t.account))
	w.Count(len(t.objects))
	for _, id := range t.objects {
		w.Bytes(id[:])
	}
	return w.Out()
}

func decodeTombstone(body []byte) (tombstone, error) {
	r := wire.NewReader(body)
	if v := r.Uint(); v != tombstoneSchema {
		r.Fail("tombstone of schema %d", v)
	}
	t := tombstone{account: arn.Account(r.String(12))}
	for range r.Count(maxMaterials) {
		var id hsm.ID
		r.Fixed(id[:])
		t.objects = append(t.objects, id)
	}
	if err := r.Done(); err != nil {
		return tombstone{}, fmt.Errorf("decoding a tombstone: %w", err)
	}
	return t, nil
}

// stored is what the store says at the start.
type stored struct {
	keys       []*Key
	intents    []intent
	tombstones map[arn.KeyID]tombstone
	marks      []Mark
	wrappings  []wrapping
}

// load reads every row. One that does not hold, or cannot be read, condemns the key that it
// is about and no other; an intent like that is left alone, since it may be somebody's wish
// to have an object destroyed.
func (s *Service) load(ctx context.Context) (stored, error) {
	var st stored
	st.tombstones = map[arn.KeyID]tombstone{}
	err := s.book.View(ctx, func(tx *seal.Tx) error {
		for _, kind := range []struct {
			name store.Kind
			read func(id string, body []byte) error
		}{
			{kindKey, func(id string, body []byte) error { return s.loadKey(&st, id, body) }},
			{kindIntent, func(id string, body []byte) error {
				i, err := decodeIntent(id, body)
				if err == nil {
					st.intents = append(st.intents, i)
				}
				return err
			}},
			{kindTombstone, func(id string, body []byte) error {
				t, err := decodeTombstone(body)
				if err == nil {
					st.tombstones[arn.KeyID(id)] = t
				}
				return err
			}},
			{kindWrapping, func(id string, body []byte) error {
				w, err := decodeWrapping(id, body)
				if err == nil {
					st.wrappings = append(st.wrappings, w)
				}
				return err
			}},
			{store.KindMark, func(_ string, body []byte) error {
				m, err := decodeMark(body)
				if err == nil {
					st.marks = append(st.marks, m)
				}
				return err
			}},
		} {
			err := tx.Scan(kind.name, func(row store.Row, bad *seal.Finding) error {
				var why error
				if bad != nil {
					why = bad
				} else {
					why = kind.read(row.ID, row.Body)
				}
				if why != nil {
					s.refuseRow(kind.name, row.ID, why)
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("reading the rows of kind %s: %w", kind.name, err)
			}
		}
		return nil
	})
	return st, err
}

func (s *Service) loadKey(st *stored, id string, body []byte) error {
	k, err := decodeKey(id, body)
	if err == nil {
		err = s.prepare(k)
	}
	if err == nil {
		st.keys = append(st.keys, k)
	}
	return err
}

// refuseRow makes sure that a row which cannot be believed decides nothing.
func (s *Service) refuseRow(kind store.Kind, id string, why error) {
	s.log.WithError(why).WithField("kind", kind).WithField("id", id).Error("ALARM: a row of the store cannot be believed")
	if kind == kindKey || kind == kindTombstone {
		s.view.refuse(arn.KeyID(id), why)
	}
}
