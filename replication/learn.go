package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/replication/message"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// eventSynchronize is the audit event of facts and materials that arrive or leave.
const eventSynchronize = "SynchronizeMultiRegionKey"

// learn takes over what a peer has told about a key, and then does what the rules say.
func (r *Replicator) learn(ctx context.Context, keys Keys, p *peer, f message.Facts, correlation string) error {
	if len(f.Facts.Certificates) == 0 && f.Facts.State == nil && len(f.Facts.Members) == 0 && f.Facts.Admission == nil {
		return nil
	}
	if _, err := keys.SharedKey(f.Key); errors.Is(err, keyops.ErrNotFound) {
		return r.admit(ctx, keys, f)
	}
	var res mrk.Result
	cause := keyops.Cause{Event: eventSynchronize, Peer: p.pin.Region, CorrelationID: correlation}
	err := keys.UpdateShared(ctx, f.Key, cause, func(k *keyops.Key) (err error) {
		if res, err = k.Set.Merge(r.signed, f.Facts); err != nil {
			return err
		}
		kept := f.Request != nil && k.Set.KeepAdmission(r.signed, *f.Request)
		if !res.Changed && !kept {
			return keyops.ErrUnchanged
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("merging facts of %s: %w", f.Key, err)
	}
	for _, ref := range res.Refused {
		entry := p.log.WithError(ref.Err).WithField("key", f.Key).WithField("writer", ref.Writer).WithField("cause", ref.Cause)
		if ref.Cause == mrk.CauseEpochFork || ref.Cause == mrk.CauseEquivocation {
			entry.Error("ALARM: contradictory facts; the management of the key is frozen")
		} else {
			entry.Warn("a fact was refused")
		}
	}
	if err := r.step(ctx, keys, f.Key, correlation); err != nil {
		return err
	}
	if k, err := keys.SharedKey(f.Key); err == nil && k.Gone() && f.Request != nil {
		if err := r.readmit(ctx, keys, k, *f.Request); err != nil {
			return err
		}
	}
	for _, ref := range res.Refused {
		switch {
		case errors.Is(ref.Err, mrk.ErrGap): // the other end sends more when it has seen our head
		case errors.Is(ref.Err, mrk.ErrRequest) && !res.Gap: // it comes last, so nothing else was refused
			return fmt.Errorf("%w: %w", errUnadmitted, ref.Err)
		default:
			return ref.Err
		}
	}
	return nil
}

// step does what this Region, if it acts as the key's primary Region, does by itself.
func (r *Replicator) step(ctx context.Context, keys Keys, id arn.KeyID, correlation string) error {
	if keys.ActsForNone() {
		return nil
	}
	k, err := keys.SharedKey(id)
	if err != nil {
		return err
	}
	contact := r.contact(id)
	changed, events, err := k.Set.Clone().Step(ctx, mrk.Unsigned{}, contact)
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
	r.stepKeys(ctx, func(s *mrk.Set) bool { return !s.Acting() || !s.Pending().IsZero() })
}

// Step steps every key of which this is the primary Region. What peers have said and what
// follows from it are two transactions: if this Region dies, or its token fails, between
// them, both ends know the same facts and no message brings the key on.
func (r *Replicator) Step(ctx context.Context) {
	r.stepKeys(ctx, func(*mrk.Set) bool { return true })
}

func (r *Replicator) stepKeys(ctx context.Context, due func(*mrk.Set) bool) {
	keys, err := r.running()
	if err != nil {
		return
	}
	for _, id := range keys.SharedKeys() {
		k, err := keys.SharedKey(id)
		if err != nil || k.Set.Primary() != r.self.Region || !due(k.Set) {
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
			why, unsettled := p.unsettled[id]
			return !guardHeard.Stops(!p.heard) && (!unsettled || why.heard)
		},
		Nonce: func() (mrk.Nonce, error) { return mrk.NewNonce(r.cfg.Rand) },
		Now:   func() int64 { return r.cfg.Clock().Unix() },

		Verifier: r.signed,
	}
}
