package hsm

import (
	"context"
	"fmt"
	"sync"
)

// gate counts the calls that are running in the library and can hold new ones off.
type gate struct {
	mu      sync.Mutex
	running int
	closed  bool
	drained chan struct{} // made by close, closed when running becomes zero
}

// enter reports whether the call may start; if so, leave must follow.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.running++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	if g.running == 0 && g.drained != nil {
		close(g.drained)
		g.drained = nil
	}
}

// close refuses newcomers and waits until nobody is inside. If ctx ends first, or if
// another close is under way, the gate is as before.
func (g *gate) close(ctx context.Context) error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return fmt.Errorf("library is being initialised: %w", ErrUnavailable)
	}
	g.closed = true
	if g.running == 0 {
		g.mu.Unlock()
		return nil
	}
	drained := make(chan struct{})
	g.drained = drained
	g.mu.Unlock()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		g.mu.Lock()
		defer g.mu.Unlock()
		g.drained, g.closed = nil, false
		return ctx.Err()
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = false
}
