package replication

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/keyferry/keyferry/replication/message"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/store"
)

// How often what a peer shows is made durable, at most: always, and while keys are managed.
const (
	witnessInterval     = time.Minute
	witnessBusyInterval = time.Second // as often as checkpoints are made
)

// saw keeps what a verified message shows of the peer's audit log and store. A peer that
// shows less than before was rolled back, or its log was cut.
func (p *peer) saw(ctx context.Context, keys Keys, e message.Envelope) {
	if e.Checkpoint.Purpose == "" {
		return
	}
	if err := p.verifyCheckpoint(e.Checkpoint); err != nil {
		p.log.WithError(err).Warn("a peer shows a checkpoint that it has not signed")
		return
	}
	shown, err := audit.ParseCheckpoint(e.Checkpoint)
	if err != nil || shown.Region != p.pin.Region || shown.Instance != p.pin.Instance {
		p.log.WithError(err).Warn("a peer shows a checkpoint that is not its own")
		return
	}
	w := keyops.Witness{
		Peer: p.pin.Region, Instance: p.pin.Instance, Checkpoint: e.Checkpoint, Store: e.Store, Seen: p.r.cfg.Clock(),
	}
	if !p.witnesses(ctx, keys, w, shown, e) {
		return
	}
	if err := keys.SaveWitness(ctx, w); err != nil && ctx.Err() == nil { // else this run, or the call, is over
		p.log.WithError(err).Error("what a peer has shown could not be kept")
	}
}

// verifyCheckpoint verifies the signature of a checkpoint, unless it is the one that was
// verified last: a peer makes one in a second, and shows it in every message.
func (p *peer) verifyCheckpoint(c statement.Signed) error {
	p.mu.Lock()
	last := p.checkpoint
	p.mu.Unlock()
	if last.Purpose == c.Purpose && bytes.Equal(last.Payload, c.Payload) && bytes.Equal(last.Signature, c.Signature) {
		return nil
	}
	if err := p.r.signed.Verify(p.pin.Region, p.pin.Instance, c); err != nil {
		return err
	}
	p.mu.Lock()
	p.checkpoint = c
	p.mu.Unlock()
	return nil
}

// witnesses compares what a peer shows with what it has shown, and reports whether to keep
// it. Messages of one run may overtake each other, so only a new run that shows less is an
// alarm.
func (p *peer) witnesses(ctx context.Context, keys Keys, w keyops.Witness, shown audit.SignedCheckpoint, e message.Envelope) bool {
	if !e.Answer && e.PeerSession != p.r.session {
		// Written before this run, and perhaps on the way since then: it says nothing about now.
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.witness == nil {
		p.recall(ctx, keys)
	}
	if before := p.witness; before != nil && before.Instance == w.Instance {
		if p.witnessRun == e.Session && before.Store.Version > w.Store.Version {
			return false
		}
		if p.witnessRun != e.Session {
			p.compareWitness(*before, w, shown)
		}
	}
	p.witness, p.witnessRun = &w, e.Session
	interval := witnessInterval
	if e.Kind == message.KindFacts {
		interval = witnessBusyInterval
	}
	if since := w.Seen.Sub(p.witnessKept); since >= 0 && since < interval { // a clock that went back delays nothing
		return false
	}
	p.witnessKept = w.Seen
	return true
}

func (p *peer) compareWitness(before, w keyops.Witness, shown audit.SignedCheckpoint) {
	last, err := audit.ParseCheckpoint(before.Checkpoint)
	if err == nil && last.Number > shown.Number {
		p.log.WithField("shown", shown.Number).WithField("witnessed", last.Number).
			Error("ALARM: a peer's audit log is behind what it has shown before")
	}
	if before.Store.Version > w.Store.Version {
		p.log.WithField("shown", w.Store.Version).WithField("witnessed", before.Store.Version).
			Error("ALARM: a peer's store is behind what it has shown before")
	}
}

// recall reads what was kept before this start.
func (p *peer) recall(ctx context.Context, keys Keys) {
	w, err := keys.Witness(ctx, p.pin.Region)
	switch {
	case err == nil:
		p.witness = &w
	case !errors.Is(err, store.ErrNotFound):
		p.log.WithError(err).Warn("what a peer has shown before could not be read")
	}
}
