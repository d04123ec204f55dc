package keyops

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/synchronization"
)

// AssociationClaim is what a primary instance says when it asks an instance to be its
// replica. The principal is its claim, bounded as that of a ReplicaClaim.
type AssociationClaim struct {
	Source          region.Name
	Instance        region.InstanceID // the primary instance: the one that sent the claim
	Synchronization synchronization.ID
	Account         arn.Account
	Principal       arn.Principal
	KeyQuota        int  // the primary instance's keys per account
	Commit          bool // write it down; else only decide
	CorrelationID   string
}

// AssociateReplicaInstance adds a replica instance. The instance is asked now: it has to be
// reachable, empty, in the same partition and large enough. That it is associated is written
// down here before it is there, and asked again until it is, so that no death in between
// leaves the two ends in disagreement.
func (s *Service) AssociateReplicaInstance(ctx context.Context, caller Caller, in AssociateReplicaInstanceInput) (AssociateReplicaInstanceOutput, error) {
	t := target{details: map[string]string{
		"synchronization": clip(in.SynchronizationID), "replicaInstance": clip(in.ReplicaInstance), "synchronizationType": clip(string(in.SynchronizationType)),
	}}
	return do(ctx, s, caller, "AssociateReplicaInstance", t, func(ctx context.Context, c *call) (AssociateReplicaInstanceOutput, error) {
		var none AssociateReplicaInstanceOutput
		own, err := s.ownSynchronization(c, in.SynchronizationID)
		if err != nil {
			return none, err
		}
		a, err := s.newAssociation(c, own, in)
		if err != nil {
			return none, err
		}
		claim := s.associationClaim(own, a)
		switch err := s.peers.Associate(ctx, a.Region, claim); {
		case errors.Is(err, ErrPeerUnreachable):
			return none, &Error{Reason: ErrDependencyTimeout, Message: fmt.Sprintf(
				"Region %s does not answer, and it has to confirm that it is empty. Nothing has changed; try again when it does.", a.Region), cause: err}
		case err != nil:
			return none, refusedBy(a.Region, err)
		}
		now, err := s.changeOwn(ctx, func(y *synchronization.Synchronization) (*synchronization.Synchronization, error) {
			if err := s.syncs.forbidden(s.end(), synchronization.End{Region: a.Region, Instance: a.Instance}); err != nil {
				return nil, err
			}
			return y, fromRules(y.Associate(a), a.Instance)
		})
		if err != nil {
			return none, err
		}
		if err := s.confirmAssociation(ctx, now, a); err != nil && !errors.Is(err, ErrPeerUnreachable) {
			return none, err
		}
		return AssociateReplicaInstanceOutput{s.describeSynchronization(s.syncs.own.Load())}, nil
	})
}

// newAssociation checks all of a request that can be checked here.
func (s *Service) newAssociation(c *call, own *synchronization.Synchronization, in AssociateReplicaInstanceInput) (synchronization.Association, error) {
	var none synchronization.Association
	switch {
	case !in.SynchronizationType.Known():
		return none, invalid("synchronizationType", "satisfy enum value set: [%s, %s]", synchronization.AllResources, synchronization.SelectedResources)
	case in.SynchronizationType == synchronization.AllResources && len(in.Resources) > 0:
		return none, refuse(ErrValidation, "%s takes no list of resources: it is about all of them.", synchronization.AllResources)
	case in.SynchronizationType == synchronization.SelectedResources && len(in.Resources) == 0:
		return none, refuse(ErrValidation, "%s needs at least one resource.", synchronization.SelectedResources)
	}
	to, err := s.peerNamed(in.ReplicaInstance)
	if err != nil {
		return none, err
	}
	if to.Partition != s.partition {
		return none, refuse(ErrInvalidArn, "Region %s is in partition %s, and this one in %s.", to.Region, to.Partition, s.partition)
	}
	if err := s.syncs.forbidden(s.end(), synchronization.EndOf(to)); err != nil {
		return none, err
	}
	selected, err := s.selected(c, in.Resources)
	if err != nil {
		return none, err
	}
	if err := s.maySend(own.Account, to.Region); err != nil {
		return none, err
	}
	a := synchronization.Association{
		Region: to.Region, Instance: to.Instance, Type: in.SynchronizationType, Selected: selected,
		Principal: c.asker.arn, CorrelationID: clip(c.caller.correlation()), Created: s.clock().UTC(), Stage: synchronization.Asking,
	}
	return a, fromRules(own.Clone().Associate(a), a.Instance) // before the other instance is asked
}

