package keyops

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/transport"
)

// PrimaryClaim is what a peer says of who wants the primary key of a set to be here. Like
// every claim it is bounded by the peer's Authority and by the policies of this Region.
type PrimaryClaim struct {
	Source        region.Name
	Key           arn.KeyID
	Principal     arn.Principal
	CorrelationID string
}

// UpdatePrimaryRegion hands the role of the primary key to a replica (rule 12). It returns
// once the offer is durable, and both keys are Updating, and go on encrypting, until the
// other Region has taken or refused it. That Region has to answer now, and has to allow the
// principal kms:UpdatePrimaryRegion as well.
func (s *Service) UpdatePrimaryRegion(ctx context.Context, caller Caller, in UpdatePrimaryRegionInput) (UpdatePrimaryRegionOutput, error) {
	t := target{ref: in.KeyID, says: []say{{policy.PrimaryRegion, in.PrimaryRegion}}}
	return do(ctx, s, caller, "UpdatePrimaryRegion", t, func(ctx context.Context, c *call) (UpdatePrimaryRegionOutput, error) {
		var none UpdatePrimaryRegionOutput
		c.record.detail("primaryRegion", clip(in.PrimaryRegion))
		to, err := s.nextPrimary(c.key, in.PrimaryRegion)
		if err != nil {
			return none, err
		}
		claim := PrimaryClaim{
			Source: s.self.Region, Key: c.key.ID, Principal: caller.Principal, CorrelationID: caller.correlation(),
		}
		switch err := s.peers.CheckPrimary(ctx, to, claim); {
		case errors.Is(err, ErrPeerUnreachable):
			return none, &Error{Reason: ErrDependencyTimeout, Message: fmt.Sprintf(
				"Region %s does not answer, and only it can take over the primary key of %s. Nothing has changed; try again when it does.", to, c.key.ID), cause: err}
		case err != nil:
			return none, refusedBy(to, err)
		}
		_, err = s.change(ctx, c.key.ID, func(k *Key) error {
			if err := s.still(c, k); err != nil {
				return err
			}
			if err := k.Set.OfferTo(ctx, s.Signer(), to, s.peers.Contact(k.ID)); err != nil {
				return err
			}
			k.Set.OfferedBy(mrk.Claim{Principal: claim.Principal.String(), CorrelationID: claim.CorrelationID})
			return nil
		}, nil)
		if errors.Is(err, mrk.ErrNotActive) {
			return none, refuse(ErrInvalidState, "The replica of %s in Region %s is not synchronized yet.", c.key.ID, to)
		}
		return none, s.unmanaged(c.key, err)
	})
}

// nextPrimary checks that the role can be handed over, and to whom.
func (s *Service) nextPrimary(k *Key, name string) (region.Name, error) {
	if err := s.isPrimary(k); err != nil {
		return "", err
	}
	to, err := region.ParseName(name)
	if err != nil {
		return "", invalid("primaryRegion", "satisfy regular expression pattern: ^([a-z]+-){2,3}\\d+$")
	}
	if to == s.self.Region {
		return "", refuse(ErrUnsupportedOperation, "%s is the multi-Region primary key already.", k.arn)
	}
	if e := k.Set.Entry(to); !e.Status.In() {
		return "", refuse(ErrNotFound, "Key %s has no replica in Region %s. Replicate it there first.", k.ID, to)
	}
	d, known := s.peers.Peer(to)
	if !known {
		return "", refuse(ErrInvalidArn, "Region %s is not known here.", to)
	}
	return to, s.together(d)
}

// isPrimary refuses what only the primary key of a multi-Region set can do, and names the
// Region to call instead.
func (s *Service) isPrimary(k *Key) error {
	switch {
	case k.Set == nil:
		return refuse(ErrUnsupportedOperation, "%s is not a multi-region primary key.", k.arn)
	case k.Set.Primary() != s.self.Region:
		return s.manages(k)
	case s.peers == nil:
		return refuse(ErrUnsupportedOperation, "Region %s is configured without peers.", s.self.Region)
	}
	return nil
}

// CheckPrimary decides, without any effect, whether this Region would take the primary key
// over: there is an enabled replica, the policies here allow the claimed principal to do it,
// and there are transport keys to every Region that this one would have to supply. Its
// errors are *Error.
func (s *Service) CheckPrimary(_ context.Context, claim PrimaryClaim) error {
	k, err := s.SharedKey(claim.Key)
	if err != nil {
		return refuse(ErrNotFound, "Key %s is not known in Region %s.", claim.Key, s.self.Region)
	}
	if err := s.checkPrimary(k, claim); err != nil {
		return answer(err)
	}
	return nil
}

