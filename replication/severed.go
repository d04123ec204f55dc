package replication

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/synchronization"
	"github.com/keyferry/keyferry/keyops/wire"
)

const (
	maxSevered  = 512     // pairs of one message
	maxSevering = 8 << 10 // of one pair with its signatures
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
	body := disassociateBody{claim}.marshal()
	reply, err := p.exchange(ctx, kindDisassociate, claim.CorrelationID, body)
	if errors.Is(err, errStale) {
		reply, err = p.exchange(ctx, kindDisassociate, claim.CorrelationID, body) // the answer has told of the peer's run
	}
	if err != nil {
		return none, fmt.Errorf("%w: Region %s: %w", keyops.ErrPeerUnreachable, to, err)
	}
	a, err := parseDisassociateAnswer(reply.body)
	if err != nil {
		return none, fmt.Errorf("%w: Region %s: %w", keyops.ErrPeerUnreachable, to, err)
	}
	return a.accepted, a.decision.refusal()
}

// disassociateBody is a claim to be decided, and to be carried out if it is signed.
type disassociateBody struct{ claim keyops.DisassociationClaim }

func (d disassociateBody) marshal() []byte {
	var w wire.Writer
	w.Bool(d.claim.Commit())
	if d.claim.Commit() {
		w.Bytes(d.claim.Severed.Encode())
	} else {
		w.Bytes(d.claim.Severed.Payload())
	}
	w.Count(len(d.claim.Approvals))
	for _, f := range d.claim.Approvals {
		f.Encode(&w)
	}
	w.String(d.claim.CorrelationID)
	return w.Out()
}

// parseDisassociate reads the claim of a peer. Which instance it comes from is what the
// envelope's signature has shown.
func parseDisassociate(p []byte, source party) (disassociateBody, error) {
	r := wire.NewReader(p)
	c := keyops.DisassociationClaim{Source: source.region, Instance: source.instance}
	commit, severed := r.Bool(), r.Bytes(maxSevering)
	for range r.Count(approval.MaxOperators) {
		c.Approvals = append(c.Approvals, statement.DecodeFile(r))
		if r.Err() != nil {
			break
		}
	}
	c.CorrelationID = r.String(maxCorrelation)
	err := r.Done()
	switch {
	case err != nil:
	case commit:
		c.Severed, err = synchronization.DecodeSevered(severed)
	default:
		c.Severed.Severance, err = synchronization.ParseSeverance(severed)
	}
	if err != nil {
		return disassociateBody{}, fmt.Errorf("parsing disassociate message: %w", err)
	}
	return disassociateBody{c}, nil
}

// disassociateAnswer is a decision, and the signature of who was severed.
type disassociateAnswer struct {
	decision checkAnswer
	accepted statement.Signed // without a purpose if there was none to give
}

func (d disassociateAnswer) marshal() []byte {
	var w wire.Writer
	w.String(string(d.decision.reason))
	w.String(d.decision.message)
	if d.accepted.Purpose == "" {
		w.Bytes(nil)
	} else {
		w.Bytes(d.accepted.Marshal())
	}
	return w.Out()
}

func parseDisassociateAnswer(p []byte) (disassociateAnswer, error) {
	r := wire.NewReader(p)
	a := disassociateAnswer{decision: checkAnswer{reason: keyops.Reason(r.String(maxKind)), message: r.String(8192)}}
	signed := r.Bytes(maxSevering)
	err := r.Done()
	if err == nil && len(signed) > 0 {
		a.accepted, err = statement.Parse(signed)
	}
	if err != nil {
		return a, fmt.Errorf("parsing answer to a disassociate message: %w", err)
	}
	return a, nil
}

func (r *Replicator) answerDisassociate(ctx context.Context, keys Keys, p *peer, body []byte) ([]byte, error) {
	d, err := parseDisassociate(body, p.party())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	accepted, err := keys.Disassociate(ctx, d.claim)
	a, err := decide(err)
	if err != nil {
		return nil, err
	}
	return disassociateAnswer{a, accepted}.marshal(), nil
}

// severedBody is the pairs of instances that a Region knows to be severed. It is the message
// and the answer.
type severedBody struct{ pairs []synchronization.Severed }

func (s severedBody) marshal() []byte {
	pairs := s.pairs[:min(len(s.pairs), maxSevered)]
	var w wire.Writer
	w.Count(len(pairs))
	for _, p := range pairs {
		w.Bytes(p.Encode())
	}
	return w.Out()
}

func parseSevered(b []byte) (severedBody, error) {
	r := wire.NewReader(b)
	var raw [][]byte
	for range r.Count(maxSevered) {
		raw = append(raw, r.Bytes(maxSevering))
		if r.Err() != nil {
			break
		}
	}
	if err := r.Done(); err != nil {
		return severedBody{}, fmt.Errorf("parsing severed message: %w", err)
	}
	var s severedBody
	for _, b := range raw {
		p, err := synchronization.DecodeSevered(b)
		if err != nil {
			return s, err
		}
		s.pairs = append(s.pairs, p)
	}
	return s, nil
}

// keepSevered keeps what a peer shows. What cannot be believed is no fault of the exchange.
func (p *peer) keepSevered(ctx context.Context, keys Keys, body []byte) error {
	s, err := parseSevered(body)
	if err != nil {
		return fmt.Errorf("%w: %w", errMessage, err)
	}
	if err := keys.KeepSevered(ctx, s.pairs); err != nil {
		p.log.WithError(err).Warn("a peer shows severed pairs that were not kept")
	}
	return nil
}

func (r *Replicator) answerSevered(ctx context.Context, keys Keys, p *peer, body []byte) ([]byte, error) {
	if err := p.keepSevered(ctx, keys, body); err != nil {
		return nil, err
	}
	return severedBody{keys.Severed()}.marshal(), nil
}

// severedSeen is what the peer was last seen to know of severed pairs.
type severedSeen struct {
	run  mrk.Nonce
	both mrk.Hash // of the pairs that both ends knew; zero if they differed
}

// apart reports whether this instance and the peer's are severed, as far as is known here.
func (p *peer) apart(keys Keys) bool {
	self, its := synchronization.End{Region: p.r.self.region, Instance: p.r.self.instance}, synchronization.EndOf(p.pin)
	return slices.ContainsFunc(keys.Severed(), func(s synchronization.Severed) bool {
		return s.Primary == self && s.Replica == its || s.Primary == its && s.Replica == self
	})
}

// shareSevered shows the peer which pairs are severed, and hears what it knows, once in each
// run of the peer and after each change. An error means that the peer does not answer.
func (p *peer) shareSevered(ctx context.Context, keys Keys) error {
	mine := severedBody{keys.Severed()}.marshal()
	hash := mrk.Hash(sha256.Sum256(mine))
	p.mu.Lock()
	same := p.severed == severedSeen{p.session, hash}
	p.mu.Unlock()
	if same {
		return nil
	}
	reply, err := p.exchange(ctx, kindSevered, "", mine)
	if errors.Is(err, errUnsupported) {
		err, reply.body = nil, mine // a peer of a version before this: asked again when it has been upgraded
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(reply.body, mine) {
		if err := p.keepSevered(ctx, keys, reply.body); err != nil {
			return err
		}
		hash = mrk.Hash(sha256.Sum256(severedBody{keys.Severed()}.marshal()))
		if hash != sha256.Sum256(reply.body) {
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
		if err := p.askRoster(ctx, keys, rosterNeed{p.pin.Region, p.pin.Instance, known, known + 1}); err != nil {
			return // there are no more, or nobody answers: what is known has to do
		}
	}
}