func (s *Service) associationClaim(own *synchronization.Synchronization, a synchronization.Association) AssociationClaim {
	p, _ := arn.ParsePrincipal(a.Principal) // ours, of before: else the other Region refuses nobody
	return AssociationClaim{
		Source: s.self.Region, Instance: s.self.Instance, Synchronization: own.ID,
		Account: own.Account, Principal: p, KeyQuota: s.quota, CorrelationID: a.CorrelationID,
	}
}

// fromRules puts what the rules of package synchronization refuse into AWS's words.
func fromRules(err error, instance region.InstanceID) error {
	switch {
	case errors.Is(err, synchronization.ErrAssociated):
		return refuse(ErrAlreadyExists, "Instance %s, or its Region, is associated already.", instance)
	case errors.Is(err, synchronization.ErrFull):
		return refuse(ErrLimitExceeded, "A synchronization has at most %d replica instances.", synchronization.MaxReplicas)
	case errors.Is(err, synchronization.ErrTooMany):
		return refuse(ErrLimitExceeded, "An association selects at most %d resources; %s takes them all.", synchronization.MaxSelected, synchronization.AllResources)
	case errors.Is(err, synchronization.ErrNarrower):
		return refuse(ErrUnsupportedOperation, "A synchronization is never made smaller: resources can be added and not removed, and %s cannot become %s.", synchronization.AllResources, synchronization.SelectedResources)
	case errors.Is(err, synchronization.ErrUnknown):
		return refuse(ErrNotFound, "Instance %s is not associated with this synchronization.", instance)
	}
	return err
}

// confirmAssociation has the replica instance write its role down, and then notes that it
// did. A refusal ends the association, which has had no effect yet.
func (s *Service) confirmAssociation(ctx context.Context, own *synchronization.Synchronization, a synchronization.Association) error {
	claim := s.associationClaim(own, a)
	claim.Commit = true
	err := s.peers.Associate(ctx, a.Region, claim)
	var refused *Error
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	_, failed := s.changeOwn(ctx, func(y *synchronization.Synchronization) (*synchronization.Synchronization, error) {
		now := y.Find(a.Instance)
		if now == nil || now.Stage != synchronization.Asking {
			return nil, ErrUnchanged
		}
		if refused != nil {
			y.Drop(a.Instance)
		} else {
			now.Stage = synchronization.Associated
		}
		return y, nil
	})
	if failed != nil {
		return failed
	}
	if refused != nil {
		return refusedBy(a.Region, refused)
	}
	return nil
}

// Associate decides whether this instance becomes the replica instance of another one, and
// writes it down if the claim says so. Its errors are *Error.
func (s *Service) Associate(ctx context.Context, claim AssociationClaim) error {
	err := s.associate(ctx, claim)
	if claim.Commit {
		err = s.auditInstance(ctx, "AssociateReplicaInstance", instanceClaim{claim.Source, claim.Instance, claim.Synchronization, claim.Account, claim.Principal, claim.CorrelationID}, nil, err)
	}
	if err != nil {
		return answer(err)
	}
	return nil
}

