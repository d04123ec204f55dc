package replication

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// Peer is another Region, and where its peer listener is.
type Peer struct {
	Descriptor  region.Descriptor // pinned: what an operator has confirmed
	Fingerprint string            // as an operator reads it out; shown, never compared here
	Address     string            // host:port
	Authority   keyops.Authority  // what it may do here and be sent; zero = nothing
}

// Config is what a Replicator is made of.
type Config struct {
	Self     region.Descriptor
	Peers    []Peer
	Listener net.Listener // for peers only; closed by Close. Start needs it

	// Former are instances of Regions, this one's included, that are no more and that operators
	// have confirmed: what they have signed of keys is believed as history.
	Former []region.Descriptor

	Link     func(region.Name) (Link, error) // the way to a peer; nil = gRPC over mutual TLS to its address
	Verifier mrk.Verifier                    // of what Regions sign; nil = the pinned descriptors

	Clock func() time.Time // nil = time.Now
	Rand  io.Reader        // of nonces and session names; nil = crypto/rand
	Log   logrus.FieldLogger

	DigestInterval  time.Duration // how often digests are exchanged with each peer; 0 = 20 s
	ExchangeTimeout time.Duration // of one message and its answer; 0 = 30 s
	CheckTimeout    time.Duration // within which a peer must answer before ReplicateKey is accepted without it; 0 = 5 s
	RetryMin        time.Duration // first delay after a failure; 0 = 500 ms
	RetryMax        time.Duration // longest delay; 0 = 1 min
	Senders         int           // keys that are sent to one peer at once; 0 = 4
	Jitter          float64       // share of a delay that is random, below 1; 0 = 0.3, negative = none
}

// Limits of what one peer can make this Region do at once.
const (
	peerConcurrency = 8   // exchanges in progress
	peerRate        = 500 // exchanges per second
	peerBurst       = 1000
)

func (c Config) withDefaults() (Config, error) {
	c.DigestInterval = cmp.Or(c.DigestInterval, 20*time.Second)
	c.ExchangeTimeout = cmp.Or(c.ExchangeTimeout, 30*time.Second)
	c.CheckTimeout = cmp.Or(c.CheckTimeout, 5*time.Second)
	c.RetryMin = cmp.Or(c.RetryMin, 500*time.Millisecond)
	c.RetryMax = cmp.Or(c.RetryMax, time.Minute)
	c.Senders = cmp.Or(c.Senders, 4)
	c.Jitter = cmp.Or(c.Jitter, 0.3)
	if c.Jitter < 0 {
		c.Jitter = 0
	}
	if c.Log == nil {
		return c, errors.New("replication needs a log")
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	seen := map[region.Name]bool{}
	for _, p := range c.Peers {
		if err := p.Descriptor.Validate(); err != nil {
			return c, fmt.Errorf("descriptor of peer %s: %w", p.Descriptor.Region, err)
		}
		if p.Descriptor.Region == c.Self.Region || p.Descriptor.Instance == c.Self.Instance || seen[p.Descriptor.Region] {
			return c, fmt.Errorf("peer %s: named twice, or this Region itself", p.Descriptor.Region)
		}
		if p.Descriptor.Partition != c.Self.Partition {
			return c, fmt.Errorf("peer %s: in partition %s, this Region is in %s", p.Descriptor.Region, p.Descriptor.Partition, c.Self.Partition)
		}
		seen[p.Descriptor.Region] = true
	}
	for _, d := range c.Former {
		if err := d.Validate(); err != nil {
			return c, fmt.Errorf("descriptor of former instance %s: %w", d.Instance, err)
		}
		if d.Instance == c.Self.Instance || slices.ContainsFunc(c.Peers, func(p Peer) bool { return p.Descriptor.Instance == d.Instance }) {
			return c, fmt.Errorf("peer %s: its instance %s was retired or made again, and is no peer any more", d.Region, d.Instance)
		}
	}
	return c, nil
}
