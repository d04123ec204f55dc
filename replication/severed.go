package replication

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/replication/message"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/synchronization"
)

// Disassociate asks another Region now whether its instance would be severed from this one, or
// to be, and returns its signature then. Errors are as CheckReplica's.
func (r *Replicator) Disassociate(ctx context.Context, to region.Name, claim keyops.DisassociationClaim) (statement.Signed, error) {
	var none statement.Signed
	p, ok := r.peers[to]
	if !ok {
		return none, fmt.Errorf("%w: Region %s", errNotPinned, to)
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.CheckTimeout)
	defer cancel()
	body := message.Disassociate{Claim: claim}.Marshal()
	reply, err := p.exchange(ctx, message.KindDisassociate, claim.CorrelationID, body)
	if errors.Is(err, errStale) {
		reply, err = p.exchange(ctx, message.KindDisassociate, claim.CorrelationID, body) // the answer has told of the peer's run
	}
	if err != nil {
		return none, fmt.Errorf("%w: Region %s: %w", keyops.ErrPeerUnreachable, to, err)
	}
	a, err := message.ParseDisassociated(reply.Body)
	if err != nil {
		return none, fmt.Errorf("%w: Region %s: %w", keyops.ErrPeerUnreachable, to, err)
	}
	return a.Accepted, a.Decision.Refusal()
}

func (r *Replicator) answerDisassociate(ctx context.Context, keys Keys, p *peer, body []byte) ([]byte, error) {
	d, err := message.ParseDisassociate(body, p.party())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	accepted, err := keys.Disassociate(ctx, d.Claim)
	a, err := decide(err)
	if err != nil {
		return nil, err
	}
	return message.Disassociated{Decision: a, Accepted: accepted}.Marshal(), nil
}

// keepSevered keeps what a peer shows. What cannot be believed is no fault of the exchange.
func (p *peer) keepSevered(ctx context.Context, keys Keys, body []byte) error {
	s, err := message.ParseSevered(body)
	if err != nil {
		return fmt.Errorf("%w: %w", errMessage, err)
	}
	if err := keys.KeepSevered(ctx, s.Pairs); err != nil {
		p.log.WithError(err).Warn("a peer shows severed pairs that were not kept")
	}
	return nil
}

func (r *Replicator) answerSevered(ctx context.Context, keys Keys, p *peer, body []byte) ([]byte, error) {
	if err := p.keepSevered(ctx, keys, body); err != nil {
		return nil, err
	}
	return message.Severed{Pairs: keys.Severed()}.Marshal(), nil
}

// severedSeen is what the peer was last seen to know of severed pairs.
type severedSeen struct {
	run  mrk.Nonce
	both mrk.Hash // of the pairs that both ends knew; zero if they differed
}

// apart reports whether this instance and the peer's are severed, as far as is known here.
func (p *peer) apart(keys Keys) bool {
	self, its := synchronization.End{Region: p.r.self.Region, Instance: p.r.self.Instance}, synchronization.EndOf(p.pin)
	return slices.ContainsFunc(keys.Severed(), func(s synchronization.Severed) bool {
		return s.Primary == self && s.Replica == its || s.Primary == its && s.Replica == self
	})
}

// shareSevered shows the peer which pairs are severed, and hears what it knows, once in each
// run of the peer and after each change. An error means that the peer does not answer.
func (p *peer) shareSevered(ctx context.Context, keys Keys) error {
	mine := message.Severed{Pairs: keys.Severed()}.Marshal()
	hash := mrk.Hash(sha256.Sum256(mine))
	p.mu.Lock()
	same := p.severed == severedSeen{p.session, hash}
	p.mu.Unlock()
	if same {
		return nil
	}
	reply, err := p.exchange(ctx, message.KindSevered, "", mine)
	if errors.Is(err, errUnsupported) {
		err, reply.Body = nil, mine // a peer of a version before this: asked again when it has been upgraded
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(reply.Body, mine) {
		if err := p.keepSevered(ctx, keys, reply.Body); err != nil {
			return err
		}
		hash = mrk.Hash(sha256.Sum256(message.Severed{Pairs: keys.Severed()}.Marshal()))
		if hash != sha256.Sum256(reply.Body) {
			return nil // one end does not believe the other; the next round tries again
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.severed = severedSeen{p.session, hash}
	return nil
}

// RefreshRoster asks a peer for the changes of its operators' roster that are not known here,
// as far as it answers now.
func (r *Replicator) RefreshRoster(ctx context.Context, of region.Name) {
	p, ok := r.peers[of]
	keys, err := r.running()
	if !ok || err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.CheckTimeout)
	defer cancel()
	for {
		known := uint64(len(keys.RosterChanges(p.pin)))
		if err := p.askRoster(ctx, keys, message.RosterNeed{Region: p.pin.Region, Instance: p.pin.Instance, From: known, To: known + 1}); err != nil {
			return // there are no more, or nobody answers: what is known has to do
		}
	}
}