func (s *Service) associate(ctx context.Context, claim AssociationClaim) error {
	if err := s.mayAssociate(claim); err != nil {
		return err
	}
	// Keys are published under the same lock, so that none is made between the look and the
	// writing down.
	s.commits.Lock()
	defer s.commits.Unlock()
	if err := s.thawed(); err != nil {
		return err
	}
	if err := s.syncs.forbidden(synchronization.End{Region: claim.Source, Instance: claim.Instance}, s.end()); err != nil {
		return err
	}
	role := s.syncs.role.Load()
	if role == nil || role.PrimaryInstance != claim.Instance {
		if err := s.associable(claim, role); err != nil {
			return err
		}
	}
	if !claim.Commit || role != nil && role.ID == claim.Synchronization {
		return nil
	}
	if err := s.audit.Ready(); err != nil {
		return fmt.Errorf("associating with %s: %w", claim.Instance, err)
	}
	now := synchronization.Role{
		ID: claim.Synchronization, Account: claim.Account, PrimaryRegion: claim.Source, PrimaryInstance: claim.Instance,
		Principal: claim.Principal.String(), Since: s.clock().UTC(),
	}
	if err := s.update(ctx, func(tx *seal.Tx) error { return tx.Put(kindSynchronization, roleInOther, now.Encode()) }); err != nil {
		return fmt.Errorf("storing the role in synchronization %s: %w", now.ID, err)
	}
	s.syncs.role.Store(&now)
	return nil
}

// instanceClaim is what all claims about this instance as a whole say.
type instanceClaim struct {
	source          region.Name
	instance        region.InstanceID
	synchronization synchronization.ID
	account         arn.Account
	principal       arn.Principal
	correlation     string
}

// mayAssociate bounds a claim, as acceptable does of one for a replica.
func (s *Service) mayAssociate(claim AssociationClaim) error {
	if s.syncs.bad != nil {
		return s.syncsUnsound()
	}
	if err := s.acceptable(ReplicaClaim{Source: claim.Source, Account: claim.Account, Principal: claim.Principal}); err != nil {
		return err
	}
	return s.mayClaim("kms:AssociateReplicaInstance", claim.Account, claim.Principal)
}

// mayClaim asks whether this Region's policies allow what a peer says that a principal wants.
func (s *Service) mayClaim(action string, account arn.Account, p arn.Principal) error {
	a := askerFor(p)
	d := s.decide(&a, action, "*", nil)
	if p.Account != account || p.Partition != s.partition || !d.Allowed {
		return refuse(ErrAccessDenied, "User: %s is not authorized to perform: %s in Region %s: %s.", p, action, s.self.Region, d.Missing)
	}
	return nil
}

// associable refuses an association of an instance that is not free for it.
func (s *Service) associable(claim AssociationClaim, role *synchronization.Role) error {
	switch {
	case role != nil:
		return refuse(ErrAlreadyExists, "Instance %s is a replica instance of %s already.", s.self.Instance, role.PrimaryInstance)
	case s.syncs.own.Load() != nil:
		return refuse(ErrInvalidState, "Instance %s is itself the primary instance of a synchronization, and an instance is never both.", s.self.Instance)
	case s.view.total() > 0 || s.view.anyRefused():
		return refuse(ErrInvalidState, "Instance %s is not empty: it has %d keys, and a replica instance starts without any.", s.self.Instance, s.view.total())
	case s.quota < claim.KeyQuota:
		return refuse(ErrLimitExceeded, "Instance %s takes %d keys per account, and the primary instance %d: raise its quota first.", s.self.Instance, s.quota, claim.KeyQuota)
	}
	return nil
}

// anyRefused reports whether there are rows of keys that cannot be believed.
func (v *view) anyRefused() bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return len(v.refused) > 0
}

// auditInstance records what became of a claim about this instance as a whole.
func (s *Service) auditInstance(ctx context.Context, event string, claim instanceClaim, more map[string]string, err error) error {
	r := audit.Record{
		Type: audit.ServiceEvent, Event: event, CorrelationID: claim.correlation, Account: string(claim.account),
		Details: map[string]string{
			"peer": string(claim.source), "primaryInstance": string(claim.instance),
			"synchronization": string(claim.synchronization), "claimedPrincipal": claim.principal.String(),
		},
	}
	maps.Copy(r.Details, more)
	r.Outcome, r.Error = outcome(answer(err))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTimeout)
	defer cancel()
	if unrecorded := s.audit.Append(ctx, r); unrecorded != nil && err == nil {
		return fmt.Errorf("recording %s: %w", event, unrecorded)
	}
	return err
}
