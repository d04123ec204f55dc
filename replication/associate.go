package replication

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/replication/message"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/region"
)

// Associate asks another Region now whether its instance would be this one's replica
// instance, or to write down that it is. Errors are as CheckReplica's.
func (r *Replicator) Associate(ctx context.Context, to region.Name, claim keyops.AssociationClaim) error {
	body := message.Associate{Claim: claim}.Marshal()
	err := r.ask(ctx, to, message.KindAssociate, claim.CorrelationID, body)
	if errors.Is(err, errStale) {
		err = r.ask(ctx, to, message.KindAssociate, claim.CorrelationID, body) // the answer has told of the peer's run
	}
	return err
}

// Reachable reports whether the last exchange with a Region was answered.
func (r *Replicator) Reachable(name region.Name) bool {
	p, ok := r.peers[name]
	if !ok {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failures == 0
}

// Progress returns how far a Region has confirmed what is known here of a key.
func (r *Replicator) Progress(id arn.KeyID, of region.Name) (status, cause, text string) {
	for _, row := range r.Status(id) {
		if row.Region == of {
			return row.Status, row.Cause, row.Text
		}
	}
	return StatusPending, "", ""
}

func (r *Replicator) answerAssociate(ctx context.Context, keys Keys, p *peer, body []byte) ([]byte, error) {
	a, err := message.ParseAssociate(body, p.party())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	return decision(keys.Associate(ctx, a.Claim))
}
