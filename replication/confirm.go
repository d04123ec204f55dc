package replication

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/replication/message"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
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
	reply, err := p.exchange(ctx, message.KindConfirm, "", message.Confirm{Question: q}.Marshal())
	if err != nil {
		return none, time.Time{}, fmt.Errorf("%w: Region %s: %w", keyops.ErrPeerUnreachable, to, err)
	}
	c, err := message.ParseConfirmation(reply.Body, to)
	if err != nil {
		return none, time.Time{}, fmt.Errorf("%w: Region %s: %w", keyops.ErrPeerUnreachable, to, err)
	}
	return c, time.Unix(0, reply.Sent), nil
}

// answerConfirm says what this Region is to a key at this moment. A Region that has no part
// in the key is told that there is none.
func (r *Replicator) answerConfirm(keys Keys, p *peer, body []byte) ([]byte, error) {
	c, err := message.ParseConfirm(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	k, err := keys.SharedKey(c.Question.Key)
	if errors.Is(err, keyops.ErrNotFound) || err == nil && !k.Set.Concerns(p.pin.Region) {
		return message.Confirmation{Confirmation: mrk.Confirmation{Nonce: c.Question.Nonce}}.Marshal(), nil
	}
	if err != nil {
		return nil, err // what cannot be read may be the key: nobody hears that there is none
	}
	return message.Confirmation{Confirmation: k.Set.Confirm(c.Question)}.Marshal(), nil
}
