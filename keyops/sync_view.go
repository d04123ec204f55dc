package keyops

import (
	"context"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/synchronization"
)

// statuses and causes that a filter can name are words; longer ones are none.
const maxFilter = 64

// ListSynchronizedResources is the view of all replica instances.
func (s *Service) ListSynchronizedResources(ctx context.Context, caller Caller, in ListSynchronizedResourcesInput) (ListSynchronizedResourcesOutput, error) {
	t := target{details: map[string]string{"synchronization": clip(in.SynchronizationID)}}
	return do(ctx, s, caller, "ListSynchronizedResources", t, func(_ context.Context, c *call) (ListSynchronizedResourcesOutput, error) {
		own, err := s.ownSynchronization(c, in.SynchronizationID)
		if err != nil {
			return ListSynchronizedResourcesOutput{}, err
		}
		rows, next, err := s.syncRows(c, own, s.associations(own), in.Filter, in.Limit, in.Marker)
		return ListSynchronizedResourcesOutput{rows, next, next != ""}, err
	})
}

// ListReplicaResources is the view of one replica instance.
func (s *Service) ListReplicaResources(ctx context.Context, caller Caller, in ListReplicaResourcesInput) (ListReplicaResourcesOutput, error) {
	t := target{details: map[string]string{"synchronization": clip(in.SynchronizationID), "replicaInstance": clip(in.ReplicaInstance)}}
	return do(ctx, s, caller, "ListReplicaResources", t, func(_ context.Context, c *call) (ListReplicaResourcesOutput, error) {
		own, err := s.ownSynchronization(c, in.SynchronizationID)
		if err != nil {
			return ListReplicaResourcesOutput{}, err
		}
		a, err := s.associationNamed(own, in.ReplicaInstance)
		if err != nil {
			return ListReplicaResourcesOutput{}, err
		}
		rows, next, err := s.syncRows(c, own, []synchronization.Association{a}, in.Filter, in.Limit, in.Marker)
		return ListReplicaResourcesOutput{rows, next, next != ""}, err
	})
}

// associationNamed finds the association that a call names by instance or Region, whether
// this Region is still configured with it or not, and whether it was ended or not.
func (s *Service) associationNamed(own *synchronization.Synchronization, name string) (synchronization.Association, error) {
	for _, a := range s.associations(own) {
		if string(a.Instance) == name || string(a.Region) == name {
			return a, nil
		}
	}
	return synchronization.Association{}, fromRules(synchronization.ErrUnknown, region.InstanceID(clip(name)))
}

// syncRows returns a page of rows, ordered by resource and then in the order of the
// associations, and the marker of the next one.
func (s *Service) syncRows(c *call, own *synchronization.Synchronization, of []synchronization.Association, f ResourceFilter, size int, after string) ([]SynchronizedResource, string, error) {
	n, err := limit(size, 100, 1000)
	if err != nil {
		return nil, "", err
	}
	if len(f.Status) > maxFilter || len(f.FailureCause) > maxFilter || len(f.ResourceID) > maxReference {
		return nil, "", invalid("filter", "have length less than or equal to %d", maxFilter)
	}
	last, err := parseMarker(c.name, after)
	if err != nil {
		return nil, "", err
	}
	lastID, lastInstance, _ := strings.Cut(last, "/")
	rows := []SynchronizedResource{}
	for _, kind := range s.resourceKinds() {
		ids := kind.list(own.Account)
		from, _ := slices.BinarySearch(ids, lastID)
		for _, id := range ids[from:] {
			if f.ResourceID != "" && id != f.ResourceID {
				continue
			}
			passed := id != lastID
			for _, a := range of {
				if !passed {
					passed = string(a.Instance) == lastInstance
					continue
				}
				row, ok := s.syncRow(kind, a, id)
				if !ok || !f.takes(row) {
					continue
				}
				if len(rows) == n {
					end := rows[n-1]
					return rows, marker(c.name, end.ResourceID+"/"+string(end.ReplicaInstance)), nil
				}
				rows = append(rows, row)
			}
		}
	}
	return rows, "", nil
}

func (f ResourceFilter) takes(row SynchronizedResource) bool {
	return (f.Status == "" || strings.EqualFold(f.Status, row.Status)) && (f.FailureCause == "" || strings.EqualFold(f.FailureCause, row.FailureCause))
}

// syncRow returns what the view shows of one resource in one replica instance.
func (s *Service) syncRow(kind resourceKind, a synchronization.Association, id string) (SynchronizedResource, bool) {
	if !a.Covers(id) {
		return SynchronizedResource{}, false
	}
	now, ok := kind.status(a, id)
	if !ok {
		return SynchronizedResource{}, false
	}
	if t, failed := s.syncs.last(syncPair{id, a.Instance}); failed && now.due {
		now.status, now.cause, now.text = syncFailed, t.cause, t.text
	}
	return SynchronizedResource{
		ResourceID: id, ResourceType: kind.name(), ReplicaRegion: a.Region, ReplicaInstance: a.Instance,
		Status: now.status, FailureCause: string(now.cause), FailureText: now.text,
	}, true
}
