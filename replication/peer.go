package replication

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyferry/keyferry/replication/message"

	"github.com/cenkalti/backoff/v5"
	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

// peer is one other Region: the connection to it and how that stands.
type peer struct {
	r     *Replicator
	pin   region.Descriptor
	shown string // fingerprint
	where string // address

	authority keyops.Authority
	log       logrus.FieldLogger

	wake  chan struct{}
	slots chan struct{} // of exchanges that the peer has begun
	limit *rate.Limiter
	link  Link                      // set by Open, before any goroutine
	told  atomic.Pointer[inventory] // newest

	mu           sync.Mutex
	session      mrk.Nonce // the peer's, by its newest answer
	connected    time.Time // zero while exchanges fail
	lastExchange time.Time // begun by either end
	lastAnswer   time.Time // by the peer
	cameIn       time.Time // when the peer last spoke by itself
	lastError    string
	lastCause    mrk.Cause // of lastError
	failures     uint64    // exchanges that failed since the last one that did not
	retryAt      time.Time
	pause        *backoff.ExponentialBackOff
	digestAt     time.Time
	heard        bool                    // a digest exchange of this run has been completed
	unsettled    map[arn.KeyID]failure   // keys of that exchange that could not be settled
	busy         map[arn.KeyID]bool      // being exchanged now
	settled      map[arn.KeyID]time.Time // when the peer last confirmed everything
	witness      *keyops.Witness         // newest that the peer has shown
	witnessRun   mrk.Nonce               // the run of the peer that showed it
	witnessKept  time.Time               // when it was last made durable
	checkpoint   statement.Signed        // of the peer, verified last
	epochs       map[string][]uint64     // of transport keys under which the peer takes materials of a kind, as it said last
	clock        Clock                   // the peer's, against this Region's
	severed      severedSeen
	// certifiedUntil is the end of the certification of the TLS key that the peer has shown last.
	certifiedUntil time.Time
	unsupported    map[string]int // kinds of messages from the peer that this version does not know
}

// failure is why a key could not be settled with a peer.
type failure struct {
	cause mrk.Cause
	text  string
	heard bool // all the same, the peer has told what it knows of the key
}

func newPeer(r *Replicator, p Peer) *peer {
	return &peer{
		r: r, pin: p.Descriptor, shown: p.Fingerprint, where: p.Address, authority: p.Authority,
		log:  r.cfg.Log.WithField("peer", p.Descriptor.Region),
		wake: make(chan struct{}, 1), slots: make(chan struct{}, peerConcurrency),
		limit: rate.NewLimiter(peerRate, peerBurst), pause: r.cfg.pause(),
		unsettled: map[arn.KeyID]failure{}, busy: map[arn.KeyID]bool{}, settled: map[arn.KeyID]time.Time{},
		unsupported: map[string]int{}, epochs: map[string][]uint64{},
	}
}

// pause returns the delays after one failure and the next.
func (c Config) pause() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.RandomizationFactor, b.Multiplier = c.RetryMin, c.RetryMax, c.Jitter, 2
	b.Reset()
	return b
}

// delay returns the pause after a number of failures in a row.
func (c Config) delay(failures uint64) time.Duration {
	b := c.pause()
	d := b.NextBackOff()
	for n := uint64(1); n < min(failures, 32); n++ {
		d = b.NextBackOff()
	}
	return d
}

func (p *peer) party() message.Party {
	return message.Party{Region: p.pin.Region, Instance: p.pin.Instance}
}

// poke wakes the sender.
func (p *peer) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Errors of an exchange.
var (
	// errStale means that the peer has started again and knows nothing of this connection
	// before its next digest.
	errStale = errors.New("the peer has started again")
	// errUnsupported means that the peer does not know this kind of message. It is kept, and
	// tried again, since the peer may be upgraded.
	errUnsupported = errors.New("the peer does not know this kind of message")
	// errMessage means that one end took the other's message for wrong.
	errMessage = errors.New("message refused")
)

