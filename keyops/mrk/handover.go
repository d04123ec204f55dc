package mrk

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/region"
)

// Hand over begins with OfferTo at the primary Region A (rule 12). From its commit on A does
// not act, until it hears that B acts (16), or that B refuses or is deleted, and Step takes
// the number after the offered one (15). B decides once: Accept (13) or Refuse (14).

// OfferTo offers the key to another Region, which is an active member (rule 12). This Region
// acts no more when it returns.
func (s *Set) OfferTo(ctx context.Context, signer Signer, to region.Name, c Contact) error {
	st, err := s.manage()
	if err != nil {
		return err
	}
	e := st.Entry(to)
	switch {
	case guard12Enabled.Stops(!s.enabled()):
		return ErrNotEnabled
	case to == s.self.Region:
		return fmt.Errorf("%w: %s", ErrMember, to)
	case guard12Active.Stops(e.Status != Active || s.gone(e)):
		return fmt.Errorf("%w: %s is %s", ErrNotActive, to, e.Status)
	case guard12Heard.Stops(!s.heardAll(c)):
		return ErrNotHeard
	case len(s.chain)+3 > MaxCertificates: // one for an acceptance, two after a refusal
		return fmt.Errorf("%w: %d certificates; a forced promotion begins anew", ErrFull, len(s.chain))
	}
	nonce, err := c.Nonce()
	if err != nil {
		return err
	}
	cert := s.successor(nonce)
	cert.Epoch.Number++
	cert.Epoch.Region, cert.Instance, cert.Final = to, e.Instance, st.Hash()
	if err := cert.Sign(ctx, signer); err != nil {
		return err
	}
	if n := (Offer{Requests: s.outstanding()}).size(); n > maxOfferRequests {
		return fmt.Errorf("%w: %d bytes of create requests are outstanding; try again when the replicas are active", ErrFull, n)
	}
	s.sealed = &cert
	return nil
}

// successor returns a certificate after the newest one, with the same Region and number.
func (s *Set) successor(nonce Nonce) Certificate {
	parent := s.head()
	c := Certificate{Key: s.key, Epoch: parent.Epoch, Instance: s.self.Instance, Parent: parent.Hash()}
	c.Epoch.Nonce = nonce
	return c
}

// outstanding returns the create requests whose replicas are not active yet, in the order of
// their destinations.
func (s *Set) outstanding() []CreateRequest {
	var out []CreateRequest
	for _, r := range slices.Sorted(maps.Keys(s.requests)) {
		if e := s.Entry(r); e.Status.In() && e.Status != Active && e.Incarnation == s.requests[r].Incarnation {
			out = append(out, s.requests[r])
		}
	}
	return out
}

// Offered returns the offer that this Region makes to another one and that is not decided.
// It is to be sent to the Region that its certificate names, after the facts.
func (s *Set) Offered() (Offer, bool) {
	if s.sealed == nil {
		return Offer{}, false
	}
	return Offer{Certificate: *s.sealed, Requests: s.outstanding(), By: s.by}, true
}

// OfferedBy notes on whose behalf OfferTo was called, for the Region that decides.
func (s *Set) OfferedBy(c Claim) { s.by = c }

// Considering returns the offer that this Region has to accept or refuse, or false.
func (s *Set) Considering() (Offer, bool) {
	if s.offer == nil || s.follows(s.offer.Certificate) != nil {
		return Offer{}, false
	}
	return *s.offer, true
}

// Accept makes this Region the primary Region, as it was offered (rule 13). That there are
// transport keys to every member and that policies allow it is the caller's to check.
// ErrLacking and ErrNotHeard may pass by themselves, and the offer stays; after any other
// error the caller refuses it.
func (s *Set) Accept(ctx context.Context, signer Signer, c Contact) ([]Event, error) {
	if s.offer == nil {
		return nil, fmt.Errorf("%w: no offer", ErrNothing)
	}
	cert, parent := s.offer.Certificate, s.Primary()
	if err := s.follows(cert); err != nil {
		return nil, err
	}
	own, e := s.Own(), s.Entry(s.self.Region)
	switch {
	case s.frozen != nil:
		return nil, fmt.Errorf("%w: %s by %s", ErrFrozen, s.frozen.Cause, s.frozen.Writer)
	case own == nil || s.told || s.destroying || guard13Enabled.Stops(!s.enabled()):
		return nil, ErrNotEnabled
	case guard13Active.Stops(e.Status != Active || e.Incarnation != s.incarnation):
		return nil, fmt.Errorf("%w: %s is %s", ErrNotActive, s.self.Region, e.Status)
	case !s.external() && guard13Holds.Stops(s.nowhere(s.lacking(s.holds()))):
		return nil, ErrLost
	case !s.external() && guard13Holds.Stops(len(s.lacking(s.holds())) > 0):
		return nil, fmt.Errorf("%w: %d", ErrLacking, len(s.lacking(s.holds())))
	case s.external() && guard13Holds.Stops(own.Current.IsZero() || !s.state.Pending.IsZero() && !own.Holds(s.state.Pending)):
		return nil, fmt.Errorf("%w: not imported here", ErrLacking)
	case s.withdrawn(c.Verifier):
		return nil, ErrWithdrawn
	case guard13Heard.Stops(!c.Heard(parent)):
		return nil, fmt.Errorf("%w: %s, which offers the key", ErrNotHeard, parent)
	case len(s.chain) >= MaxCertificates:
		return nil, fmt.Errorf("%w: %d certificates", ErrFull, len(s.chain))
	}
	if err := cert.Countersign(ctx, signer); err != nil {
		return nil, err
	}
	requests, err := s.inherit(ctx, signer, s.offer.Requests)
	if err != nil {
		return nil, err
	}
	st := s.state.clone()
	s.begin(append(slices.Clip(s.chain), cert))
	s.requests = requests
	s.open(st, cert.Epoch, c)
	return []Event{{Kind: EventAccepted, Region: s.self.Region}}, s.publish(ctx, signer, st)
}

