package hsm

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

// call is one operation on one session, in a goroutine of its own, because a PKCS#11
// function cannot be cancelled: when ctx ends the caller gets its error at once and the
// goroutine stays with the session until the module returns.
type call struct {
	op    string
	write bool // changes token objects: serialised per token, and its outcome may be unknown
}

// Phases of a call. The caller and the goroutine each move on by compare-and-swap, so that
// exactly one of them decides.
const (
	waiting   int32 = iota // for a session or for the write lock; nothing has been done
	running                // the module has been called
	finished               // the result is on its way to the caller
	abandoned              // the caller has left
)

var errNoReturn = fmt.Errorf("call did not return: %w", ErrModuleBroken)

// do runs fn on a session of the token's connection. A session that turns out to be dead is
// replaced and fn runs once more; fn must not have changed anything before it returns
// [ErrSessionDead], or must add [ErrOutcomeUnknown]. The arguments that fn holds must not
// be changed by the caller after do returned the context's error.
func do[T any](ctx context.Context, t *Token, what call, fn func(c *connection, s pkcs11.SessionHandle) (T, error)) (v T, err error) {
	if t.cfg.Observe != nil {
		defer func(begun time.Time) { t.cfg.Observe(what.op, time.Since(begun), err) }(time.Now())
	}
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, fmt.Errorf("%s: %w", what.op, err)
	}
	c, err := t.connected()
	if err != nil {
		return zero, fmt.Errorf("%s: %w", what.op, err)
	}
	if !t.module.gate.enter() {
		return zero, fmt.Errorf("%s: library is being initialised: %w", what.op, ErrUnavailable)
	}
	type result struct {
		v   T
		err error
	}
	var phase atomic.Int32
	done := make(chan result, 1)
	go func() {
		defer t.module.gate.leave()
		r := result{err: errNoReturn}
		defer func() { done <- r }() // whatever ends the goroutine, the caller does not wait for ever
		r.v, r.err = runCall(ctx, t, c, what, &phase, fn)
	}()
	select {
	case r := <-done:
		return r.v, wrapOp(what.op, r.err)
	case <-ctx.Done():
	}
	switch {
	case phase.CompareAndSwap(waiting, abandoned):
		return zero, fmt.Errorf("%s: waiting for a session: %w", what.op, ctx.Err())
	case phase.CompareAndSwap(running, abandoned):
		t.log.WithField("operation", what.op).Warn("token call overran its deadline; its session is in quarantine")
		if what.write {
			return zero, fmt.Errorf("%s: %w: %w", what.op, ctx.Err(), ErrOutcomeUnknown)
		}
		return zero, fmt.Errorf("%s: %w", what.op, ctx.Err())
	default: // finished in the meantime
		r := <-done
		return r.v, wrapOp(what.op, r.err)
	}
}

func wrapOp(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", op, err)
}

// runCall is the goroutine of do.
func runCall[T any](ctx context.Context, t *Token, c *connection, what call, phase *atomic.Int32, fn func(*connection, pkcs11.SessionHandle) (T, error)) (v T, err error) {
	var zero T
	if what.write {
		select {
		case t.writing <- struct{}{}:
			defer func() { <-t.writing }()
		case <-ctx.Done():
			return zero, ctx.Err()
		}
	}
	for try := 1; ; try++ {
		s, err := c.pool.take(ctx)
		if err != nil {
			return zero, err
		}
		if try == 1 && !phase.CompareAndSwap(waiting, running) {
			t.giveBack(c, s) // the caller left while we waited; the session was not touched
			return zero, ctx.Err()
		}
		v, err := guarded(what.op, func() (T, error) { return fn(c, s) })
		lost := errors.Is(err, ErrSessionDead)
		if lost && try == 1 && !errors.Is(err, ErrOutcomeUnknown) && phase.Load() == running {
			t.replace(c, s)
			continue
		}
		var panicked *panicError
		dead := lost || errors.As(err, &panicked) // after a panic an operation may be left active
		// A session whose caller left is replaced as well: what the module did to it for so
		// long is not known.
		if onTime := phase.CompareAndSwap(running, finished); dead || !onTime {
			t.replace(c, s)
		} else {
			t.giveBack(c, s)
		}
		if err != nil {
			return zero, t.judge(c, err)
		}
		return v, nil
	}
}

func guarded[T any](op string, fn func() (T, error)) (v T, err error) {
	defer recovered(op, &err)
	return fn()
}

// giveBack returns a session to its pool, or closes it if its connection was given up.
func (t *Token) giveBack(c *connection, s pkcs11.SessionHandle) {
	if !c.pool.give(s) {
		_ = t.driver.CloseSession(s)
	}
}

// replace puts a new session into the pool in the place of one that is dead or suspect,
// and closes the old one, which nobody else uses.
func (t *Token) replace(c *connection, old pkcs11.SessionHandle) {
	s, err := t.driver.OpenSession(c.slot)
	_ = t.driver.CloseSession(old) // it may be gone already
	if err != nil {
		t.lost(c, err)
		return
	}
	t.giveBack(c, s)
	t.log.Warn("session replaced")
}

// judge looks at what an error says about the token. An error that may mean that the token
// is away is followed by a look at the token itself: SoftHSM answers "no such object" when
// its directory is gone.
func (t *Token) judge(c *connection, err error) error {
	var p *panicError
	if errors.As(err, &p) {
		t.log.WithField("operation", p.op).WithField("stack", string(p.stack)).Error("PKCS#11 binding panicked")
		return err
	}
	code := codeOf(err)
	switch {
	case code == pkcs11.CKR_OK: // not the module's word: refused on the host, or the context's end
		return err
	case errors.Is(err, ErrUnavailable):
		t.lost(c, err)
		return err
	case errors.Is(err, ErrDataInvalid):
		// Clients choose what is decrypted, so this costs them nothing to provoke. It
		// earns a look at the token in the background, once in a while.
		if vagueOnData[code] && t.suspicion.Allow() {
			go func() {
				if !t.module.gate.enter() {
					return
				}
				defer t.module.gate.leave()
				_ = t.probe(c)
			}()
		}
		return err
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrModuleBroken), errors.Is(err, ErrSessionDead):
		if gone := t.probe(c); gone != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return err
}

// probe asks whether the token is still there and the same. If not, the connection is given
// up. The caller is inside the module's gate.
func (t *Token) probe(c *connection) error {
	info, err := t.driver.TokenInfo(c.slot)
	if err == nil && info.SerialNumber != c.serial {
		err = fmt.Errorf("slot holds another token: %w", ErrUnavailable)
	}
	if err != nil {
		t.lost(c, err)
	}
	return err
}
