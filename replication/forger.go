package replication

import (
	"context"
	"fmt"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
)

// Forger writes messages in a Region's name that say what its caller chooses, in the one
// encoding that messages have. Programs have no use for it: a Region that keeps to the
// protocol says what it knows. A hostile one, as simulations need it, says anything.
type Forger struct{ r *Replicator }

// Forger returns a Forger of this run: what it writes is signed in this Region's token and
// names the runs at both ends, as far as they are known here.
func (r *Replicator) Forger() Forger { return Forger{r} }

// Words are what one message, or one answer, says of a key.
type Words struct {
	Facts   mrk.Facts
	Head    mrk.Hash // of the newest certificate that the sender claims to know
	Hash    mrk.Hash // of all facts that it claims to know
	Request *mrk.CreateRequest
	Blobs   []mrk.Blob
}

func (w Words) body() []byte {
	return factsBody{key: w.Facts.Key, facts: w.Facts, head: w.Head, hash: w.Hash, request: w.Request, blobs: w.Blobs}.marshal()
}

// Tell writes a message that says these words.
func (f Forger) Tell(ctx context.Context, to region.Name, w Words) ([]byte, error) {
	return f.write(ctx, to, kindFacts, w.body())
}

// Offer writes a message that offers a primary key.
func (f Forger) Offer(ctx context.Context, to region.Name, o mrk.Offer) ([]byte, error) {
	return f.write(ctx, to, kindOffer, offerBody{o}.marshal())
}

func (f Forger) write(ctx context.Context, to region.Name, kind string, body []byte) ([]byte, error) {
	p, ok := f.r.peers[to]
	if !ok {
		return nil, errNotPinned
	}
	keys, err := f.r.running()
	if err != nil {
		return nil, err
	}
	nonce, err := mrk.NewNonce(f.r.cfg.Rand)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	session := p.session
	p.mu.Unlock()
	return f.r.sign(ctx, keys, envelope{kind: kind, to: p.party(), peerSession: session, nonce: nonce, body: body})
}

// Confirm writes the answer to a message that asks what this Region holds, and returns the
// question. ok is false if the message asks something else.
func (f Forger) Confirm(ctx context.Context, from region.Name, message []byte, answer func(mrk.Question) mrk.Confirmation) (b []byte, ok bool, err error) {
	p, known := f.r.peers[from]
	if !known {
		return nil, false, errNotPinned
	}
	m, err := p.open(message)
	if err != nil || m.kind != kindConfirm || m.answer {
		return nil, false, err
	}
	c, err := parseConfirm(m.body)
	if err != nil {
		return nil, false, err
	}
	keys, err := f.r.running()
	if err != nil {
		return nil, false, err
	}
	b, err = f.r.sign(ctx, keys, envelope{
		kind: m.kind, answer: true, to: m.from, peerSession: m.session, nonce: m.nonce, body: confirmAnswer{answer(c.question)}.marshal(),
	})
	return b, true, err
}

// Read returns what a peer's answer to Tell says, and why it did not take all of it.
func (f Forger) Read(from region.Name, answer []byte) (w Words, refused error, err error) {
	p, ok := f.r.peers[from]
	if !ok {
		return w, nil, errNotPinned
	}
	m, err := p.open(answer)
	if err != nil {
		return w, nil, err
	}
	if err := p.accept(m, kindFacts); err != nil {
		return w, nil, fmt.Errorf("reading an answer: %w", err)
	}
	b, err := parseFacts(m.body)
	if err != nil {
		return w, nil, err
	}
	if b.trouble.cause != "" {
		refused = troubleError(b.trouble)
	}
	return Words{Facts: b.facts, Head: b.head, Hash: b.hash, Request: b.request}, refused, nil
}
