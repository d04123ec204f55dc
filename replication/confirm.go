package replication

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Confirm asks another Region now what it is to a key and what it holds of it, and returns
// the time by that Region's clock as well.
func (r *Replicator) Confirm(ctx context.Context, to region.Name, q mrk.Question) (mrk.Confirmation, time.Time, error) {
	none := mrk.Confirmation{}
	p, ok := r.peers[to]
	if !ok {
		return none, time.Time{}, fmt.Errorf("%w: Region %s", errNotPinned, to)
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.CheckTimeout)
	defer cancel()
	reply, err := p.exchange(ctx, kindConfirm, "", confirmBody{q}.marshal())
	if err != nil {
		return none, time.Time{}, fmt.Errorf("%w: Region %s: %w", keyops.ErrPeerUnreachable, to, err)
	}
	c, err := parseConfirmAnswer(reply.body, to)
	if err != nil {
		return none, time.Time{}, fmt.Errorf("%w: Region %s: %w", keyops.ErrPeerUnreachable, to, err)
	}
	return c, time.Unix(0, reply.sent), nil
}

// confirmBody asks what the other Region is to a key, and which of the materials it holds.
type confirmBody struct{ question mrk.Question }

func (c confirmBody) marshal() []byte {
	var w wire.Writer
	w.String(string(c.question.Key))
	encodeMaterials(&w, c.question.Held)
	w.Bytes(c.question.Nonce[:])
	return w.Out()
}

func parseConfirm(p []byte) (confirmBody, error) {
	r := wire.NewReader(p)
	c := confirmBody{mrk.Question{Key: decodeKey(r), Held: decodeMaterials(r)}}
	r.Fixed(c.question.Nonce[:])
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

// confirmAnswer says what the answering Region is to the key at this moment.
type confirmAnswer struct{ mrk.Confirmation }

func (c confirmAnswer) marshal() []byte {
	var w wire.Writer
	w.Bytes(c.Nonce[:])
	w.Bool(c.Exists)
	w.Bool(c.Acting)
	encodeMaterials(&w, c.Held)
	return w.Out()
}

// parseConfirmAnswer reads the answer of a Region, whose signature on it was verified.
func parseConfirmAnswer(p []byte, from region.Name) (mrk.Confirmation, error) {
	r := wire.NewReader(p)
	c := mrk.Confirmation{From: from}
	r.Fixed(c.Nonce[:])
	c.Exists, c.Acting, c.Held = r.Bool(), r.Bool(), decodeMaterials(r)
	if err := r.Done(); err != nil {
		return c, fmt.Errorf("parsing answer to a confirm-held message: %w", err)
	}
	return c, nil
}

// answerConfirm says what this Region is to a key at this moment. A Region that has no part
// in the key is told that there is none.
func (r *Replicator) answerConfirm(keys Keys, p *peer, body []byte) ([]byte, error) {
	c, err := parseConfirm(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	k, err := keys.SharedKey(c.question.Key)
	if errors.Is(err, keyops.ErrNotFound) || err == nil && !k.Set.Concerns(p.pin.Region) {
		return confirmAnswer{mrk.Confirmation{Nonce: c.question.Nonce}}.marshal(), nil
	}
	if err != nil {
		return nil, err // what cannot be read may be the key: nobody hears that there is none
	}
	return confirmAnswer{k.Set.Confirm(c.question)}.marshal(), nil
}
