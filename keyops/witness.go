package keyops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Witness is what a peer has shown of its audit log and its store. Kept here, it proves
// later that the peer's log was cut or its store rolled back.
type Witness struct {
	Peer       region.Name
	Instance   region.InstanceID
	Checkpoint statement.Signed // the peer's newest audit checkpoint, as signed
	Store      seal.Head        // the peer's store head at the time of the exchange
	Seen       time.Time
}

const (
	witnessSchema = 1
	maxCheckpoint = 4096
)

func (w Witness) encode() []byte {
	var e wire.Writer
	e.Uint(witnessSchema)
	e.String(string(w.Instance))
	e.Bytes(w.Checkpoint.Marshal())
	e.Uint(w.Store.Version)
	e.Bytes(w.Store.Hash[:])
	e.Time(w.Seen)
	return e.Out()
}

func decodeWitness(peer string, body []byte) (Witness, error) {
	r := wire.NewReader(body)
	if v := r.Uint(); v != witnessSchema {
		r.Fail("witness of schema %d", v)
	}
	w := Witness{Peer: region.Name(peer), Instance: region.InstanceID(r.String(64))}
	signed := r.Bytes(maxCheckpoint)
	w.Store.Version = r.Uint()
	r.Fixed(w.Store.Hash[:])
	w.Seen = r.Time()
	if err := r.Done(); err != nil {
		return Witness{}, fmt.Errorf("decoding the witness of %s: %w", peer, err)
	}
	var err error
	if w.Checkpoint, err = statement.Parse(signed); err != nil {
		return Witness{}, fmt.Errorf("decoding the witness of %s: %w", peer, err)
	}
	return w, nil
}

// AuditHead returns this Region's newest audit checkpoint, to be shown to peers; false if
// there is none yet.
func (s *Service) AuditHead() (audit.SignedCheckpoint, bool) { return s.audit.Last() }

// SaveWitness keeps what a peer has shown, in place of what it showed before, and its
// checkpoint in the audit log, where all of them stay. The caller has verified the
// checkpoint's signature.
func (s *Service) SaveWitness(ctx context.Context, w Witness) error {
	if err := s.saveWitness(ctx, w); err != nil {
		return fmt.Errorf("keeping the witness of %s: %w", w.Peer, err)
	}
	return nil
}

func (s *Service) saveWitness(ctx context.Context, w Witness) error {
	c, err := audit.ParseCheckpoint(w.Checkpoint)
	if err != nil {
		return err
	}
	before, err := s.Witness(ctx, w.Peer)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if !bytes.Equal(before.Checkpoint.Payload, w.Checkpoint.Payload) {
		if err := s.audit.Append(ctx, audit.WitnessRecord(c)); err != nil {
			return err
		}
	}
	return s.update(ctx, func(tx *seal.Tx) error { return tx.Put(kindWitness, string(w.Peer), w.encode()) })
}

// Witness returns what is kept of a peer, or store.ErrNotFound.
func (s *Service) Witness(ctx context.Context, peer region.Name) (Witness, error) {
	var w Witness
	err := s.book.View(ctx, func(tx *seal.Tx) error {
		row, err := tx.Get(kindWitness, string(peer))
		if err == nil {
			w, err = decodeWitness(row.ID, row.Body)
		}
		return err
	})
	return w, err
}
