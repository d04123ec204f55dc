package keyops

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// PromoteKey makes the key of this Region the primary key without the consent of the Region
// that has it (rule 17), because that one is dark. It always takes the approvals of this
// Region's operators: all other Regions check them. Any member can be promoted, the old
// primary key included, which ends a hand-over whose target is lost.
func (s *Service) PromoteKey(ctx context.Context, caller Caller, in PromoteKeyInput) (PromoteKeyOutput, error) {
	t := target{ref: in.KeyID, says: []say{{policy.PrimaryRegion, string(s.self.Region)}}, details: map[string]string{
		"primaryRegion": string(s.self.Region), "suspendRegions": clip(strings.Join(in.SuspendRegions, ", ")),
	}}
	p := newConsent(approval.ForcePromotion, Approvals{Files: in.Approvals}, &t)
	claim, err := s.promotion(in, p)
	if t.invalid == nil {
		t.invalid = err
	}
	return do(ctx, s, caller, "PromoteKey", t, func(ctx context.Context, c *call) (PromoteKeyOutput, error) {
		if c.key.Set == nil {
			return PromoteKeyOutput{}, refuse(ErrUnsupportedOperation, "%s is not a multi-region key.", c.key.arn)
		}
		if err := p.countable(s); err != nil {
			return PromoteKeyOutput{}, err
		}
		if err := s.lookAtOperators(ctx); err != nil {
			return PromoteKeyOutput{}, err
		}
		var asked approval.Request
		k, err := s.change(ctx, c.key.ID, func(k *Key) error {
			if err := s.still(c, k); err != nil {
				return err
			}
			a := claim
			root, err := rootOf(a.Proof, k)
			if err != nil {
				return err
			}
			a.Roster = s.operators()
			a.Promotion.Root, a.Promotion.Roster, a.Now = root, a.Roster.Version, s.now()
			if err := s.promotable(k, a.Promotion); err != nil {
				return err
			}
			if _, err := k.Set.Promote(ctx, s.Signer(), a, s.contact(k)); err != nil {
				return notPromoted(k, err)
			}
			asked = a.Promotion.Request()
			c.approvedBy(a.Roster, asked, p.files)
			return nil
		}, func(tx *seal.Tx) error {
			if err := s.thawed(); err != nil {
				return err
			}
			return s.use(tx, c, asked)
		})
		if err != nil {
			return PromoteKeyOutput{}, s.unmanaged(c.key, err)
		}
		c.record.detail("generation", strconv.FormatUint(claim.Promotion.Generation, 10))
		s.marks.wake()
		return PromoteKeyOutput{KeyID: k.arn, Generation: claim.Promotion.Generation}, nil
	})
}

// promotion is what the caller says that operators have approved. Serial, expiry and
// generation are read from the first approval; that they were approved with all the rest,
// and by whom, is checked later.
func (s *Service) promotion(in PromoteKeyInput, p *consent) (mrk.Approved, error) {
	a := mrk.Approved{
		Approvals: p.files,
		Promotion: mrk.Promotion{
			Target: s.self.Region, Instance: s.self.Instance, Generation: p.asked.Epoch,
			Serial: p.asked.Serial, Expires: p.asked.Expires,
		},
	}
	if len(in.SuspendRegions) > mrk.MaxMembers {
		return a, invalid("suspendRegions", "have at most %d members", mrk.MaxMembers)
	}
	for _, name := range in.SuspendRegions {
		r, err := memberNamed(name, "suspendRegions")
		if err != nil {
			return a, err
		}
		if r == s.self.Region {
			return a, refuse(ErrValidation, "Region %s is the one that is promoted, and cannot be suspended by that.", r)
		}
		a.Promotion.Suspend = append(a.Promotion.Suspend, r)
	}
	var err error
	a.Proof, err = in.proof()
	a.Promotion.Keys = a.Proof.Count
	return a, err
}

// promotable refuses what no approval makes possible, in words.
func (s *Service) promotable(k *Key, p mrk.Promotion) error {
	switch {
	case s.peers == nil:
		return refuse(ErrUnsupportedOperation, "Region %s is configured without peers.", s.self.Region)
	case k.Set.Acting() && k.Set.Frozen() == nil:
		return refuse(ErrUnsupportedOperation, "%s is the multi-Region primary key already.", k.arn)
	case p.Generation < k.Set.NextGeneration():
		return disapproved(fmt.Errorf("%w: the request is number %d of promotions, and %s needs %d or more", mrk.ErrStale, p.Generation, k.arn, k.Set.NextGeneration()))
	}
	return nil
}

// notPromoted says why operators' approvals make no primary key.
func notPromoted(k *Key, err error) error {
	switch {
	case errors.Is(err, approval.ErrNotEnough), errors.Is(err, approval.ErrExpired), errors.Is(err, mrk.ErrStale):
		return disapproved(err)
	case errors.Is(err, mrk.ErrUnusable):
		return &Error{Reason: ErrInvalidState, cause: err, Message: fmt.Sprintf(
			"%s does not hold the key material that it encrypts with, and cannot be promoted. Promote the key of another Region.", k.arn)}
	case errors.Is(err, mrk.ErrGap):
		return &Error{Reason: ErrInvalidState, cause: err, Message: fmt.Sprintf("%s has heard nothing of its primary key yet, and cannot be promoted.", k.arn)}
	}
	return err
}