// exchange sends one message and returns the verified answer to it.
func (p *peer) exchange(ctx context.Context, kind, correlation string, body []byte) (message.Envelope, error) {
	keys, err := p.r.running()
	if err != nil {
		return message.Envelope{}, err
	}
	nonce, err := mrk.NewNonce(p.r.cfg.Rand)
	if err != nil {
		return message.Envelope{}, err
	}
	p.mu.Lock()
	session := p.session
	p.mu.Unlock()
	sent, err := p.r.sign(ctx, keys, message.Envelope{
		Kind: kind, To: p.party(), PeerSession: session, Nonce: nonce, Correlation: clip(correlation, message.MaxCorrelation), Body: body,
	})
	if err != nil {
		return message.Envelope{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.r.cfg.ExchangeTimeout)
	defer cancel()
	begun := p.r.cfg.Clock()
	reply, err := p.link.Exchange(ctx, sent)
	if err != nil {
		return message.Envelope{}, err
	}
	answer, err := p.open(reply)
	if err != nil {
		return message.Envelope{}, fmt.Errorf("reading the answer: %w", err)
	}
	if !answer.Answer || answer.Nonce != nonce {
		return message.Envelope{}, fmt.Errorf("%w: an answer to something else", errMessage)
	}
	p.measure(answer.Sent, begun)
	p.succeeded()
	p.saw(ctx, keys, answer)
	return answer, p.accept(answer, kind)
}

// accept looks at the kind of an answer.
func (p *peer) accept(answer message.Envelope, kind string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session = answer.Session
	switch answer.Kind {
	case kind:
		return nil
	case message.KindStale:
		p.digestAt = time.Time{}
		return errStale
	case message.KindUnsupported:
		return fmt.Errorf("%w: %s", errUnsupported, kind)
	}
	return fmt.Errorf("%w: an answer of kind %q", errMessage, answer.Kind)
}

// open verifies a message of this peer, and only then parses it.
func (p *peer) open(b []byte) (message.Envelope, error) {
	signed, err := statement.Parse(b)
	if err != nil {
		return message.Envelope{}, fmt.Errorf("%w: %w", errMessage, err)
	}
	if signed.Purpose != statement.Exchange {
		return message.Envelope{}, fmt.Errorf("%w: a statement of purpose %s", errMessage, signed.Purpose)
	}
	if err := p.r.signed.Verify(p.pin.Region, p.pin.Instance, signed); err != nil {
		return message.Envelope{}, err
	}
	e, err := message.Parse(signed.Payload)
	if err != nil {
		return message.Envelope{}, fmt.Errorf("%w: %w", errMessage, err)
	}
	if e.From != p.party() || e.To != p.r.self {
		return message.Envelope{}, fmt.Errorf("%w: from %s %s to %s %s", errMessage, e.From.Region, e.From.Instance, e.To.Region, e.To.Instance)
	}
	return e, nil
}

// sign completes an envelope and returns it as a signed statement.
func (r *Replicator) sign(ctx context.Context, keys Keys, e message.Envelope) ([]byte, error) {
	e.From, e.Session, e.Sent, e.Store = r.self, r.session, r.cfg.Clock().UnixNano(), keys.StoreHead()
	if c, ok := keys.AuditHead(); ok {
		e.Checkpoint = c.Statement
	}
	signed, err := keys.Signer().Sign(ctx, statement.Exchange, e.Marshal())
	if err != nil {
		return nil, fmt.Errorf("signing a message: %w", err)
	}
	return signed.Marshal(), nil
}

// succeeded notes that the peer answers.
func (p *peer) succeeded() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.r.cfg.Clock()
	if p.connected.IsZero() {
		p.connected = now
	}
	p.lastExchange, p.lastAnswer = now, now
	p.lastError, p.lastCause, p.failures, p.retryAt = "", "", 0, time.Time{}
	p.pause.Reset()
}

// failed notes that the peer does not answer, and when to try again. The first digest after
// that finds what was missed.
func (p *peer) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.connected, p.lastError, p.lastCause, p.digestAt = time.Time{}, clip(err.Error(), message.MaxText), causeOf(err), time.Time{}
	p.failures++
	p.retryAt = p.r.cfg.Clock().Add(p.pause.NextBackOff())
	if p.failures == 1 {
		p.log.WithError(err).Warn("a peer cannot be reached")
	}
}