func (s *Service) checkPrimary(k *Key, claim PrimaryClaim) error {
	p, accept := claim.Principal, s.authority(claim.Source).Accept
	if p.Account != k.Account || p.Partition != s.partition || !accept.principal(p) {
		return refuse(ErrAccessDenied, "The configuration of Region %s lets Region %s hand over no keys in the name of %s.", s.self.Region, claim.Source, p)
	}
	a := askerFor(p)
	a.says = []say{{policy.PrimaryRegion, string(s.self.Region)}}
	if d := s.decide(&a, "kms:UpdatePrimaryRegion", k.arn, k); !d.Allowed {
		return refuse(ErrAccessDenied, "User: %s is not authorized to perform: kms:UpdatePrimaryRegion on resource: %s: %s.", p, k.arn, d.Missing)
	}
	if err := s.thawed(); err != nil {
		return err
	}
	if err := s.allows(k, "UpdatePrimaryRegion", keystate.Facts{}); err != nil {
		return err
	}
	if p := k.Set.Pending(); k.Origin == OriginExternal && !p.IsZero() && !slices.Contains(k.Held(), p) {
		// Nothing can be imported while the key is Updating, so this does not pass by itself.
		return refuse(ErrInvalidState, "Key material %s, which is pending rotation, is not imported into %s yet. Import it there first, or delete it from the primary key.", p, k.arn)
	}
	class := k.use().class()
	for _, m := range k.Set.Members() {
		if m.Region == s.self.Region {
			continue
		}
		to := transport.End{Region: m.Region, Instance: m.Instance}
		if _, ok := s.transport.Load().Newest(transport.EndOf(s.self), to, class); guard13Transport.Stops(!ok || s.severedFrom(m.Region, m.Instance)) {
			return refuse(ErrInvalidState, "Region %s has no transport key to Region %s, which has a replica of %s. Establish one in a ceremony first.", s.self.Region, m.Region, k.ID)
		}
	}
	return nil
}

// DecideOffer takes the offer of a primary key, which a peer makes until it is decided, and
// accepts or refuses it, finally (rules 13 and 14). An error means that it is not decided
// yet, or that the offer was no offer.
func (s *Service) DecideOffer(ctx context.Context, source region.Name, o mrk.Offer, v mrk.Verifier, contact mrk.Contact) error {
	id := o.Certificate.Key
	var later, refused error
	decided, accepted := false, false
	_, err := s.change(ctx, id, func(k *Key) error {
		if k.Set == nil {
			return fmt.Errorf("offer of key %s: %w", id, mrk.ErrForeign)
		}
		taken, err := k.Set.TakeOffer(v, o)
		if err != nil {
			return fmt.Errorf("taking the offer of key %s: %w", id, err)
		}
		if _, open := k.Set.Considering(); !open {
			return ErrUnchanged
		}
		switch refused, later = s.weigh(ctx, source, k, o, contact); {
		case refused != nil:
			decided = true
			return k.Set.Refuse(refused.Error())
		case later != nil && !taken:
			return ErrUnchanged
		case later == nil:
			decided, accepted = true, true
		}
		return nil
	}, func(*seal.Tx) error {
		if accepted {
			return s.thawed() // asked again where nobody can come between
		}
		return nil
	})
	if err != nil {
		return err
	}
	if decided {
		if err := s.auditDecision(ctx, source, o, refused); err != nil && refused == nil {
			return err
		}
	}
	return later
}

// auditDecision records that an offer was accepted, or why it was refused.
func (s *Service) auditDecision(ctx context.Context, source region.Name, o mrk.Offer, refused error) error {
	if e := new(Error); refused != nil && !errors.As(refused, &e) {
		refused = refuse(ErrInvalidState, "%v", refused) // what a rule refuses is no fault of ours
	}
	details := map[string]string{"claimedPrincipal": o.By.Principal, "primaryRegion": string(s.self.Region)}
	cause := Cause{Event: "UpdatePrimaryRegion", Peer: source, CorrelationID: o.By.CorrelationID}
	return s.auditEvent(ctx, cause, "", o.Certificate.Key, details, refused)
}

// weigh accepts an offer, or says why it is refused, or why it cannot be decided yet.
func (s *Service) weigh(ctx context.Context, source region.Name, k *Key, o mrk.Offer, contact mrk.Contact) (refused, later error) {
	principal, err := arn.ParsePrincipal(o.By.Principal)
	if err != nil {
		return fmt.Errorf("the offer does not say who made it: %w", err), nil
	}
	if err := s.checkPrimary(k, PrimaryClaim{source, k.ID, principal, o.By.CorrelationID}); guard13Policy.Stops(err != nil) {
		return err, nil
	}
	set := k.Set.Clone() // a rule that fails half-way leaves nothing behind
	if _, err := set.Accept(ctx, s.Signer(), contact); err != nil {
		for _, final := range []error{mrk.ErrNotEnabled, mrk.ErrNotActive, mrk.ErrFrozen, mrk.ErrFull, mrk.ErrLost, mrk.ErrWithdrawn} {
			if errors.Is(err, final) {
				return err, nil
			}
		}
		return nil, fmt.Errorf("accepting the primary key of %s: %w", k.ID, err)
	}
	k.Set = set
	return nil, nil
}
