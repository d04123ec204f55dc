package replication

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/replication/message"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// Contact is what this Region knows beside the facts of a key, for who manages it.
func (r *Replicator) Contact(id arn.KeyID) mrk.Contact { return r.contact(id) }

func (r *Replicator) answerCheckPrimary(ctx context.Context, keys Keys, p *peer, body []byte) ([]byte, error) {
	c, err := message.ParseCheckPrimary(body, p.pin.Region)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	return decision(keys.CheckPrimary(ctx, c.Claim))
}

// handOver offers the key to the peer, if this Region has sealed it for that. It reports
// whether the peer has decided: then its facts say how.
func (p *peer) handOver(ctx context.Context, k *keyops.Key) (decided bool, err error) {
	if !p.offered(k.Set) {
		return false, nil
	}
	offer, _ := k.Set.Offered()
	reply, err := p.exchange(ctx, message.KindOffer, offer.By.CorrelationID, message.Offer{Offer: offer}.Marshal())
	if err != nil {
		return false, err
	}
	a, err := message.ParseOfferAnswer(reply.Body)
	if err != nil {
		return false, fmt.Errorf("%w: %w", errMessage, err)
	}
	if a.Trouble.Cause != "" {
		return false, troubleError(a.Trouble)
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
	o, err := message.ParseOffer(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	id := o.Offer.Certificate.Key
	err = keys.DecideOffer(ctx, p.pin.Region, o.Offer, r.signed, r.contact(id))
	if err == nil {
		return message.OfferAnswer{}.Marshal(), nil
	}
	p.log.WithError(err).WithField("key", id).Warn("an offer of the primary key could not be decided")
	told := tell(err)
	if told.Cause == "" || errors.Is(err, mrk.ErrGap) || errors.Is(err, mrk.ErrLacking) || errors.Is(err, mrk.ErrNotHeard) {
		told.Cause = mrk.CauseWaitingForConfirmation // facts or materials come first, by themselves
	}
	return message.OfferAnswer{Trouble: told}.Marshal(), nil
}
