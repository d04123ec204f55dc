package keyops

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/synchronization"
)

// Statuses of a resource in a replica instance, as in package replication.
const (
	syncPending      = "PENDING"
	syncSynchronized = "SYNCHRONIZED"
	syncFailed       = "FAILED"
	syncSuspended    = "SUSPENDED"
)

// syncStatus is how far one resource is in one replica instance.
type syncStatus struct {
	status string
	cause  mrk.Cause
	text   string
	due    bool // nothing has asked for the replica yet, and nothing here forbids it
}

// resourceKind is one kind of resource that a synchronization carries. Keys are the first.
type resourceKind interface {
	// name is what views call the kind.
	name() string
	// list returns the IDs of an account's resources, in order.
	list(arn.Account) []string
	// status returns how far a resource is, from memory; false if there is no such resource.
	status(synchronization.Association, string) (syncStatus, bool)
	// replicate asks for the resource's replica, under the association's authority. ask is
	// false if the replica instance is known not to answer now.
	replicate(ctx context.Context, y *synchronization.Synchronization, a synchronization.Association, id string, ask bool) error
}

// resourceKinds is the table of all of them.
func (s *Service) resourceKinds() []resourceKind { return []resourceKind{syncedKeys{s}} }

// syncedKeys are the keys of this instance.
type syncedKeys struct{ s *Service }

func (syncedKeys) name() string { return "KEY" }

func (r syncedKeys) list(account arn.Account) []string {
	v := r.s.view
	v.mu.RLock()
	defer v.mu.RUnlock()
	ids := make([]string, len(v.keys[account]))
	for i, id := range v.keys[account] {
		ids[i] = string(id)
	}
	return ids
}

func (r syncedKeys) status(a synchronization.Association, id string) (syncStatus, bool) {
	k := r.s.view.key(arn.KeyID(id))
	switch {
	case k == nil && r.s.view.unreadable(arn.KeyID(id)) != nil:
		return syncStatus{status: syncFailed, cause: mrk.CauseTokenUnavailable, text: "the stored row of this key fails its seal"}, true
	case k == nil:
		return syncStatus{}, false
	case a.Stage == synchronization.Ending || a.Stage == synchronization.Ended:
		return r.ended(a, k)
	case k.Set == nil:
		return syncStatus{status: syncFailed, cause: mrk.CauseSingleRegionKey, text: "the material of a single-Region key cannot leave its token; make a multi-Region key"}, true
	}
	if now, known := r.s.peers.Peer(a.Region); !known || now.Instance != a.Instance {
		return syncStatus{status: syncFailed, cause: mrk.CausePeerUnreachable, text: "this Region is not configured with the instance any more"}, true
	}
	entry := k.Set.Entry(a.Region)
	switch {
	case entry.Status.In() && entry.Instance == a.Instance:
		return r.progress(a, k.ID), true
	case k.Set.Primary() != r.s.self.Region:
		return syncStatus{status: syncFailed, cause: mrk.CauseNotPrimary, text: "the primary key is in Region " + string(k.Set.Primary()) + "; replicate it there"}, true
	case entry.Incarnation > 0 && entry.Instance == a.Instance:
		// What somebody has decided is not undone by itself.
		return syncStatus{status: syncSuspended, text: "the replica was deleted or evicted; ReplicateKey makes it again"}, true
	}
	if err := r.s.allows(k, "ReplicateKey", keystate.Facts{}); err != nil {
		return syncStatus{status: syncPending, text: err.Error()}, true
	}
	if d := r.denied(a, k); d != "" {
		return syncStatus{status: syncFailed, cause: mrk.CauseAccessDenied, text: d}, true
	}
	return syncStatus{status: syncPending, due: true}, true
}

// progress passes on what replication knows. A Region that does not answer has not failed:
// nothing waits for it, and it goes on when it is there.
func (r syncedKeys) progress(a synchronization.Association, id arn.KeyID) syncStatus {
	p, ok := r.s.peers.(Progress)
	if !ok {
		return syncStatus{status: syncPending}
	}
	status, cause, text := p.Progress(id, a.Region)
	if status == syncFailed && mrk.Cause(cause) == mrk.CausePeerUnreachable {
		status = syncPending
	}
	return syncStatus{status: status, cause: mrk.Cause(cause), text: text}
}

// denied says why the association's principal may not replicate the key now, or nothing.
func (r syncedKeys) denied(a synchronization.Association, k *Key) string {
	p, err := arn.ParsePrincipal(a.Principal)
	if err != nil {
		return "the association's principal is none"
	}
	who := askerFor(p)
	who.says = []say{{policy.ReplicaRegion, string(a.Region)}}
	if d := r.s.decide(&who, "kms:ReplicateKey", k.arn, k); !d.Allowed {
		return "no policy lets " + a.Principal + ", who made the association, replicate this key"
	}
	return ""
}

// replicate goes through the door of ReplicateKey as the association's principal, so that it
// can do nothing that this principal could not do now. The replica begins with the key's
// policy, description and tags: with the default policy it would be open to more.
func (r syncedKeys) replicate(ctx context.Context, y *synchronization.Synchronization, a synchronization.Association, id string, ask bool) error {
	k := r.s.view.key(arn.KeyID(id))
	if k == nil {
		return nil
	}
	p, err := arn.ParsePrincipal(a.Principal)
	if err != nil {
		return err
	}
	in := ReplicateKeyInput{
		KeyID: id, ReplicaRegion: string(a.Region), Policy: string(k.Policy), Description: k.Description,
		BypassPolicyLockoutSafetyCheck: true, // the policy is in force here already
	}
	for _, key := range slices.Sorted(maps.Keys(k.Tags)) {
		in.Tags = append(in.Tags, Tag{Key: key, Value: k.Tags[key]})
	}
	caller := Caller{Principal: p, RequestID: string(arn.NewKeyID(false))}
	_, err = r.s.replicate(ctx, caller, in, map[string]string{"synchronization": string(y.ID)}, ask)
	if errors.Is(err, ErrAlreadyExists) {
		if k := r.s.view.key(arn.KeyID(id)); k != nil && k.Set.Entry(a.Region).Status.In() {
			return nil // somebody else asked for it meanwhile
		}
	}
	return err
}
