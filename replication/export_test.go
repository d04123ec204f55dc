package replication

import (
	"context"
	"time"

	"github.com/keyferry/keyferry/replication/message"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/synchronization"
	replicationv1 "github.com/keyferry/keyferry/proto/keyferry/replication/v1"
)

// Forgery is what a test changes of a message before it is signed.
type Forgery struct{ e *message.Envelope }

// From names another sender.
func (f Forgery) From(r region.Name, i region.InstanceID) {
	f.e.From = message.Party{Region: r, Instance: i}
}

// To names another receiver.
func (f Forgery) To(r region.Name, i region.InstanceID) {
	f.e.To = message.Party{Region: r, Instance: i}
}

// OfRun names another run of the receiver.
func (f Forgery) OfRun(n mrk.Nonce) { f.e.PeerSession = n }

// AsAnswer makes the message an answer.
func (f Forgery) AsAnswer() { f.e.Answer = true }

// Forge writes a message in this Region's name, as a peer that is hostile could.
func (r *Replicator) Forge(ctx context.Context, signer mrk.Signer, to region.Name, kind string, body []byte, edit func(Forgery)) ([]byte, error) {
	p := r.peers[to]
	p.mu.Lock()
	session := p.session
	p.mu.Unlock()
	nonce, err := mrk.NewNonce(r.cfg.Rand)
	if err != nil {
		return nil, err
	}
	e := message.Envelope{Kind: kind, From: r.self, To: p.party(), Session: r.session, PeerSession: session, Nonce: nonce, Body: body}
	if edit != nil {
		edit(Forgery{&e})
	}
	signed, err := signer.Sign(ctx, statement.Exchange, e.Marshal())
	return signed.Marshal(), err
}

// Send sends bytes over this Region's connection to a peer.
func (r *Replicator) Send(ctx context.Context, to region.Name, b []byte) ([]byte, error) {
	resp, err := replicationv1.NewReplicationServiceClient(r.peers[to].link.(*grpcLink).current()).Exchange(ctx, &replicationv1.ExchangeRequest{Statement: b})
	return resp.GetStatement(), err
}

// Answer is what a test looks at in an answer.
type Answer struct {
	Kind     string
	Cause    mrk.Cause
	Text     string
	Hash     mrk.Hash
	Told     bool // it carries facts
	Reason   string
	Keys     int // entries of an answer to a digest
	Exists   bool
	Acting   bool
	Held     int // of the materials that were asked for
	BodySize int
}

// Read verifies an answer and reads it.
func (r *Replicator) Read(from region.Name, b []byte) (Answer, error) {
	e, err := r.peers[from].open(b)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Kind: e.Kind, BodySize: len(e.Body)}
	switch e.Kind {
	case message.KindFacts:
		f, err := message.ParseFacts(e.Body)
		a.Cause, a.Text, a.Hash, a.Told = f.Trouble.Cause, f.Trouble.Text, f.Hash, f.Facts.State != nil
		return a, err
	case message.KindDigest:
		d, err := message.ParseDigestAnswer(e.Body)
		for _, b := range d.Differing {
			a.Keys += len(b.Entries)
		}
		return a, err
	case message.KindConfirm:
		c, err := message.ParseConfirmation(e.Body, from)
		a.Exists, a.Acting, a.Held = c.Exists, c.Acting, len(c.Held)
		return a, err
	}
	return a, nil
}

// FactsBody is the body of a facts message.
func FactsBody(key arn.KeyID, f mrk.Facts, hash mrk.Hash, req *mrk.CreateRequest, blobs ...mrk.Blob) []byte {
	f.Key = key
	return message.Facts{Key: key, Facts: f, Hash: hash, Request: req, Blobs: blobs}.Marshal()
}

// EmptyDigest is the body of a digest message of a Region that knows nothing.
func EmptyDigest() []byte { return message.Digest{}.Marshal() }

// Heard reports whether this run has heard a peer.
func (r *Replicator) Heard(from region.Name) bool {
	p := r.peers[from]
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heard
}

// Unsupported returns the kinds of a peer's messages that were not known.
func (r *Replicator) Unsupported(from region.Name) map[string]int {
	p := r.peers[from]
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]int{}
	for k, n := range p.unsupported {
		out[k] = n
	}
	return out
}

