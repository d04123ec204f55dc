package audit

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// signTimeout bounds a checkpoint: a token that hangs must not hold up the end of the log.
const signTimeout = 5 * time.Second

// errNoStore says that no checkpoint can be made yet.
var errNoStore = errors.New("no store is covered yet")

// CoverStore gives checkpoints the store's head, and begins to make them. Before it there
// are none, so that every checkpoint says how far the store was.
func (l *Log) CoverStore(head func() StoreHead) {
	l.store.Store(&head)
	l.requestCheckpoint()
}

func (l *Log) requestCheckpoint() {
	select {
	case l.early <- struct{}{}:
	default:
	}
}

// Last returns the newest checkpoint that is on disk. It outlives restarts: after one it
// is the witness to compare the store with.
func (l *Log) Last() (SignedCheckpoint, bool) {
	c := l.last.Load()
	if c == nil {
		return SignedCheckpoint{}, false
	}
	return *c, true
}

// checkpoints makes one after each interval, and earlier when it is asked to.
func (l *Log) checkpoints() {
	ticker := time.NewTicker(l.cfg.CheckpointEvery)
	defer ticker.Stop()
	early := l.early
	for {
		select {
		case <-l.stop:
			return
		case <-ticker.C:
		case <-early:
		}
		ctx, cancel := context.WithTimeout(context.Background(), signTimeout)
		_, err := l.checkpoint(ctx)
		cancel()
		if errors.Is(err, errNoStore) || errors.Is(err, ErrUnavailable) {
			continue // the writer reports a disk that refuses
		}
		if err != nil && early != nil {
			l.cfg.Logger.WithError(err).Error("audit checkpoint not made, the newest records are not signed for yet")
		}
		// A token that is away is asked once in each interval, and reported once.
		if early = l.early; err != nil {
			early = nil
		}
	}
}

// Checkpoint covers everything that was accepted before the call, and returns the
// checkpoint once it is on disk; the last one, if there is nothing new.
func (l *Log) Checkpoint(ctx context.Context) (SignedCheckpoint, error) {
	c, err := l.checkpoint(ctx)
	if err != nil {
		return SignedCheckpoint{}, fmt.Errorf("making an audit checkpoint: %w", err)
	}
	return c, nil
}

func (l *Log) checkpoint(ctx context.Context) (SignedCheckpoint, error) {
	head := l.store.Load()
	if head == nil {
		return SignedCheckpoint{}, errNoStore
	}
	l.signing.Lock()
	defer l.signing.Unlock()
	// Only what is on disk is covered: a checkpoint that a peer saw must not name lines
	// that a crash takes back.
	if err := l.wait(ctx, item{flush: true}, true); err != nil {
		return SignedCheckpoint{}, err
	}
	t := l.tip.Load()
	if last, ok := l.Last(); ok && t.records == l.covered.Load() {
		return last, nil
	}
	c := Checkpoint{
		Region:   l.cfg.Region,
		Instance: l.cfg.Instance,
		Number:   l.number + 1,
		Time:     l.cfg.Now().UTC(),
		Seq:      t.seq,
		Hash:     t.hash,
		Store:    (*head)(),
	}
	signed, err := c.sign(ctx, l.cfg.Signer)
	if err != nil {
		return SignedCheckpoint{}, err
	}
	if len(l.cfg.Keys) > 0 {
		if err := signed.verifyAny(l.cfg.Keys); err != nil {
			return SignedCheckpoint{}, fmt.Errorf("checking the token's signature of checkpoint %d: %w", c.Number, err)
		}
	}
	// From here the number is used: the line may reach the disk though the wait for it fails.
	l.number = c.Number
	if err := l.wait(ctx, item{checkpoint: &signed}, true); err != nil {
		return SignedCheckpoint{}, err
	}
	l.covered.Store(t.records)
	l.last.Store(&signed)
	return signed, nil
}
