package keyops

import (
	"context"
	"slices"
	"strconv"

	"github.com/keyferry/keyferry/keyops/synchronization"
)

// mostResources is how many resources one request can name.
const mostResources = 1000

// UpdateSynchronization adds resources to an association. It never takes any away: what was
// replicated cannot be unmade, and a replica that is no longer kept up to date would stay.
func (s *Service) UpdateSynchronization(ctx context.Context, caller Caller, in UpdateSynchronizationInput) (UpdateSynchronizationOutput, error) {
	t := target{details: map[string]string{
		"synchronization": clip(in.SynchronizationID), "replicaInstance": clip(in.ReplicaInstance), "resources": strconv.Itoa(len(in.AddResources)),
	}}
	return do(ctx, s, caller, "UpdateSynchronization", t, func(ctx context.Context, c *call) (UpdateSynchronizationOutput, error) {
		var none UpdateSynchronizationOutput
		if _, err := s.ownSynchronization(c, in.SynchronizationID); err != nil {
			return none, err
		}
		switch {
		case len(in.RemoveResources) > 0:
			return none, refuse(ErrUnsupportedOperation, "Resources cannot be removed from a synchronization: a selected resource stays selected. DisassociateReplicaInstance ends the association as a whole.")
		case in.SynchronizationType != "" && !in.SynchronizationType.Known():
			return none, invalid("synchronizationType", "satisfy enum value set: [%s, %s]", synchronization.AllResources, synchronization.SelectedResources)
		case in.SynchronizationType != synchronization.AllResources && len(in.AddResources) == 0:
			return none, refuse(ErrValidation, "There is nothing to add: name resources, or the type %s.", synchronization.AllResources)
		}
		to, err := s.peerNamed(in.ReplicaInstance)
		if err != nil {
			return none, err
		}
		added, err := s.selected(c, in.AddResources)
		if err != nil {
			return none, err
		}
		now, err := s.changeOwn(ctx, func(y *synchronization.Synchronization) (*synchronization.Synchronization, error) {
			return y, fromRules(y.Widen(to.Instance, in.SynchronizationType, added), to.Instance)
		})
		if err != nil {
			return none, err
		}
		return UpdateSynchronizationOutput{s.describeSynchronization(now)}, nil
	})
}

// selected returns the IDs of the resources that a request names, in order. Each must be
// there, and the caller must be allowed to replicate it: else the selection would tell which
// keys exist.
func (s *Service) selected(c *call, refs []string) ([]string, error) {
	if len(refs) > mostResources {
		return nil, invalid("resources", "have length less than or equal to %d", mostResources)
	}
	var ids []string
	for _, ref := range refs {
		if ref == "" {
			return nil, invalid("resources", "have length greater than or equal to 1")
		}
		r, err := s.resolve(c, target{ref: ref})
		if err != nil {
			return nil, err
		}
		if _, err := s.permitted(c, &c.asker, "kms:ReplicateKey", r, ""); err != nil {
			return nil, err
		}
		ids = append(ids, string(r.id))
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}
