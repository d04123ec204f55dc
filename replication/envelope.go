package replication

import (
	"fmt"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Kinds of messages. An answer has the kind of its message, or one of the last two.
const (
	kindDigest       = "digest"        // bucketed hashes of what both ends should know
	kindFacts        = "facts"         // facts of one key, a create request, blobs
	kindCheck        = "check-replica" // would this Region take a replica?
	kindCheckPrimary = "check-primary" // would this Region take a primary key over?
	kindAssociate    = "associate"     // would this instance be the sender's replica instance? or: it is
	kindDisassociate = "disassociate"  // would this instance be severed from the sender's? or: it is
	kindSevered      = "severed"       // pairs of instances that are severed, as far as the sender knows
	kindOffer        = "offer-primary" // a primary key, to be taken over or refused
	kindConfirm      = "confirm-held"  // does this Region, acting, hold these materials now?
	kindRosters      = "rosters"       // changes of a Region's roster of operators, or a question for them
	kindStale        = "stale-session" // the answering Region has started again
	kindUnsupported  = "unsupported"   // the answering Region does not know this kind
)

// envelopeVersion is the first field of every message.
const envelopeVersion = 1

// Bounds of an envelope's fields in bytes.
const (
	maxKind        = 64
	maxCorrelation = 128
	maxCheckpoint  = 4096
	maxBody        = statement.MaxPayload - 8192
	// maxMessage bounds a marshalled message: payload, purpose, signature and lengths.
	maxMessage = statement.MaxPayload + 4096
)

// envelope is one message or answer between two instances.
type envelope struct {
	kind   string
	answer bool
	from   party
	to     party
	// session names the sender's run. peerSession is the receiver's, as far as the sender
	// knows: a message of before the receiver's start is not acted upon.
	session     mrk.Nonce
	peerSession mrk.Nonce
	nonce       mrk.Nonce // fresh; an answer repeats its message's
	correlation string
	sent        int64            // Unix nanoseconds by the sender's clock; orders nothing
	checkpoint  statement.Signed // the sender's newest audit checkpoint; empty purpose if none
	store       seal.Head
	body        []byte
}

// party is one end of an exchange.
type party struct {
	region   region.Name
	instance region.InstanceID
}

func (e envelope) payload() []byte {
	w := wire.NewWriter(2048 + len(e.body))
	w.Uint(envelopeVersion)
	w.String(e.kind)
	w.Bool(e.answer)
	for _, p := range []party{e.from, e.to} {
		w.String(string(p.region))
		w.String(string(p.instance))
	}
	w.Bytes(e.session[:])
	w.Bytes(e.peerSession[:])
	w.Bytes(e.nonce[:])
	w.String(e.correlation)
	w.Uint(uint64(e.sent))
	if e.checkpoint.Purpose == "" {
		w.Bytes(nil)
	} else {
		w.Bytes(e.checkpoint.Marshal())
	}
	w.Uint(e.store.Version)
	w.Bytes(e.store.Hash[:])
	w.Bytes(e.body)
	return w.Out()
}

// parseEnvelope reads a payload whose signature has been verified.
func parseEnvelope(payload []byte) (envelope, error) {
	r := wire.NewReader(payload)
	if v := r.Uint(); r.Err() == nil && v != envelopeVersion {
		r.Fail("message version %d, only %d is known", v, envelopeVersion)
	}
	e := envelope{kind: r.String(maxKind), answer: r.Bool(), from: decodeParty(r), to: decodeParty(r)}
	r.Fixed(e.session[:])
	r.Fixed(e.peerSession[:])
	r.Fixed(e.nonce[:])
	e.correlation = r.String(maxCorrelation)
	sent := r.Uint()
	if sent > 1<<63-1 {
		r.Fail("time %d", sent)
	}
	e.sent = int64(sent)
	if b := r.Bytes(maxCheckpoint); len(b) > 0 && r.Err() == nil {
		s, err := statement.Parse(b)
		if err != nil {
			r.Fail("checkpoint: %v", err)
		}
		e.checkpoint = s
	}
	e.store.Version = r.Uint()
	r.Fixed(e.store.Hash[:])
	e.body = r.Bytes(maxBody)
	if err := r.Done(); err != nil {
		return envelope{}, fmt.Errorf("parsing message: %w", err)
	}
	return e, nil
}

func decodeParty(r *wire.Reader) party {
	var p party
	var err error
	if p.region, err = region.ParseName(r.String(64)); err != nil && r.Err() == nil {
		r.Fail("%v", err)
	}
	if p.instance, err = region.ParseInstanceID(r.String(64)); err != nil && r.Err() == nil {
		r.Fail("%v", err)
	}
	return p
}
