package hsm

import (
	"context"
	"sync"

	"github.com/miekg/pkcs11"
)

// pool holds the idle sessions of one connection. The last one given back is the first
// taken, so that under light load few sessions, and their caches in the token, stay warm.
type pool struct {
	idle   chan struct{} // one element for each session in the stack
	closed chan struct{}

	mu    sync.Mutex
	stack []pkcs11.SessionHandle
	done  bool
}

func newPool(sessions []pkcs11.SessionHandle) *pool {
	p := &pool{idle: make(chan struct{}, len(sessions)), closed: make(chan struct{})}
	for _, s := range sessions {
		p.give(s)
	}
	return p
}

// take waits for an idle session until ctx ends or the pool is closed. The session is the
// caller's alone until it is given back.
func (p *pool) take(ctx context.Context) (pkcs11.SessionHandle, error) {
	select {
	case <-p.idle:
	case <-p.closed:
		return 0, ErrUnavailable
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return 0, ErrUnavailable
	}
	s := p.stack[len(p.stack)-1]
	p.stack = p.stack[:len(p.stack)-1]
	return s, nil
}

// give puts a session back, or a new one in the place of one that was lost, and reports
// whether the pool took it; a closed pool takes none. There are never more sessions than
// the pool was made with, so it never waits.
func (p *pool) give(s pkcs11.SessionHandle) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return false
	}
	p.stack = append(p.stack, s)
	p.idle <- struct{}{}
	return true
}

// close ends the wait of everybody in take and returns the idle sessions.
func (p *pool) close() []pkcs11.SessionHandle {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return nil
	}
	p.done = true
	close(p.closed)
	idle := p.stack
	p.stack = nil
	return idle
}
