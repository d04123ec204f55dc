package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

// eventSynchronize is the audit event of facts and materials that arrive or leave.
const eventSynchronize = "SynchronizeMultiRegionKey"

// rounds bounds the messages about one key in a row. A replica that is made needs four;
// what is not settled by then has a fault, and waits like one.
const rounds = 12

// run drains the outbox for ever.
func (p *peer) run(ctx context.Context) {
	for {
		next := p.round(ctx)
		timer := time.NewTimer(max(next.Sub(p.r.cfg.Clock()), 5*time.Millisecond))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-p.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// round does what is due and returns when to look again at the latest.
func (p *peer) round(ctx context.Context) time.Time {
	now := p.r.cfg.Clock()
	p.mu.Lock()
	retryAt, digestAt, failing := p.retryAt, p.digestAt, p.failures > 0
	p.mu.Unlock()
	if now.Before(retryAt) {
		return retryAt
	}
	if failing {
		p.conn.ResetConnectBackoff()
	}
	keys, err := p.r.running()
	if err != nil {
		return now.Add(p.r.cfg.RetryMax)
	}
	if !now.Before(digestAt) {
		if err := p.digest(ctx, keys); err != nil {
			return p.giveUp(ctx, keys, err)
		}
	}
	next, err := p.drain(ctx, keys)
	if err != nil {
		return p.giveUp(ctx, keys, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.digestAt.Before(next) {
		next = p.digestAt
	}
	return next
}

// drain settles the keys whose marks are due. An error means that the peer does not answer.
func (p *peer) drain(ctx context.Context, keys Keys) (time.Time, error) {
	now := p.r.cfg.Clock()
	next := now.Add(p.r.cfg.DigestInterval)
	var group errgroup.Group
	group.SetLimit(senders)
	for _, m := range keys.Marks() {
		switch {
		case m.Peer != p.pin.Region:
		case now.Before(m.NextTry):
			if m.NextTry.Before(next) {
				next = m.NextTry
			}
		case ctx.Err() == nil:
			group.Go(func() error { return p.settle(ctx, keys, m.Key) })
		}
	}
	return next, group.Wait()
}

// giveUp notes that the peer does not answer. One mark keeps count of the tries durably;
// the others share the fate of the connection.
func (p *peer) giveUp(ctx context.Context, keys Keys, err error) time.Time {
	if ctx.Err() != nil {
		return p.r.cfg.Clock().Add(time.Hour) // closing
	}
	if errors.Is(err, errStale) {
		return p.r.cfg.Clock() // a digest is due
	}
	p.failed(err)
	p.mu.Lock()
	next := p.retryAt
	p.mu.Unlock()
	for _, m := range keys.Marks() {
		if m.Peer != p.pin.Region {
			continue
		}
		m.Attempts++
		m.LastTry, m.Cause, m.Text = p.r.cfg.Clock(), causeOf(err), clip(err.Error(), 512)
		if err := keys.SaveMark(ctx, m); err != nil {
			p.log.WithError(err).Error("a failed try could not be recorded")
		}
		break
	}
	return next
}

// settle exchanges one key and records what became of it. An error means that the peer does
// not answer at all.
func (p *peer) settle(ctx context.Context, keys Keys, id arn.KeyID) error {
	p.mu.Lock()
	if p.busy[id] {
		p.mu.Unlock()
		return nil
	}
	p.busy[id] = true
	p.mu.Unlock()
	err := p.syncKey(ctx, keys, id)
	p.mu.Lock()
	delete(p.busy, id)
	delete(p.unsettled, id)
	p.mu.Unlock()
	if err == nil || ctx.Err() != nil {
		return nil
	}
	if errors.Is(err, keyops.ErrPeerUnreachable) || errors.Is(err, errStale) {
		return err
	}
	why := failure{causeOf(err), clip(err.Error(), 512)}
	p.mu.Lock()
	p.unsettled[id] = why
	p.mu.Unlock()
	m, ok := keys.Mark(id, p.pin.Region)
	if !ok {
		return nil
	}
	m.Attempts++
	m.LastTry, m.Cause, m.Text = p.r.cfg.Clock(), why.cause, why.text
	m.NextTry = m.LastTry.Add(p.r.cfg.delay(m.Attempts))
	if err := keys.SaveMark(ctx, m); err != nil {
		p.log.WithError(err).WithField("key", id).Error("a failed try could not be recorded")
	}
	p.log.WithError(err).WithField("key", id).WithField("cause", why.cause).Warn("a key could not be synchronized")
	return nil
}

// syncKey exchanges facts and materials of one key until both ends know the same and the
// peer lacks nothing that this Region is to send.
func (p *peer) syncKey(ctx context.Context, keys Keys, id arn.KeyID) error {
	var last factsBody // the peer's newest answer
	introduce := false
	for range rounds {
		body, err := p.compose(ctx, keys, id, last.head, introduce)
		if err != nil {
			return err
		}
		correlation := ""
		if body.request != nil {
			correlation = body.request.CorrelationID
		}
		reply, err := p.exchange(ctx, kindFacts, correlation, body.marshal())
		if err != nil {
			return err
		}
		if last, err = parseFacts(reply.body); err != nil {
			return fmt.Errorf("%w: %w", errMessage, err)
		}
		if last.key != id {
			return fmt.Errorf("%w: an answer about another key", errMessage)
		}
		if err := p.r.learn(ctx, keys, p, last, correlation); err != nil {
			return err
		}
		if last.trouble.cause == mrk.CauseCreateRequestMissing && !introduce && body.hash != (mrk.Hash{}) {
			introduce = true // the peer may not know that this Region is a member
			continue
		}
		if last.trouble.cause != "" {
			return troubleError(last.trouble)
		}
		done, err := p.confirmed(ctx, keys, id, last.hash)
		if done || err != nil {
			return err
		}
	}
	return troubleError(trouble{mrk.CauseWaitingForConfirmation, "the Regions have not come to the same facts yet"})
}

// confirmed clears the mark if the peer has shown the hash of the newest facts and is owed
// nothing.
func (p *peer) confirmed(ctx context.Context, keys Keys, id arn.KeyID, hash mrk.Hash) (bool, error) {
	k, err := keys.SharedKey(id)
	if errors.Is(err, keyops.ErrNotFound) {
		return true, nil // neither end has it
	}
	if err != nil {
		return false, err
	}
	if k.Set.Hash() != hash || len(p.owed(k.Set)) > 0 {
		return false, nil
	}
	if err := keys.ClearMark(ctx, id, p.pin.Region, hash); err != nil {
		return false, err
	}
	p.mu.Lock()
	p.settled[id] = p.r.cfg.Clock()
	p.mu.Unlock()
	return true, nil
}

// compose makes the next message about a key: what follows the certificates that the peer
// is known to have, and materials once the peer has said what it lacks.
func (p *peer) compose(ctx context.Context, keys Keys, id arn.KeyID, after mrk.Hash, introduce bool) (factsBody, error) {
	k, err := keys.SharedKey(id)
	if errors.Is(err, keyops.ErrNotFound) || err == nil && !k.Set.Concerns(p.pin.Region) {
		return factsBody{key: id, facts: mrk.Facts{Key: id}}, nil // asks what the peer knows
	}
	if err != nil {
		return factsBody{}, err
	}
	body := factsBody{key: id, facts: k.Set.Facts(after), head: k.Set.Head(), hash: k.Set.Hash()}
	if introduce {
		body.facts.Admission = k.Set.Admission()
	}
	if req, ok := k.Set.Request(p.pin.Region); ok && !said(k.Set, req) {
		body.request = &req
	}
	for _, m := range p.owed(k.Set) {
		b, err := keys.WrapMaterial(ctx, id, m, p.pin)
		if err != nil {
			return body, fmt.Errorf("wrapping for %s: %w", p.pin.Region, err)
		}
		if body.blobs = append(body.blobs, b); len(body.blobs) == maxBlobs {
			break
		}
	}
	return body, nil
}

// said reports whether the destination has already spoken as the incarnation that the
// request asks for.
func said(s *mrk.Set, req mrk.CreateRequest) bool {
	m := s.Fact(req.Destination)
	return m != nil && m.Incarnation >= req.Incarnation
}

// owed returns the materials that the peer lacks and that this Region is to send. The
// primary Region sends them; another one does where the primary Region cannot: to it, or in
// its place if it lacks the material or cannot be reached from here.
func (p *peer) owed(s *mrk.Set) []material.ID {
	owed := s.Owes(p.pin.Region)
	primary := s.Primary()
	if len(owed) == 0 || s.Acting() || primary == p.pin.Region || p.r.silent(primary) {
		return owed
	}
	fact := s.Fact(primary)
	if primary == p.r.self.region || fact == nil {
		return owed
	}
	return slices.DeleteFunc(owed, fact.Holds)
}

// silent reports whether a peer does not answer now.
func (r *Replicator) silent(name region.Name) bool {
	p, ok := r.peers[name]
	if !ok {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failures > 2
}

// learn takes over what a peer has told about a key, and then does what the rules say.
func (r *Replicator) learn(ctx context.Context, keys Keys, p *peer, f factsBody, correlation string) error {
	if len(f.facts.Certificates) == 0 && f.facts.State == nil && len(f.facts.Members) == 0 && f.facts.Admission == nil {
		return nil
	}
	if _, err := keys.SharedKey(f.key); errors.Is(err, keyops.ErrNotFound) {
		return r.admit(ctx, keys, p, f)
	}
	var res mrk.Result
	cause := keyops.Cause{Event: eventSynchronize, Peer: p.pin.Region, CorrelationID: correlation}
	err := keys.UpdateShared(ctx, f.key, cause, func(k *keyops.Key) (err error) {
		if res, err = k.Set.Merge(r.facts, f.facts); err != nil {
			return err
		}
		if !res.Changed {
			return keyops.ErrUnchanged
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("merging facts of %s: %w", f.key, err)
	}
	for _, ref := range res.Refused {
		entry := p.log.WithError(ref.Err).WithField("key", f.key).WithField("writer", ref.Writer).WithField("cause", ref.Cause)
		if ref.Cause == mrk.CauseEpochFork || ref.Cause == mrk.CauseEquivocation {
			entry.Error("ALARM: contradictory facts; the management of the key is frozen")
		} else {
			entry.Warn("a fact was refused")
		}
	}
	if err := r.step(ctx, keys, f.key, correlation); err != nil {
		return err
	}
	for _, ref := range res.Refused {
		if !errors.Is(ref.Err, mrk.ErrGap) { // the other end sends more when it has seen our head
			return ref.Err
		}
	}
	return nil
}

// unsigned lets Step be tried without the token: what it would write goes nowhere.
type unsigned struct{}

func (unsigned) Sign(_ context.Context, p statement.Purpose, payload []byte) (statement.Signed, error) {
	return statement.Signed{Purpose: p, Payload: payload}, nil
}

// step does what this Region, if it acts as the key's primary Region, does by itself.
func (r *Replicator) step(ctx context.Context, keys Keys, id arn.KeyID, correlation string) error {
	k, err := keys.SharedKey(id)
	if err != nil {
		return err
	}
	contact := r.contact(id)
	changed, events, err := k.Set.Clone().Step(ctx, unsigned{}, contact)
	if err != nil || !changed {
		return err
	}
	cause := keyops.Cause{Event: eventSynchronize, CorrelationID: correlation}
	if slices.ContainsFunc(events, func(e mrk.Event) bool { return e.Kind == mrk.EventReleased }) {
		cause.Event = string(mrk.EventReleased)
	}
	err = keys.UpdateShared(ctx, id, cause, func(k *keyops.Key) error {
		changed, now, err := k.Set.Step(ctx, keys.Signer(), contact)
		if events = now; err == nil && !changed {
			return keyops.ErrUnchanged
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("stepping key %s: %w", id, err)
	}
	for _, e := range events {
		r.cfg.Log.WithField("key", id).WithField("event", e.Kind).WithField("region", e.Region).Info("a multi-Region key went on")
	}
	return nil
}

// stepWaiting steps the keys that wait for this Region alone, or for having heard others.
func (r *Replicator) stepWaiting(ctx context.Context) {
	keys, err := r.running()
	if err != nil {
		return
	}
	for _, id := range keys.SharedKeys() {
		k, err := keys.SharedKey(id)
		if err != nil || k.Set.Primary() != r.self.region || k.Set.Acting() && k.Set.Pending().IsZero() {
			continue
		}
		if err := r.step(ctx, keys, id, ""); err != nil && ctx.Err() == nil {
			r.cfg.Log.WithError(err).WithField("key", id).Warn("a multi-Region key could not go on")
		}
	}
}

// contact is what this Region knows beside the facts of a key.
func (r *Replicator) contact(id arn.KeyID) mrk.Contact {
	return mrk.Contact{
		Regions: r.names(),
		Heard: func(name region.Name) bool {
			p, ok := r.peers[name]
			if !ok {
				return false
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			_, unsettled := p.unsettled[id]
			return p.heard && !unsettled
		},
		Nonce: func() (mrk.Nonce, error) { return mrk.NewNonce(r.cfg.Rand) },
		Now:   func() int64 { return r.cfg.Clock().Unix() },
	}
}
