package mrk

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Offer hands a key over: the next certificate, signed by the Region that offers, and the
// create requests that it has not seen through. It is sent to the Region that it names
// until that one has accepted or refused, and is nothing to anybody else.
type Offer struct {
	Certificate Certificate
	Requests    []CreateRequest
	By          Claim
}

// Claim says on whose behalf a Region acts, as that Region says: the other one bounds it.
type Claim struct {
	Principal     string // ARN
	CorrelationID string // of the call, the same in the audit logs of both Regions
}

// maxOfferRequests bounds the create requests of an offer in bytes, so that an offer fits
// into one message. A key with more of them outstanding is handed over once some replicas
// are active.
const maxOfferRequests = 384 << 10

// Marshal returns the one encoding.
func (o Offer) Marshal() []byte {
	var w wire.Writer
	w.Uint(formatVersion)
	o.Certificate.encode(&w)
	w.Count(len(o.Requests))
	for _, r := range o.Requests {
		w.Bytes(r.signed.Marshal())
	}
	o.By.encode(&w)
	return w.Out()
}

func (c Claim) encode(w *wire.Writer) {
	w.String(c.Principal)
	w.String(c.CorrelationID)
}

func decodeClaim(r *wire.Reader) Claim {
	c := Claim{Principal: r.String(maxPrincipal), CorrelationID: r.String(maxID)}
	if r.Err() == nil && !utf8.ValidString(c.CorrelationID) {
		r.Fail("text that is not UTF-8")
	}
	return c
}

// ParseOffer reads what Marshal wrote. It verifies nothing: TakeOffer does.
func ParseOffer(b []byte) (Offer, error) {
	r := wire.NewReader(b)
	decodeVersion(r)
	o := Offer{Certificate: decodeCertificate(r)}
	for range r.Count(MaxMembers) {
		req := decodeRequest(r, o.Certificate.Key)
		if req == nil {
			break
		}
		if n := len(o.Requests); n > 0 && o.Requests[n-1].Destination >= req.Destination {
			r.Fail("create requests out of order")
		}
		o.Requests = append(o.Requests, *req)
	}
	o.By = decodeClaim(r)
	if err := r.Done(); err != nil {
		return Offer{}, fmt.Errorf("parsing offer: %w", err)
	}
	return o, nil
}

func (o Offer) size() (n int) {
	for _, r := range o.Requests {
		n += len(r.signed.Payload)
	}
	return n
}

// TakeOffer keeps an offer that another Region makes to this one, if it follows from what is
// known here; Accept or Refuse decides it. An offer that was decided is passed over: changed
// is false and there is no error. ErrGap means that facts have to come first.
func (s *Set) TakeOffer(v Verifier, o Offer) (changed bool, err error) {
	c := o.Certificate
	if c.Key != s.key || c.Epoch.Region != s.self.Region || c.Instance != s.self.Instance || s.incarnation == 0 {
		return false, fmt.Errorf("%w: offer to %s %s", ErrForeign, c.Epoch.Region, c.Instance)
	}
	if guard13Refused.Stops(c.Epoch.Nonce == s.refused) || s.offer != nil && s.offer.Certificate.Hash() == c.Hash() {
		return false, nil
	}
	for _, k := range s.chain {
		if k.Hash() == c.Hash() {
			return false, nil
		}
	}
	if err := s.follows(c); err != nil {
		return false, err
	}
	parent := *s.head()
	if c.Epoch.Line != parent.Epoch.Line || c.Epoch.Number != parent.Epoch.Number+1 || c.Epoch.Region == parent.Epoch.Region ||
		c.forced != nil || len(c.counter) != 0 || s.usedNonce(c.Epoch.Nonce) {
		return false, fmt.Errorf("%w: epoch %s after %s", ErrOffer, c.Epoch, parent.Epoch)
	}
	if former(v, parent.Epoch.Region, parent.Instance) {
		return false, ErrFormer
	}
	if err := v.Verify(parent.Epoch.Region, parent.Instance, c.signed); err != nil {
		return false, err
	}
	for _, r := range o.Requests {
		if err := s.verifyCarried(v, r); err != nil {
			return false, err
		}
	}
	s.offer = &o
	return true, nil
}

// follows reports whether an offer's certificate names the newest certificate and the state
// that are known here (rule 13).
func (s *Set) follows(c Certificate) error {
	switch {
	case guard13Parent.Stops(c.Parent != s.Head()):
		return fmt.Errorf("%w: offer after another certificate", ErrGap)
	case guard13Final.Stops(s.state == nil || s.state.Epoch != s.Epoch() || s.state.Hash() != c.Final):
		return fmt.Errorf("%w: offer after another state", ErrGap)
	}
	return nil
}

// verifyCarried checks a create request that comes with an offer: a Region that was primary
// signed it, and the final state lists its replica.
func (s *Set) verifyCarried(v Verifier, r CreateRequest) error {
	e := s.Entry(r.Destination)
	if r.Key != s.key || !e.Status.In() || e.Incarnation != r.Incarnation || e.Instance != r.ToInstance {
		return fmt.Errorf("%w: for incarnation %d of %s", ErrRequest, r.Incarnation, r.Destination)
	}
	if !s.wasPrimary(r.Source, r.Instance) {
		return fmt.Errorf("%w: %s was never the primary Region", ErrRequest, r.Source)
	}
	if err := v.Verify(r.Source, r.Instance, r.signed); err != nil {
		return errors.Join(ErrRequest, err)
	}
	return nil
}

// wasPrimary reports whether a certificate names the instance.
func (s *Set) wasPrimary(r region.Name, instance region.InstanceID) bool {
	return names(s.chain, r, instance)
}

func names(chain []Certificate, r region.Name, instance region.InstanceID) bool {
	return slices.ContainsFunc(chain, func(c Certificate) bool { return c.Epoch.Region == r && c.Instance == instance })
}

func (s *Set) usedNonce(n Nonce) bool {
	for _, c := range s.chain {
		if c.Epoch.Nonce == n {
			return true
		}
	}
	return false
}

// decodeOffer reads an offer that this Region stored.
func decodeOffer(r *wire.Reader) *Offer {
	b := r.Bytes(statement.MaxPayload)
	if r.Err() != nil {
		return nil
	}
	o, err := ParseOffer(b)
	if err != nil {
		r.Fail("%v", err)
		return nil
	}
	return &o
}
