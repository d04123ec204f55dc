package message

import (
	"fmt"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Offer is an offer of the primary key, in the one encoding of package mrk.
type Offer struct{ Offer mrk.Offer }

// Marshal returns the one encoding of it.
func (o Offer) Marshal() []byte {
	var w wire.Writer
	w.Bytes(o.Offer.Marshal())
	return w.Out()
}

// ParseOffer reads what Marshal wrote, and nothing else.
func ParseOffer(p []byte) (Offer, error) {
	r := wire.NewReader(p)
	b := r.Bytes(statement.MaxPayload)
	if err := r.Done(); err != nil {
		return Offer{}, fmt.Errorf("parsing offer message: %w", err)
	}
	o, err := mrk.ParseOffer(b)
	return Offer{o}, err
}

// OfferAnswer says whether the offer is decided: it is if there is no trouble, and facts say
// how.
type OfferAnswer struct{ Trouble Trouble }

// Marshal returns the one encoding of it.
func (a OfferAnswer) Marshal() []byte {
	var w wire.Writer
	w.String(string(a.Trouble.Cause))
	w.String(a.Trouble.Text)
	return w.Out()
}

// ParseOfferAnswer reads what Marshal wrote, and nothing else.
func ParseOfferAnswer(p []byte) (OfferAnswer, error) {
	r := wire.NewReader(p)
	a := OfferAnswer{Trouble{Cause: mrk.Cause(r.String(MaxKind)), Text: r.String(MaxText)}}
	if err := r.Done(); err != nil {
		return a, fmt.Errorf("parsing answer to an offer: %w", err)
	}
	return a, nil
}