// FillSlots takes all of a peer's places for exchanges in progress, until release is called.
func (r *Replicator) FillSlots(from region.Name) (release func()) {
	p := r.peers[from]
	for range peerConcurrency {
		p.slots <- struct{}{}
	}
	return func() {
		for range peerConcurrency {
			<-p.slots
		}
	}
}

// ParseTLSClaim reads what a Region says of its TLS key, and writes it again.
func ParseTLSClaim(b []byte) ([]byte, error) { c, err := parseTLSClaim(b); return c.payload(), err }

// ConfirmBody is the body of a confirm-held message.
func ConfirmBody(key arn.KeyID, ids ...material.ID) []byte {
	return message.Confirm{Question: mrk.Question{Key: key, Held: ids, Nonce: mrk.Nonce{1}}}.Marshal()
}

// DigestWith returns the body of a digest message about other keys than the running ones.
func (r *Replicator) DigestWith(keys Keys, to region.Name) []byte {
	return message.Digest{Hashes: r.peers[to].inventory(keys).hashes}.Marshal()
}

// AnswerDigest answers a digest message out of other keys than the running ones.
func (r *Replicator) AnswerDigest(keys Keys, from region.Name, body []byte) ([]byte, error) {
	return r.answerDigest(keys, r.peers[from], body)
}

// LimitRate lets a peer begin so many exchanges and then hardly any more, until restore is
// called.
func (r *Replicator) LimitRate(from region.Name, exchanges int) (restore func()) {
	p := r.peers[from]
	p.limit.SetLimit(0.001)
	p.limit.SetBurst(exchanges)
	return func() {
		p.limit.SetLimit(peerRate)
		p.limit.SetBurst(peerBurst)
	}
}

// Delay is the pause after a number of failures in a row.
func (c Config) Delay(failures uint64) time.Duration { return c.delay(failures) }

// Unsettled returns how many keys are remembered as not settled with a peer.
func (r *Replicator) Unsettled(with region.Name) int {
	p := r.peers[with]
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.unsettled)
}

// DigestFrom returns the body of a digest message of a Region that knows nothing, asking
// from a bucket on.
func DigestFrom(from int) []byte { return message.Digest{From: from}.Marshal() }

// DigestEnd is the bucket after the last one.
const DigestEnd = message.Buckets

// ReadDigestAnswer returns the keys that an answer to a digest names, and the bucket from
// which to ask on.
func ReadDigestAnswer(b []byte) (ids []arn.KeyID, next int, err error) {
	a, err := message.ParseDigestAnswer(b)
	for _, d := range a.Differing {
		for _, e := range d.Entries {
			ids = append(ids, e.Key)
		}
	}
	return ids, a.Next, err
}

// RostersBody is the body of a message that shows changes of a roster.
func RostersBody(of region.Descriptor, from, to uint64, changes ...approval.Change) []byte {
	return message.Rosters{Need: message.RosterNeed{Region: of.Region, Instance: of.Instance, From: from, To: to}, Changes: changes}.Marshal()
}

// WrapLinks puts something of a test's on the way to each peer. It is called before Start.
func (r *Replicator) WrapLinks(wrap func(region.Name, Link) Link) {
	link := r.cfg.Link
	r.cfg.Link = func(to region.Name) (Link, error) {
		l, err := link(to)
		if err != nil {
			return nil, err
		}
		return wrap(to, l), nil
	}
}

// MarshalSevered and ReadSevered are the message about severed pairs.
func MarshalSevered(pairs []synchronization.Severed) []byte {
	return message.Severed{Pairs: pairs}.Marshal()
}

// ReadSevered reads what MarshalSevered wrote.
func ReadSevered(b []byte) ([]synchronization.Severed, error) {
	s, err := message.ParseSevered(b)
	return s.Pairs, err
}

// Settled reports whether nothing is left of what is exchanged once in each run of a peer.
func (r *Replicator) Settled(with region.Name) bool {
	p := r.peers[with]
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heard && p.severed.run == p.session
}

// Rename signs a message of this Region anew as one of another kind, as a later release might
// write it. A message of another kind than from is returned as it is.
func (r *Replicator) Rename(ctx context.Context, signer mrk.Signer, b []byte, from, to string) ([]byte, error) {
	s, err := statement.Parse(b)
	if err != nil {
		return nil, err
	}
	e, err := message.Parse(s.Payload)
	if err != nil || e.Kind != from {
		return b, err
	}
	e.Kind = to
	signed, err := signer.Sign(ctx, statement.Exchange, e.Marshal())
	return signed.Marshal(), err
}
