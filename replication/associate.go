package replication

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/synchronization"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Associate asks another Region now whether its instance would be this one's replica
// instance, or to write down that it is. Errors are as CheckReplica's.
func (r *Replicator) Associate(ctx context.Context, to region.Name, claim keyops.AssociationClaim) error {
	body := associateBody{claim}.marshal()
	err := r.ask(ctx, to, kindAssociate, claim.CorrelationID, body)
	if errors.Is(err, errStale) {
		err = r.ask(ctx, to, kindAssociate, claim.CorrelationID, body) // the answer has told of the peer's run
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

// associateBody is a claim to be decided, and to be written down if it says so.
type associateBody struct{ claim keyops.AssociationClaim }

func (a associateBody) marshal() []byte {
	var w wire.Writer
	w.String(string(a.claim.Synchronization))
	w.String(string(a.claim.Account))
	w.String(a.claim.Principal.String())
	w.Uint(uint64(a.claim.KeyQuota))
	w.Bool(a.claim.Commit)
	w.String(a.claim.CorrelationID)
	return w.Out()
}

// parseAssociate reads the claim of a peer. Which instance it comes from is what the
// envelope's signature has shown.
func parseAssociate(p []byte, source party) (associateBody, error) {
	r := wire.NewReader(p)
	c := keyops.AssociationClaim{Source: source.region, Instance: source.instance}
	var errs [3]error
	c.Synchronization, errs[0] = synchronization.ParseID(r.String(maxKind))
	c.Account, errs[1] = arn.ParseAccount(r.String(maxKind))
	c.Principal, errs[2] = arn.ParsePrincipal(r.String(1024))
	if err := errors.Join(errs[:]...); err != nil && r.Err() == nil {
		r.Fail("%v", err)
	}
	quota := r.Uint()
	if quota > 1<<31 {
		r.Fail("quota of %d keys", quota)
	}
	c.KeyQuota, c.Commit, c.CorrelationID = int(quota), r.Bool(), r.String(maxCorrelation)
	if err := r.Done(); err != nil {
		return associateBody{}, fmt.Errorf("parsing associate message: %w", err)
	}
	return associateBody{c}, nil
}

func (r *Replicator) answerAssociate(ctx context.Context, keys Keys, p *peer, body []byte) ([]byte, error) {
	a, err := parseAssociate(body, p.party())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	return decision(keys.Associate(ctx, a.claim))
}
