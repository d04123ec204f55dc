// Package message is what Regions send each other: the envelope that every message and answer
// has, whose payload its Region signs, and a body for each kind. Each type has one encoding,
// of package wire, and a parser with bounds that refuses every other one; what a message means
// is package replication's.
package message

import (
	"fmt"
	"net/url"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Kinds of messages. An answer has the kind of its message, or one of the last two.
const (
	KindDigest       = "digest"        // bucketed hashes of what both ends should know
	KindFacts        = "facts"         // facts of one key, a create request, blobs
	KindCheck        = "check-replica" // would this Region take a replica?
	KindCheckPrimary = "check-primary" // would this Region take a primary key over?
	KindAssociate    = "associate"     // would this instance be the sender's replica instance? or: it is
	KindDisassociate = "disassociate"  // would this instance be severed from the sender's? or: it is
	KindSevered      = "severed"       // pairs of instances that are severed, as far as the sender knows
	KindOffer        = "offer-primary" // a primary key, to be taken over or refused
	KindConfirm      = "confirm-held"  // does this Region, acting, hold these materials now?
	KindRosters      = "rosters"       // changes of a Region's roster of operators, or a question for them
	KindStale        = "stale-session" // the answering Region has started again
	KindUnsupported  = "unsupported"   // the answering Region does not know this kind
)

// Version is the first field of every message.
const Version = 1

// Bounds of an envelope's fields in bytes.
const (
	MaxKind        = 64
	MaxCorrelation = 128
	maxCheckpoint  = 4096
	maxBody        = statement.MaxPayload - 8192
	// MaxMessage bounds a marshalled message: payload, purpose, signature and lengths.
	MaxMessage = statement.MaxPayload + 4096
)

// Envelope is one message or answer between two instances.
type Envelope struct {
	Kind   string
	Answer bool
	From   Party
	To     Party
	// Session names the sender's run. PeerSession is the receiver's, as far as the sender
	// knows: a message of before the receiver's start is not acted upon.
	Session     mrk.Nonce
	PeerSession mrk.Nonce
	Nonce       mrk.Nonce // fresh; an answer repeats its message's
	Correlation string
	Sent        int64            // Unix nanoseconds by the sender's clock; orders nothing
	Checkpoint  statement.Signed // the sender's newest audit checkpoint; empty purpose if none
	Store       seal.Head
	Body        []byte
}

// Party is one end of an exchange.
type Party struct {
	Region   region.Name
	Instance region.InstanceID
}

// URI names the instance in TLS certificates.
func (p Party) URI() *url.URL {
	return &url.URL{Scheme: "keyferry", Host: string(p.Region), Path: "/" + string(p.Instance)}
}

// Marshal returns the one encoding of it.
func (e Envelope) Marshal() []byte {
	w := wire.NewWriter(2048 + len(e.Body))
	w.Uint(Version)
	w.String(e.Kind)
	w.Bool(e.Answer)
	for _, p := range []Party{e.From, e.To} {
		w.String(string(p.Region))
		w.String(string(p.Instance))
	}
	w.Bytes(e.Session[:])
	w.Bytes(e.PeerSession[:])
	w.Bytes(e.Nonce[:])
	w.String(e.Correlation)
	w.Uint(uint64(e.Sent))
	if e.Checkpoint.Purpose == "" {
		w.Bytes(nil)
	} else {
		w.Bytes(e.Checkpoint.Marshal())
	}
	w.Uint(e.Store.Version)
	w.Bytes(e.Store.Hash[:])
	w.Bytes(e.Body)
	return w.Out()
}

// Parse reads a payload whose signature has been verified.
func Parse(payload []byte) (Envelope, error) {
	r := wire.NewReader(payload)
	if v := r.Uint(); r.Err() == nil && v != Version {
		r.Fail("message version %d, only %d is known", v, Version)
	}
	e := Envelope{Kind: r.String(MaxKind), Answer: r.Bool(), From: DecodeParty(r), To: DecodeParty(r)}
	r.Fixed(e.Session[:])
	r.Fixed(e.PeerSession[:])
	r.Fixed(e.Nonce[:])
	e.Correlation = r.String(MaxCorrelation)
	sent := r.Uint()
	if sent > 1<<63-1 {
		r.Fail("time %d", sent)
	}
	e.Sent = int64(sent)
	if b := r.Bytes(maxCheckpoint); len(b) > 0 && r.Err() == nil {
		s, err := statement.Parse(b)
		if err != nil {
			r.Fail("checkpoint: %v", err)
		}
		e.Checkpoint = s
	}
	e.Store.Version = r.Uint()
	r.Fixed(e.Store.Hash[:])
	e.Body = r.Bytes(maxBody)
	if err := r.Done(); err != nil {
		return Envelope{}, fmt.Errorf("parsing message: %w", err)
	}
	return e, nil
}

// DecodeParty reads one end of an exchange.
func DecodeParty(r *wire.Reader) Party {
	var p Party
	var err error
	if p.Region, err = region.ParseName(r.String(64)); err != nil && r.Err() == nil {
		r.Fail("%v", err)
	}
	if p.Instance, err = region.ParseInstanceID(r.String(64)); err != nil && r.Err() == nil {
		r.Fail("%v", err)
	}
	return p
}
