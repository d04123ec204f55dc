package keyops

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/synchronization"
)

// whenFrozen says what becomes of an operation in an instance that was disassociated. The
// table of operations has it for each, and docs/synchronization.md shows it.
type whenFrozen int

const (
	unclassified whenFrozen = iota // refused
	goesOn                         // reading, and cryptography
	keepsKeys                      // refused for multi-Region keys, which stay as they are
	closed                         // refused: a new key, or a part in a synchronization
)

// thawed refuses what an instance that was disassociated does not do any more.
func (s *Service) thawed() error {
	if s.syncs.bad != nil {
		return s.syncsUnsound() // it may be frozen
	}
	f := s.syncs.frozen.Load()
	if f == nil {
		return nil
	}
	return &Error{Reason: ErrInvalidState, cause: ErrReplicaFrozen, Message: fmt.Sprintf(
		"%s: instance %s was disassociated from %s for good. It keeps its multi-Region keys as they are, and takes no new ones; reading and cryptography go on.",
		mrk.CauseReplicaFrozen, s.self.Instance, f.Primary)}
}

// ActsForNone reports whether this instance acts as the primary Region of no key, whatever the
// facts say, because it was disassociated.
func (s *Service) ActsForNone() bool { return s.syncs.frozen.Load() != nil }

// melts is thawed for one call, on a key if k is not nil.
func (s *Service) melts(c *call, k *Key) error {
	switch c.op.frozen {
	case goesOn:
		return nil
	case keepsKeys:
		if k == nil || k.Set == nil {
			return nil
		}
	}
	return s.thawed()
}

// kept reports whether the key stays as it is because this instance is frozen. One that the
// primary Region has evicted, and not retained, may go.
func (s *Service) kept(k *Key) bool {
	return s.syncs.frozen.Load() != nil && k.Set != nil && !k.Set.Shut()
}

// keepUsable takes back what the severed primary instance's word would do to a key that is
// usable here: evict it, or list it as one that is still to be made. Nobody here could undo it.
func (s *Service) keepUsable(old, k *Key) {
	f := s.syncs.frozen.Load()
	if f == nil || old == nil || old.State != keystate.Enabled || k.Set.Primary() != f.Primary.Region {
		return
	}
	if k.State == keystate.Disabled || k.State == keystate.Creating {
		k.State = old.State
	}
}

// Disassociate decides whether this instance is severed from its primary instance and frozen,
// and if the claim is signed, writes it down and returns this Region's own signature, which
// is what binds it from then on. Its errors are *Error.
func (s *Service) Disassociate(ctx context.Context, claim DisassociationClaim) (statement.Signed, error) {
	if f := s.syncs.frozen.Load(); f != nil && f.Between(claim.Severed.Primary, claim.Severed.Replica) && f.Primary.Instance == claim.Instance {
		return f.Accepted, nil // asked again: the answer was lost
	}
	signed, approved, err := s.disassociate(ctx, claim)
	if claim.Commit() {
		more := map[string]string{"replicaInstance": string(s.self.Instance)}
		if approved != "" {
			more["approvedBy"] = approved
		}
		sev := claim.Severed
		p, _ := arn.ParsePrincipal(sev.Principal)
		err = s.auditInstance(ctx, "DisassociateReplicaInstance", instanceClaim{claim.Source, claim.Instance, sev.ID, sev.Account, p, claim.CorrelationID}, more, err)
	}
	if err != nil {
		return statement.Signed{}, answer(err)
	}
	return signed, nil
}

