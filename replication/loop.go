package replication

import (
	"context"
	"errors"
	"time"
)

// What follows is the clockwork: goroutines and timers, which decide nothing.

// errNoListener means that a Replicator was made without a listener, to be driven by hand.
var errNoListener = errors.New("replication needs a listener")

// Start begins to listen, to send and to answer. It returns once the day's TLS key is
// certified; peers are connected in the background.
func (r *Replicator) Start(ctx context.Context, keys Keys) error {
	if r.cfg.Listener == nil {
		return errNoListener
	}
	if err := r.identity.renew(ctx, keys.Signer()); err != nil {
		return err
	}
	if err := r.Open(keys); err != nil {
		return err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancel, r.server = cancel, r.newServer()
	r.tasks.Go(func() {
		if err := r.server.Serve(r.cfg.Listener); err != nil && running.Err() == nil {
			r.cfg.Log.WithError(err).Error("the peer listener has stopped")
		}
	})
	r.tasks.Go(func() { r.watch(running) })
	for _, p := range r.peers {
		r.tasks.Go(func() { p.run(running) })
	}
	return nil
}

// Close stops sending and answering, waits for what is in progress and leaves no goroutine.
func (r *Replicator) Close() {
	r.close.Do(func() {
		if r.cancel != nil {
			r.cancel()
		}
		if r.server != nil {
			r.stopServer()
		}
		if r.cfg.Listener != nil {
			r.cfg.Listener.Close()
		}
		r.tasks.Wait()
		for _, p := range r.peers {
			if p.link != nil {
				p.link.Close()
			}
		}
	})
}

func (r *Replicator) stopServer() {
	stopped := make(chan struct{})
	go func() {
		r.server.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(5 * time.Second):
		r.server.Stop() // a peer that never ends its call must not keep the daemon
		<-stopped
	}
}

// watch wakes the senders when something changed, does what this Region can do by itself,
// and replaces the TLS key before it expires.
func (r *Replicator) watch(ctx context.Context) {
	keys, _ := r.running()
	renew := time.NewTicker(time.Minute)
	defer renew.Stop()
	r.Step(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-keys.Changed():
			r.stepWaiting(ctx)
			for _, p := range r.peers {
				p.poke()
			}
		case <-renew.C:
			r.Step(ctx) // a token that failed may be there again, and no peer may be
			if !r.identity.due() {
				continue
			}
			if err := r.identity.renew(ctx, keys.Signer()); err != nil {
				r.cfg.Log.WithError(err).Error("the day's TLS key for peers could not be replaced")
			}
		}
	}
}

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
