package hsm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/miekg/pkcs11"
)

// Bounds of reconnection. Attempts are few, because each may load the module's network
// client anew, and endless, because a token may be away for days.
const (
	reconnectFirst = 100 * time.Millisecond
	reconnectMost  = 30 * time.Second
	drainTime      = 10 * time.Second // how long to wait for running calls before C_Finalize
)

// lost gives the connection up and starts reconnection. Only the first to notice does both.
func (t *Token) lost(c *connection, cause error) {
	if !t.conn.CompareAndSwap(c, nil) {
		return
	}
	t.log.WithError(cause).Error("token lost; reconnecting")
	go t.reconnect(c, c.pool.close())
}

// drop gives up whatever connection there is, because its handles are about to become void.
func (t *Token) drop(cause error) {
	if c := t.conn.Load(); c != nil {
		t.lost(c, cause)
	}
}

// reconnect tries until the token is back or closed. A PIN that is refused ends it, since
// tokens lock after a few; only a restart tries another. The old connection's idle sessions
// are closed at the end, after there is a new login, since a token logs a process out with
// its last session.
func (t *Token) reconnect(old *connection, idle []pkcs11.SessionHandle) {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = reconnectFirst, reconnectMost
	start := time.Now()
	for {
		select {
		case <-t.stop:
			return
		case <-time.After(wait.NextBackOff()):
		}
		c, err := t.reconnectOnce()
		if errors.Is(err, ErrPIN) {
			err = fmt.Errorf("reconnecting: %w", err)
			t.failed.Store(&err)
			t.log.WithError(err).Error("token refused the login; not trying again")
			return
		}
		if err != nil {
			t.log.WithError(err).Warn("token still away")
			continue
		}
		if t.module.gate.enter() {
			if old.generation == t.module.generation.Load() {
				t.closeAll(append(idle, old.login))
			}
			t.module.gate.leave()
		}
		t.mu.Lock()
		if !t.closed {
			t.conn.Store(c)
		}
		t.mu.Unlock()
		t.log.WithField("away", time.Since(start).String()).Info("token reconnected")
		return
	}
}

// reconnectOnce opens new sessions in the library as it is; if the token cannot be reached
// that way, it initialises the library anew and tries again, unless that would interrupt
// another token.
func (t *Token) reconnectOnce() (*connection, error) {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	c, err := t.connectAgain(ctx)
	if err == nil || errors.Is(err, ErrPIN) {
		return c, err
	}
	if t.module.serves(t) {
		return nil, fmt.Errorf("another token of the library is in use: %w", err)
	}
	if err := t.module.reinitialise(ctx); err != nil {
		return nil, err
	}
	return t.connectAgain(ctx)
}

// connectAgain makes a connection with a crypto11 context of its own. The old context is
// left to itself: closing it would close session numbers that are somebody else's by now.
func (t *Token) connectAgain(ctx context.Context) (*connection, error) {
	if !t.module.gate.enter() {
		return nil, fmt.Errorf("library is being initialised: %w", ErrUnavailable)
	}
	defer t.module.gate.leave()
	if _, _, err := t.module.findSlot(t.sel); err != nil {
		return nil, err
	}
	signers, err := openCrypto11(t.module.path, t.sel)
	if err != nil {
		return nil, err
	}
	return t.connect(ctx, signers)
}