func (s *Service) disassociate(ctx context.Context, claim DisassociationClaim) (statement.Signed, string, error) {
	none, sev := statement.Signed{}, claim.Severed.Severance
	approved, err := s.mayDisassociate(ctx, claim)
	if err != nil || !claim.Commit() {
		return none, "", err
	}
	if err := s.audit.Ready(); err != nil {
		return none, "", fmt.Errorf("being disassociated from %s: %w", sev.Primary, err)
	}
	if err := s.believeSevered(claim.Severed); err != nil {
		return none, "", err
	}
	f, err := claim.Severed.Accept(ctx, s.Signer())
	if err != nil {
		return none, "", err
	}
	_, err = s.keepSevered(ctx, severedPair{Severed: f}, func(*seal.Tx) error {
		return s.noPrimaryKeys(s.end()) // asked again where nobody can come between
	}, nil)
	if err != nil {
		return none, "", err
	}
	return f.Accepted, approved, nil
}

// mayDisassociate decides, and says who has approved.
func (s *Service) mayDisassociate(ctx context.Context, claim DisassociationClaim) (string, error) {
	sev := claim.Severed.Severance
	role := s.syncs.role.Load()
	p, err := arn.ParsePrincipal(sev.Principal)
	switch {
	case s.syncs.bad != nil:
		return "", s.syncsUnsound()
	case err != nil:
		return "", invalid("principal", "be the ARN of a principal")
	case sev.Primary != synchronization.End{Region: claim.Source, Instance: claim.Instance} || sev.Replica != s.end():
		return "", refuse(ErrValidation, "A severance of %s from %s is not for %s to ask of %s.", sev.Replica, sev.Primary, claim.Instance, s.self.Instance)
	case role == nil && len(claim.Approvals) > 0:
		// A store of before the association has been put back. The operators, whose approvals
		// name both ends, know better.
	case role == nil || role.PrimaryInstance != claim.Instance || role.ID != sev.ID:
		return "", refuse(ErrNotFound, "Instance %s is not a replica instance of %s in synchronization %s.", s.self.Instance, claim.Instance, sev.ID)
	}
	account := sev.Account
	if role != nil {
		account = role.Account
	}
	if err := s.mayClaim("kms:DisassociateReplicaInstance", account, p); err != nil {
		return "", err
	}
	if err := s.noPrimaryKeys(s.end()); err != nil {
		return "", err
	}
	if len(claim.Approvals) == 0 && !s.quorum.Needs(approval.Disassociate) {
		return "", nil
	}
	if err := s.lookAtOperators(ctx); err != nil {
		return "", err
	}
	roster := s.operators()
	if len(claim.Approvals) == 0 {
		return "", refuse(ErrAccessDenied, "%s takes the approvals of %d of the %d operators (roster version %d) of Region %s. Repeat the call with the request (keyferry: --request FILE), have it approved, and give the approvals.",
			approval.Disassociate, roster.Threshold, len(roster.Operators), roster.Version, s.self.Region)
	}
	asked, err := approval.RequestOf(claim.Approvals[0])
	if err != nil {
		return "", disapproved(err)
	}
	// The primary instance has looked at the same, when it wrote down that the pair is severed.
	// It may be the one that is hostile, and have kept approvals that operators let expire.
	if err := s.clocksAgree(); err != nil {
		return "", disapproved(err)
	}
	q := severanceRequest(sev, roster, asked)
	if err := roster.Check(q, s.now(), claim.Approvals); err != nil {
		return "", disapproved(err)
	}
	return strings.Join(roster.Approved(q, claim.Approvals), ", "), nil
}

// dropUnfinished lets keys go that were never usable here, and that no primary Region supplies
// any more: they are deleted like any replica key, at once.
func (s *Service) dropUnfinished(ctx context.Context) error {
	var errs []error
	for _, k := range s.view.facts() {
		if !unfinished(k) {
			continue
		}
		_, err := s.change(ctx, k.ID, func(k *Key) error {
			if !unfinished(k) {
				return ErrUnchanged
			}
			k.State, k.DeletionDate, k.PendingDays = keystate.PendingDeletion, s.now(), minWindow
			return nil
		}, nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("dropping key %s, which was never finished: %w", k.ID, err))
		}
	}
	return errors.Join(errs...)
}

func unfinished(k *Key) bool {
	return k.Set != nil && !k.Gone() && k.State == keystate.Creating && k.Set.Shut()
}
