package replication

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// Replicator is a Region's end of all its peers.
type Replicator struct {
	cfg      Config
	self     party
	facts    pins // every Region's key, this one's included: facts come back to their writer
	pinned   pins // the peers'
	peers    map[region.Name]*peer
	session  mrk.Nonce // of this run
	identity identity
	server   *grpc.Server

	keys   atomic.Pointer[Keys] // nil before Start
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	close  sync.Once
}

// errNotStarted means that an exchange was asked for before Start or after Close.
var errNotStarted = errors.New("replication is not running")

// New returns a Replicator that knows its peers. It talks to nobody before Start: package
// keyops needs it before it can be given the keys.
func New(cfg Config) (*Replicator, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	r := &Replicator{
		cfg: cfg, self: party{cfg.Self.Region, cfg.Self.Instance},
		facts: pins{cfg.Self.Region: cfg.Self}, pinned: pins{}, peers: map[region.Name]*peer{},
	}
	r.identity = identity{self: r.self, clock: cfg.Clock}
	if r.session, err = mrk.NewNonce(cfg.Rand); err != nil {
		return nil, err
	}
	for _, p := range cfg.Peers {
		r.facts[p.Descriptor.Region] = p.Descriptor
		r.pinned[p.Descriptor.Region] = p.Descriptor
		r.peers[p.Descriptor.Region] = newPeer(r, p)
	}
	r.server = r.newServer()
	return r, nil
}

// Start begins to listen, to send and to answer. It returns once the day's TLS key is
// certified; peers are connected in the background.
func (r *Replicator) Start(ctx context.Context, keys Keys) error {
	if err := r.identity.renew(ctx, keys.Signer()); err != nil {
		return err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancel = cancel
	for _, p := range r.peers {
		if err := p.dial(); err != nil {
			cancel()
			return err
		}
	}
	r.keys.Store(&keys)
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
		r.cfg.Listener.Close()
		r.tasks.Wait()
		for _, p := range r.peers {
			p.hangUp()
		}
	})
}

// running returns the keys, if the Replicator is running.
func (r *Replicator) running() (Keys, error) {
	if k := r.keys.Load(); k != nil {
		return *k, nil
	}
	return nil, errNotStarted
}

// watch wakes the senders when something changed, does what this Region can do by itself,
// and replaces the TLS key before it expires.
func (r *Replicator) watch(ctx context.Context) {
	keys, _ := r.running()
	renew := time.NewTicker(time.Minute)
	defer renew.Stop()
	r.stepAll(ctx)
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
			r.stepAll(ctx) // a token that failed may be there again, and no peer may be
			if !r.identity.due() {
				continue
			}
			if err := r.identity.renew(ctx, keys.Signer()); err != nil {
				r.cfg.Log.WithError(err).Error("the day's TLS key for peers could not be replaced")
			}
		}
	}
}

// Peer returns the descriptor of a Region that this one is configured with.
func (r *Replicator) Peer(name region.Name) (region.Descriptor, bool) {
	d, ok := r.pinned[name]
	return d, ok
}

// Authority returns what a Region may do here and what it may be sent, by this Region's
// configuration.
func (r *Replicator) Authority(name region.Name) keyops.Authority {
	if p, ok := r.peers[name]; ok {
		return p.authority
	}
	return keyops.Authority{}
}

// LastContact returns when a Region last answered, or the zero time. What it sends by itself
// does not count: that it speaks does not show that it was asked.
func (r *Replicator) LastContact(name region.Name) time.Time {
	p, ok := r.peers[name]
	if !ok {
		return time.Time{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastAnswer
}

// CheckReplica asks another Region now whether it would take the replica. The error is that
// Region's refusal, a *keyops.Error, or wraps keyops.ErrPeerUnreachable.
func (r *Replicator) CheckReplica(ctx context.Context, to region.Name, claim keyops.ReplicaClaim) error {
	p, ok := r.peers[to]
	if !ok {
		return fmt.Errorf("%w: Region %s", errNotPinned, to)
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.CheckTimeout)
	defer cancel()
	reply, err := p.exchange(ctx, kindCheck, claim.CorrelationID, checkBody{claim}.marshal())
	if err != nil {
		return fmt.Errorf("%w: Region %s: %w", keyops.ErrPeerUnreachable, to, err)
	}
	a, err := parseCheckAnswer(reply.body)
	if err != nil {
		return fmt.Errorf("%w: Region %s: %w", keyops.ErrPeerUnreachable, to, err)
	}
	if a.reason == "" {
		return nil
	}
	if !slices.Contains(keyops.Reasons, a.reason) {
		a.reason = keyops.ErrInternal
	}
	return &keyops.Error{Reason: a.reason, Message: a.message}
}

// names returns the other Regions.
func (r *Replicator) names() []region.Name { return slices.Sorted(maps.Keys(r.peers)) }

// clip bounds a text that is stored or sent.
func clip(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}
