package message

import (
	"fmt"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Confirm asks what the other Region is to a key, and which of the materials it holds.
type Confirm struct{ Question mrk.Question }

// Marshal returns the one encoding of it.
func (c Confirm) Marshal() []byte {
	var w wire.Writer
	w.String(string(c.Question.Key))
	encodeMaterials(&w, c.Question.Held)
	w.Bytes(c.Question.Nonce[:])
	return w.Out()
}

// ParseConfirm reads what Marshal wrote, and nothing else.
func ParseConfirm(p []byte) (Confirm, error) {
	r := wire.NewReader(p)
	c := Confirm{mrk.Question{Key: decodeKey(r), Held: decodeMaterials(r)}}
	r.Fixed(c.Question.Nonce[:])
	if err := r.Done(); err != nil {
		return c, fmt.Errorf("parsing confirm-held message: %w", err)
	}
	return c, nil
}

func encodeMaterials(w *wire.Writer, ids []material.ID) {
	w.Count(len(ids))
	for _, id := range ids {
		w.Bytes(id[:])
	}
}

func decodeMaterials(r *wire.Reader) (ids []material.ID) {
	for range r.Count(mrk.MaxMaterials) {
		var id material.ID
		r.Fixed(id[:])
		ids = append(ids, id)
	}
	return ids
}

// Confirmation says what the answering Region is to the key at this moment.
type Confirmation struct{ mrk.Confirmation }

// Marshal returns the one encoding of it.
func (c Confirmation) Marshal() []byte {
	var w wire.Writer
	w.Bytes(c.Nonce[:])
	w.Bool(c.Exists)
	w.Bool(c.Acting)
	encodeMaterials(&w, c.Held)
	return w.Out()
}

// ParseConfirmation reads the answer of a Region, whose signature on it was verified.
func ParseConfirmation(p []byte, from region.Name) (mrk.Confirmation, error) {
	r := wire.NewReader(p)
	c := mrk.Confirmation{From: from}
	r.Fixed(c.Nonce[:])
	c.Exists, c.Acting, c.Held = r.Bool(), r.Bool(), decodeMaterials(r)
	if err := r.Done(); err != nil {
		return c, fmt.Errorf("parsing answer to a confirm-held message: %w", err)
	}
	return c, nil
}
