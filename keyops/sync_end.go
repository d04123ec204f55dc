package keyops

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/synchronization"
)

// endPairs goes on with what follows from the severances of this primary instance: the replica
// instance is told until it has accepted, its memberships end, and the transport keys between
// the two are destroyed. The worker calls it, so that a death in between loses nothing.
func (s *Service) endPairs(ctx context.Context) error {
	errs := []error{s.retireTransport(ctx)}
	for _, p := range s.syncs.pairs() {
		switch {
		case p.Replica == s.end() && p.Frozen():
			errs = append(errs, s.dropUnfinished(ctx), s.dropTerms(ctx, p))
		case p.Primary == s.end():
			errs = append(errs, s.endAssociation(ctx, p), s.endMemberships(ctx, p), s.tellSevered(ctx, p))
		}
	}
	return errors.Join(errs...)
}

// dropTerms ends the terms of a frozen instance as a primary Region. It had none when it accepted;
// one that a backup has made forget that may have made a key before it heard of it again.
func (s *Service) dropTerms(ctx context.Context, p severedPair) error {
	var errs []error
	for _, k := range s.view.facts() {
		if k.Set == nil || k.Gone() || !k.Set.Acting() {
			continue
		}
		cause := Cause{Event: "DisassociateReplicaInstance", Peer: p.Primary.Region}
		err := s.UpdateShared(ctx, k.ID, cause, func(k *Key) error {
			k.Set.DropPermit()
			return nil
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("acting no more for key %s: %w", k.ID, err))
		}
	}
	return errors.Join(errs...)
}

// endAssociation forgets an association that a store from before the severance knows.
func (s *Service) endAssociation(ctx context.Context, p severedPair) error {
	if own := s.syncs.own.Load(); own == nil || own.Find(p.Replica.Instance) == nil {
		return nil
	}
	_, err := s.changeOwn(ctx, func(y *synchronization.Synchronization) (*synchronization.Synchronization, error) {
		y.Drop(p.Replica.Instance)
		return y, nil
	})
	return err
}

// tellSevered asks the replica instance to accept, with the approvals that there are.
func (s *Service) tellSevered(ctx context.Context, p severedPair) error {
	if _, known := s.descriptorOf(p.Replica); p.Frozen() || !known || s.peers == nil {
		return nil // or the next exchange with a Region that knows of it says so
	}
	in := Approvals{Files: p.approvals}
	files, err := in.parse()
	if err != nil {
		return fmt.Errorf("reading the approvals of severing %s: %w", p.Replica, err)
	}
	signed, err := s.peers.Disassociate(ctx, p.Replica.Region, s.disassociationClaim(p.Severed, files, ""))
	if err != nil {
		s.syncs.tried(syncPair{instance: p.Replica.Instance}, err, s.elapsed())
		if errors.Is(err, ErrPeerUnreachable) {
			return nil // the next run tries again
		}
		return fmt.Errorf("disassociating %s: %w", p.Replica, err)
	}
	s.syncs.tried(syncPair{instance: p.Replica.Instance}, nil, 0)
	p.Accepted, p.approvals = signed, nil
	_, err = s.keepSevered(ctx, p, nil, nil)
	return err
}

// endMemberships ends the memberships of a severed instance in the keys whose primary key is
// here. Its keys stay usable there, but for those that were never finished.
func (s *Service) endMemberships(ctx context.Context, p severedPair) error {
	var errs []error
	for _, id := range s.membersOf(p.Replica) {
		k := s.view.key(id)
		if k == nil || !k.Set.Acting() {
			continue // another Region is the primary Region, or this one has to renew its term first
		}
		cause := Cause{Event: "DisassociateReplicaInstance", Peer: p.Replica.Region}
		err := s.UpdateShared(ctx, id, cause, func(k *Key) error {
			if e := k.Set.Entry(p.Replica.Region); !e.Status.In() || e.Instance != p.Replica.Instance {
				return ErrUnchanged
			}
			return k.Set.Evict(ctx, s.Signer(), p.Replica.Region, finished(k, p.Replica.Region))
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("ending the membership of %s in key %s: %w", p.Replica, id, err))
		}
	}
	if len(errs) == 0 {
		s.marks.wake()
	}
	return errors.Join(errs...)
}

// finished reports whether the replica key of a Region was ever usable, by its own word.
func finished(k *Key, r region.Name) bool {
	if k.Set.Entry(r).Status != mrk.Joining {
		return true
	}
	m := k.Set.Fact(r)
	return m != nil && m.Incarnation == k.Set.Entry(r).Incarnation && m.KeyState != string(keystate.Creating)
}

// membersOf lists the keys of which an instance is a member by the word of this Region, whose
// primary keys they are.
func (s *Service) membersOf(of synchronization.End) []arn.KeyID {
	var ids []arn.KeyID
	for _, k := range s.view.facts() {
		if k.Set == nil || k.Gone() || k.Set.Primary() != s.self.Region {
			continue
		}
		if e := k.Set.Entry(of.Region); e.Status.In() && e.Instance == of.Instance {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// associations are those of a synchronization, and after them those that were ended.
func (s *Service) associations(y *synchronization.Synchronization) []synchronization.Association {
	list := slices.Clone(y.Associations)
	for _, p := range s.syncs.pairs() {
		if p.Primary != s.end() || p.ID != y.ID {
			continue
		}
		list = slices.DeleteFunc(list, func(a synchronization.Association) bool { return a.Instance == p.Replica.Instance })
		stage := p.stage()
		if len(s.membersOf(p.Replica)) > 0 {
			stage = synchronization.Ending
		}
		list = append(list, synchronization.Association{
			Region: p.Replica.Region, Instance: p.Replica.Instance, Type: synchronization.AllResources,
			Principal: p.Principal, Created: p.At, Stage: stage,
		})
	}
	return list
}

// stage says how far a severance has come, by the replica instance's word.
func (p severedPair) stage() synchronization.Stage {
	if p.Frozen() {
		return synchronization.Ended
	}
	return synchronization.Ending
}

// ended is what the view shows of a key in an instance that was disassociated.
func (r syncedKeys) ended(a synchronization.Association, k *Key) (syncStatus, bool) {
	if k.Set == nil {
		return syncStatus{}, false
	}
	switch e := k.Set.Entry(a.Region); {
	case e.Instance != a.Instance:
		return syncStatus{}, false
	case e.Status == mrk.Retained && a.Stage == synchronization.Ended:
		return syncStatus{status: syncSuspended, cause: mrk.CauseReplicaFrozen, text: "the instance is disassociated, and keeps the key as it is"}, true
	case e.Status == mrk.Retained || e.Status.In():
		now := syncStatus{status: syncPending, cause: mrk.CauseReplicaFrozen, text: "the instance is being disassociated, and keeps the key"}
		if t, failed := r.s.syncs.last(syncPair{instance: a.Instance}); failed {
			now.cause, now.text = t.cause, t.text
		}
		return now, true
	}
	return syncStatus{}, false
}
