package replication

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Contact is what this Region knows beside the facts of a key, for who manages it.
func (r *Replicator) Contact(id arn.KeyID) mrk.Contact { return r.contact(id) }

// checkPrimaryBody is a claim to be decided without effect.
type checkPrimaryBody struct{ claim keyops.PrimaryClaim }

func (c checkPrimaryBody) marshal() []byte {
	var w wire.Writer
	w.String(string(c.claim.Key))
	w.String(c.claim.Principal.String())
	w.String(c.claim.CorrelationID)
	return w.Out()
}

func parseCheckPrimary(p []byte, source region.Name) (checkPrimaryBody, error) {
	r := wire.NewReader(p)
	c := keyops.PrimaryClaim{Source: source, Key: decodeKey(r)}
	c.Principal, c.CorrelationID = decodePrincipal(r), r.String(maxCorrelation)
	if err := r.Done(); err != nil {
		return checkPrimaryBody{}, fmt.Errorf("parsing check-primary message: %w", err)
	}
	return checkPrimaryBody{c}, nil
}

func (r *Replicator) answerCheckPrimary(ctx context.Context, keys Keys, p *peer, body []byte) ([]byte, error) {
	c, err := parseCheckPrimary(body, p.pin.Region)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	return decision(keys.CheckPrimary(ctx, c.claim))
}

// offerBody is an offer of the primary key, in the one encoding of package mrk.
type offerBody struct{ offer mrk.Offer }

func (o offerBody) marshal() []byte {
	var w wire.Writer
	w.Bytes(o.offer.Marshal())
	return w.Out()
}

func parseOffer(p []byte) (offerBody, error) {
	r := wire.NewReader(p)
	b := r.Bytes(statement.MaxPayload)
	if err := r.Done(); err != nil {
		return offerBody{}, fmt.Errorf("parsing offer message: %w", err)
	}
	o, err := mrk.ParseOffer(b)
	return offerBody{o}, err
}

// offerAnswer says whether the offer is decided: it is if there is no trouble, and facts say
// how.
type offerAnswer struct{ trouble trouble }

func (a offerAnswer) marshal() []byte {
	var w wire.Writer
	w.String(string(a.trouble.cause))
	w.String(a.trouble.text)
	return w.Out()
}

func parseOfferAnswer(p []byte) (offerAnswer, error) {
	r := wire.NewReader(p)
	a := offerAnswer{trouble{cause: mrk.Cause(r.String(maxKind)), text: r.String(maxText)}}
	if err := r.Done(); err != nil {
		return a, fmt.Errorf("parsing answer to an offer: %w", err)
	}
	return a, nil
}

// handOver offers the key to the peer, if this Region has sealed it for that. It reports
// whether the peer has decided: then its facts say how.
func (p *peer) handOver(ctx context.Context, k *keyops.Key) (decided bool, err error) {
	if !p.offered(k.Set) {
		return false, nil
	}
	offer, _ := k.Set.Offered()
	reply, err := p.exchange(ctx, kindOffer, offer.By.CorrelationID, offerBody{offer}.marshal())
	if err != nil {
		return false, err
	}
	a, err := parseOfferAnswer(reply.body)
	if err != nil {
		return false, fmt.Errorf("%w: %w", errMessage, err)
	}
	if a.trouble.cause != "" {
		return false, troubleError(a.trouble)
	}
	return true, nil
}

// offered reports whether the peer has to decide an offer of this Region.
func (p *peer) offered(s *mrk.Set) bool {
	offer, ok := s.Offered()
	return ok && offer.Certificate.Epoch.Region == p.pin.Region
}

// answerOffer decides an offer of the peer.
func (r *Replicator) answerOffer(ctx context.Context, keys Keys, p *peer, body []byte) ([]byte, error) {
	o, err := parseOffer(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	id := o.offer.Certificate.Key
	err = keys.DecideOffer(ctx, p.pin.Region, o.offer, r.signed, r.contact(id))
	if err == nil {
		return offerAnswer{}.marshal(), nil
	}
	p.log.WithError(err).WithField("key", id).Warn("an offer of the primary key could not be decided")
	told := tell(err)
	if told.cause == "" || errors.Is(err, mrk.ErrGap) || errors.Is(err, mrk.ErrLacking) || errors.Is(err, mrk.ErrNotHeard) {
		told.cause = mrk.CauseWaitingForConfirmation // facts or materials come first, by themselves
	}
	return offerAnswer{told}.marshal(), nil
}