// nowhere reports whether one of the materials is held by nobody, by what everybody has said: the
// Region that listed it has lost it since, and nobody will send it.
func (s *Set) nowhere(ids []material.ID) bool {
	return slices.ContainsFunc(ids, func(id material.ID) bool {
		for _, m := range s.members {
			if !m.Deleted && m.Holds(id) {
				return false
			}
		}
		return true
	})
}

// inherit writes create requests anew in this Region's name: it is the primary Region that
// answers for them from now on, and a destination obeys no other.
func (s *Set) inherit(ctx context.Context, signer Signer, carried []CreateRequest) (map[region.Name]CreateRequest, error) {
	out := map[region.Name]CreateRequest{}
	for _, r := range carried {
		if r.Destination == s.self.Region {
			continue
		}
		r.Source, r.Instance = s.self.Region, s.self.Instance
		if err := r.Sign(ctx, signer); err != nil {
			return nil, err
		}
		out[r.Destination] = r
	}
	return out, nil
}

// Refuse says, in this Region's member fact, that it does not take the key over (rule 14).
// It is final for that offer. The caller calls Reissue before it stores the set.
func (s *Set) Refuse(reason string) error {
	if s.offer == nil {
		return fmt.Errorf("%w: no offer", ErrNothing)
	}
	s.refused, s.refusedFor = s.offer.Certificate.Epoch.Nonce, clipText(reason)
	s.offer = nil
	return nil
}

// Refused reports whether this Region's last refusal was of that offer.
func (s *Set) Refused(o Offer) bool { return s.refused == o.Certificate.Epoch.Nonce }

// withdrawn reports whether the Region that made the offer does not know of it any more, since a
// backup was put back there: as long as it does, its key is Updating. Or its instance is no more,
// and cannot be heard.
func (s *Set) withdrawn(v Verifier) bool {
	m, by := s.members[s.Primary()], s.head()
	if former(v, by.Epoch.Region, by.Instance) {
		return true
	}
	again := m != nil && (m.KeyState == stateEnabled || m.KeyState == stateDisabled)
	return guard13Known.Stops(again && m.Instance == by.Instance)
}

// dismiss refuses an offer that nobody will make again, or the key would be Updating here for
// ever. To accept it would end an epoch in which that Region acts, and may renew (rule 18).
func (s *Set) dismiss(v Verifier, res *Result) {
	if _, open := s.Considering(); open && s.withdrawn(v) {
		_ = s.Refuse(ErrWithdrawn.Error()) // there is an offer
		res.Changed = true
	}
}

func clipText(s string) string {
	if len(s) <= maxText {
		return s
	}
	s = s[:maxText]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

// declined reports whether the Region that the key was offered to has refused, or has
// deleted its key, and why.
func (s *Set) declined() (why string, yes bool) {
	m := s.members[s.sealed.Epoch.Region]
	switch {
	case !guard15Answer.Stops(true):
		return "", true
	case m == nil || m.Instance != s.sealed.Instance:
		return "", false
	case m.Refused == s.sealed.Epoch.Nonce:
		return m.RefusedFor, true
	}
	return "its key is deleted", s.gone(s.Entry(m.Region))
}

// begin makes the chain's last certificate this Region's term, with the permit for it. What the
// last state lists, and this Region has lost, the others may have forgotten.
func (s *Set) begin(chain []Certificate) {
	s.leave(chain)
	s.chain = chain
	s.permit = s.head().Epoch.Nonce
	s.sealed, s.offer = nil, nil
}

// fence ends what this Region was or was about to be in an epoch that is over (rule 16).
func (s *Set) fence() {
	if guard16Permit.Stops(true) {
		s.permit = Nonce{} // a permit is only ever written together with its own certificate
	}
	if guard16Seal.Stops(true) {
		s.sealed = nil
	}
}
