package replication

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// Round does what is due with one peer, and returns when to look again at the latest.
func (r *Replicator) Round(ctx context.Context, with region.Name) time.Time {
	return r.peers[with].round(ctx)
}

// round does what is due and returns when to look again at the latest.
func (p *peer) round(ctx context.Context) time.Time {
	now := p.r.cfg.Clock()
	p.mu.Lock()
	retryAt, digestAt, failing := p.retryAt, p.digestAt, p.failures > 0
	p.mu.Unlock()
	if ahead(now, retryAt, 2*p.r.cfg.RetryMax) {
		return retryAt
	}
	if failing {
		p.link.Reconnect()
	}
	keys, err := p.r.running()
	if err != nil {
		return now.Add(p.r.cfg.RetryMax)
	}
	if !ahead(now, digestAt, p.r.cfg.DigestInterval) {
		if err := p.digest(ctx, keys); err != nil {
			return p.giveUp(ctx, keys, err)
		}
	}
	if err := p.shareSevered(ctx, keys); err != nil {
		return p.giveUp(ctx, keys, err)
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

// RetryTransport tries the keys again at once that waited for a transport key: one may have
// been established.
func (r *Replicator) RetryTransport(ctx context.Context) {
	keys, err := r.running()
	if err != nil {
		return
	}
	for _, m := range keys.Marks() {
		if m.Cause != mrk.CauseTransportKeyMissing || m.NextTry.IsZero() {
			continue
		}
		m.NextTry = time.Time{}
		if err := keys.SaveMark(ctx, m); err != nil && ctx.Err() == nil {
			r.cfg.Log.WithError(err).WithField("key", m.Key).Warn("a key that waited for a transport key is tried later")
		}
	}
	for _, p := range r.peers {
		p.poke()
	}
}

// ahead reports whether a time is still to come. One that is further away than any that is
// ever waited for was set by a clock that has gone back since, and counts as past.
func ahead(now, at time.Time, most time.Duration) bool {
	return now.Before(at) && at.Sub(now) <= most
}

// drain settles the keys whose marks are due. An error means that the peer does not answer.
func (p *peer) drain(ctx context.Context, keys Keys) (time.Time, error) {
	now := p.r.cfg.Clock()
	next := now.Add(p.r.cfg.DigestInterval)
	var due []arn.KeyID
	for _, m := range keys.Marks() {
		if m.Peer != p.pin.Region {
			continue
		}
		at := m.NextTry
		if at.IsZero() && p.passedOn(keys, m.Key) {
			at = m.Since.Add(passOn)
		}
		if !ahead(now, at, 2*p.r.cfg.RetryMax) {
			due = append(due, m.Key)
		} else if at.Before(next) {
			next = at
		}
	}
	return next, p.settleAll(ctx, keys, due)
}

// passOn is how long a Region that is not the key's primary Region waits before it tells
// others what they are about to know without it: what the primary Region tells everybody, and
// what it has itself just answered the primary Region. A rotation among n members then takes
// messages in the number of members, and not of pairs.
const passOn = 100 * time.Millisecond

// passedOn reports whether the peer is likely to know soon what is known here.
func (p *peer) passedOn(keys Keys, id arn.KeyID) bool {
	k, err := keys.SharedKey(id)
	if err != nil {
		return false
	}
	switch primary := k.Set.Primary(); primary {
	case p.r.self.Region:
		return false
	case p.pin.Region:
		p.mu.Lock()
		defer p.mu.Unlock()
		return ahead(p.r.cfg.Clock(), p.cameIn.Add(passOn), passOn)
	default:
		return !p.r.silent(primary)
	}
}

// settleAll settles keys, a few at once, until the peer does not answer.
func (p *peer) settleAll(ctx context.Context, keys Keys, ids []arn.KeyID) error {
	group, answering := errgroup.WithContext(ctx)
	group.SetLimit(p.r.cfg.Senders)
	for _, id := range ids {
		if answering.Err() != nil {
			break
		}
		group.Go(func() error { return p.settle(answering, keys, id) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err() // what was cut off by the end of this run has not been settled
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
	if err == nil {
		delete(p.unsettled, id)
	}
	p.mu.Unlock()
	if err == nil || ctx.Err() != nil {
		return nil
	}
	if errors.Is(err, keyops.ErrPeerUnreachable) || errors.Is(err, errStale) {
		return err
	}
	told := errors.Is(err, errNoKey) || errors.Is(err, errRefused) || errors.Is(err, errUnadmitted)
	why := failure{causeOf(err), clip(err.Error(), 512), told}
	// Of a key that is not here nothing is remembered: a peer can name any number of them.
	if _, unknown := keys.SharedKey(id); !errors.Is(unknown, keyops.ErrNotFound) {
		p.mu.Lock()
		p.unsettled[id] = why
		p.mu.Unlock()
	}
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
