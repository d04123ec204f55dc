package simulation

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/replication/message"
)

// What a thief writes is in the one encoding of messages, names the run of the Region's daemon
// that goes on beside, and is signed in the Region's token: nobody can tell it from that
// daemon's.

// party is the Region's end of an exchange.
func (h hostile) party() message.Party {
	return message.Party{Region: h.name, Instance: h.plant.descriptor.Instance}
}

// writes writes a message.
func (h hostile) writes(to *node, kind string, body []byte) []byte {
	h.w.t.Helper()
	nonce, err := mrk.NewNonce(rand.Reader)
	h.w.must(err)
	e := message.Envelope{
		Kind: kind, To: message.Party{Region: to.name, Instance: h.pinned.pinned[to.name].Instance}, Nonce: nonce, Body: body,
	}
	if to.running() {
		e.PeerSession = to.run.session
	}
	return h.seals(e)
}

// answers writes an answer.
func (h hostile) answers(to message.Envelope, body []byte) []byte {
	h.w.t.Helper()
	return h.seals(message.Envelope{Kind: to.Kind, Answer: true, To: to.From, PeerSession: to.Session, Nonce: to.Nonce, Body: body})
}

func (h hostile) seals(e message.Envelope) []byte {
	h.w.t.Helper()
	svc := h.run.svc
	e.From, e.Session, e.Sent, e.Store = h.party(), h.run.session, h.clock().UnixNano(), svc.StoreHead()
	if c, ok := svc.AuditHead(); ok {
		e.Checkpoint = c.Statement
	}
	signed, err := svc.Signer().Sign(context.Background(), statement.Exchange, e.Marshal())
	h.w.must(err)
	return signed.Marshal()
}

// opens reads a message or an answer, whoever signed it.
func opens(b []byte) (message.Envelope, error) {
	s, err := statement.Parse(b)
	if err != nil {
		return message.Envelope{}, err
	}
	return message.Parse(s.Payload)
}

// carries sends a message over the simulated network, and returns the answer.
func (h hostile) carries(to *node, kind string, body []byte) (message.Envelope, error) {
	h.w.t.Helper()
	b, err := link{h.w, h.run, to.name}.Exchange(context.Background(), h.writes(to, kind, body))
	if err != nil {
		return message.Envelope{}, err
	}
	answer, err := opens(b)
	h.w.must(err)
	return answer, nil
}

// tells says something of a key to another Region, and returns why that did not take all of it.
func (h hostile) tells(to *node, words message.Facts) (refused error) {
	h.w.t.Helper()
	words.Key = words.Facts.Key
	answer, err := h.carries(to, message.KindFacts, words.Marshal())
	if err != nil {
		return err
	}
	if answer.Kind != message.KindFacts {
		return fmt.Errorf("%s is answered with %s", message.KindFacts, answer.Kind)
	}
	f, err := message.ParseFacts(answer.Body)
	h.w.must(err)
	if f.Trouble.Cause != "" {
		refused = errors.New(string(f.Trouble.Cause) + ": " + f.Trouble.Text)
	}
	h.w.note("%s tells %s: %v", h.name, to.name, refused)
	h.w.check()
	return refused
}

// offers offers the primary key to another Region.
func (h hostile) offers(to *node, o mrk.Offer) error {
	h.w.t.Helper()
	_, err := h.carries(to, message.KindOffer, message.Offer{Offer: o}.Marshal())
	h.w.check()
	return err
}

// confirms makes the Region lie about what it holds.
func (h hostile) confirms(lie func(mrk.Question) mrk.Confirmation) {
	h.lies = func(_ region.Name, b []byte) ([]byte, bool) {
		m, err := opens(b)
		if err != nil || m.Kind != message.KindConfirm || m.Answer || m.To != h.party() {
			return nil, false
		}
		c, err := message.ParseConfirm(m.Body)
		h.w.must(err)
		return h.answers(m, message.Confirmation{Confirmation: lie(c.Question)}.Marshal()), true
	}
}
