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

	"github.com/keyferry/keyferry/replication/message"

	"google.golang.org/grpc"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

// Replicator is a Region's end of all its peers.
type Replicator struct {
	cfg      Config
	self     message.Party
	signed   mrk.Verifier // every Region's word, this one's included: facts come back to their writer
	pinned   pins         // the peers'
	peers    map[region.Name]*peer
	session  mrk.Nonce // of this run
	identity identity
	keys     atomic.Pointer[Keys] // nil before Open
	hashed   hashes

	server *grpc.Server // nil before Start, as what follows
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
		cfg: cfg, self: message.Party{Region: cfg.Self.Region, Instance: cfg.Self.Instance},
		pinned: pins{}, peers: map[region.Name]*peer{},
	}
	known := book{pins: pins{cfg.Self.Region: cfg.Self}, former: map[message.Party]region.Descriptor{}}
	for _, d := range cfg.Former {
		known.former[message.Party{Region: d.Region, Instance: d.Instance}] = d
	}
	r.identity = identity{self: r.self, clock: cfg.Clock}
	if r.session, err = mrk.NewNonce(cfg.Rand); err != nil {
		return nil, err
	}
	for _, p := range cfg.Peers {
		known.pins[p.Descriptor.Region] = p.Descriptor
		r.pinned[p.Descriptor.Region] = p.Descriptor
		r.peers[p.Descriptor.Region] = newPeer(r, p)
	}
	r.signed = electors{known, r}
	if cfg.Verifier != nil {
		r.signed = electors{cfg.Verifier, r}
	}
	if r.cfg.Link == nil {
		r.cfg.Link = func(to region.Name) (Link, error) { return r.dial(r.pinned[to], r.peers[to].where) }
	}
	return r, nil
}

// Open lets messages in and out; Start calls it. Keys are changed by Receive, Round and Step
// and by nothing else in this package.
func (r *Replicator) Open(keys Keys) error {
	for name, p := range r.peers {
		link, err := r.cfg.Link(name)
		if err != nil {
			return err
		}
		p.link = link
	}
	r.keys.Store(&keys)
	return nil
}

// running returns the keys, if the Replicator is running.
func (r *Replicator) running() (Keys, error) {
	if k := r.keys.Load(); k != nil {
		return *k, nil
	}
	return nil, errNotStarted
}

// Peer returns the descriptor of a Region that this one is configured with.
func (r *Replicator) Peer(name region.Name) (region.Descriptor, bool) {
	d, ok := r.pinned[name]
	return d, ok
}

// Verify returns nil if that instance has signed a statement that is kept.
func (r *Replicator) Verify(name region.Name, instance region.InstanceID, s statement.Signed) error {
	return r.signed.Verify(name, instance, s)
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
	return r.ask(ctx, to, message.KindCheck, claim.CorrelationID, message.Check{Claim: claim}.Marshal())
}

// CheckPrimary asks another Region now whether it would take the primary key over.
func (r *Replicator) CheckPrimary(ctx context.Context, to region.Name, claim keyops.PrimaryClaim) error {
	return r.ask(ctx, to, message.KindCheckPrimary, claim.CorrelationID, message.CheckPrimary{Claim: claim}.Marshal())
}

// ask asks a question that is answered with yes or a refusal, and changes nothing.
func (r *Replicator) ask(ctx context.Context, to region.Name, kind, correlation string, body []byte) error {
	p, ok := r.peers[to]
	if !ok {
		return fmt.Errorf("%w: Region %s", errNotPinned, to)
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.CheckTimeout)
	defer cancel()
	reply, err := p.exchange(ctx, kind, correlation, body)
	if err != nil {
		return fmt.Errorf("%w: Region %s: %w", keyops.ErrPeerUnreachable, to, err)
	}
	a, err := message.ParseDecision(reply.Body)
	if err != nil {
		return fmt.Errorf("%w: Region %s: %w", keyops.ErrPeerUnreachable, to, err)
	}
	return a.Refusal()
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
