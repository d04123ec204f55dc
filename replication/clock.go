package replication

import (
	"time"

	"github.com/keyferry/keyferry/keyops/region"
)

// sampleAge is for how long a precise measurement is preferred to later, less precise ones.
const sampleAge = time.Minute

// Clock is how a peer's clock differs from this Region's, as its signed answers show.
type Clock struct {
	Offset time.Duration // the peer's clock is so much ahead
	Error  time.Duration // and Offset may be wrong by so much
	At     time.Time     // when it was measured; zero if it never was
}

// Apart returns by how much the clocks differ at least, in either direction.
func (c Clock) Apart() time.Duration { return max(c.Offset.Abs()-c.Error, 0) }

// measured returns the offset that an answer shows: it was sent at some time between the
// beginning and the end of the exchange, so half of that is the error.
func measured(sent int64, begun, ended time.Time) Clock {
	half := ended.Sub(begun) / 2
	return Clock{Offset: time.Unix(0, sent).Sub(begun.Round(0).Add(half)), Error: half, At: ended}
}

// better reports whether a measurement takes the place of the one before.
func (c Clock) better(before Clock) bool {
	return before.At.IsZero() || c.Error <= before.Error || c.At.Sub(before.At).Abs() > sampleAge
}

// measure keeps what an answer shows of the peer's clock. Nothing is ordered by it.
func (p *peer) measure(sent int64, begun time.Time) {
	c := measured(sent, begun, p.r.cfg.Clock())
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.better(p.clock) {
		p.clock = c
	}
}

// ClocksApart returns the connected peer whose clock differs most from this Region's, and by
// how much at least. It implements keyops.Clocks.
func (r *Replicator) ClocksApart() (worst region.Name, apart time.Duration) {
	for _, name := range r.names() {
		p := r.peers[name]
		p.mu.Lock()
		if by := p.clock.Apart(); !p.connected.IsZero() && by > apart {
			worst, apart = name, by
		}
		p.mu.Unlock()
	}
	return worst, apart
}
