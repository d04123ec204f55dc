package keyops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store"
)

// Waiting periods of deletions, in days.
const (
	minWindow     = 7
	maxWindow     = 30
	defaultWindow = 30
)

const day = 24 * time.Hour

// ScheduleKeyDeletion switches a key off and sets the date at which it is deleted.
func (s *Service) ScheduleKeyDeletion(ctx context.Context, caller Caller, in ScheduleKeyDeletionInput) (ScheduleKeyDeletionOutput, error) {
	if in.PendingWindowInDays == 0 {
		in.PendingWindowInDays = defaultWindow
	}
	days := strconv.Itoa(in.PendingWindowInDays)
	t := target{
		ref: in.KeyID, says: []say{{policy.ScheduleKeyDeletionPendingWindowInDays, days}},
		details: map[string]string{"pendingWindowInDays": days},
	}
	if in.PendingWindowInDays < minWindow || in.PendingWindowInDays > maxWindow {
		t.invalid = invalid("pendingWindowInDays", "have value between %d and %d", minWindow, maxWindow)
	}
	p := newConsent(approval.DeletePrimaryKey, in.Approvals, &t)
	return do(ctx, s, caller, "ScheduleKeyDeletion", t, func(ctx context.Context, c *call) (ScheduleKeyDeletionOutput, error) {
		schedule := func(k *Key) error {
			to, err := s.pending(k)
			if err != nil {
				return err
			}
			if err := keystate.Transition(k.State, to); err != nil {
				return refuse(ErrInvalidState, "%s cannot be deleted now.", k.arn)
			}
			k.State, k.PendingDays = to, in.PendingWindowInDays
			if to == keystate.PendingDeletion {
				k.DeletionDate = s.now().Add(time.Duration(in.PendingWindowInDays) * day)
			}
			return nil
		}
		now, err := p.changePrimary(ctx, s, c, func(k *Key) ([]approval.Detail, error) {
			if _, err := s.pending(k); err != nil {
				return nil, err
			}
			return aboutDeletion(k, days), nil
		}, schedule)
		if err != nil {
			return ScheduleKeyDeletionOutput{}, err
		}
		if !now.DeletionDate.IsZero() {
			c.record.detail("deletionDate", now.DeletionDate.Format(time.RFC3339))
		}
		return ScheduleKeyDeletionOutput{
			KeyID: now.arn, KeyState: string(now.State), DeletionDate: now.DeletionDate, PendingWindowInDays: now.PendingDays,
			Expected: s.expectedDeletion(now), ApprovalRequest: p.request,
		}, nil
	})
}

// expectedDeletion returns the earliest time at which a primary key goes that waits for its
// replica keys: its waiting period after the last of them. It is zero while one of them is to
// stay, and for every other key.
func (s *Service) expectedDeletion(k *Key) time.Time {
	if k.Set == nil || k.State != keystate.PendingReplicaDeletion {
		return time.Time{}
	}
	last := s.now()
	for _, m := range k.Set.Members() {
		if m.Region == s.self.Region {
			continue
		}
		goes := due(m)
		if goes.IsZero() {
			return time.Time{}
		}
		if goes.After(last) {
			last = goes
		}
	}
	return last.Add(time.Duration(k.PendingDays) * day)
}

// due returns when a member is to delete its key, as it has last said; zero if it is not.
func due(m mrk.MemberView) time.Time {
	if m.Fact == nil || m.Fact.Incarnation != m.Incarnation || m.Fact.Deleting == 0 {
		return time.Time{}
	}
	return time.Unix(m.Fact.Deleting, 0).UTC()
}

// aboutDeletion is what operators read before a multi-Region primary key is deleted.
func aboutDeletion(k *Key, days string) []approval.Detail {
	replicas := "none"
	var in []string
	for _, m := range k.Set.Members() {
		if m.Region != k.Set.Self().Region {
			in = append(in, string(m.Region))
		}
	}
	if len(in) > 0 {
		replicas = strings.Join(in, ", ")
	}
	return append(inSet(k), approval.Detail{Name: "waiting period in days", Text: days},
		approval.Detail{Name: "replica keys, which are deleted first", Text: replicas})
}

// pending returns the state that begins a key's deletion. That of a primary key begins
// when its last replica key is deleted.
func (s *Service) pending(k *Key) (keystate.State, error) {
	if k.Set == nil || k.Set.Primary() != s.self.Region {
		return keystate.PendingDeletion, nil
	}
	if !k.Set.Acting() {
		return "", s.unmanaged(k, mrk.ErrNotPrimary)
	}
	if k.hasReplicas() {
		return keystate.PendingReplicaDeletion, nil
	}
	return keystate.PendingDeletion, nil
}

// CancelKeyDeletion takes a scheduled deletion back. The key stays Disabled.
func (s *Service) CancelKeyDeletion(ctx context.Context, caller Caller, in CancelKeyDeletionInput) (CancelKeyDeletionOutput, error) {
	return do(ctx, s, caller, "CancelKeyDeletion", target{ref: in.KeyID}, func(ctx context.Context, c *call) (CancelKeyDeletionOutput, error) {
		_, err := s.change(ctx, c.key.ID, func(k *Key) error {
			if err := s.still(c, k); err != nil {
				return err
			}
			if k.Set != nil && k.Set.Told() {
				return refuse(ErrInvalidState, "%s was deleted before: other Regions know that, so it cannot be kept.", k.arn)
			}
			to := keystate.Disabled
			if k.Current.IsZero() && k.Origin == OriginToken {
				to = keystate.Creating // a replica key that never had its materials
			}
			if err := keystate.Transition(k.State, to); err != nil {
				return refuse(ErrInvalidState, "%s cannot be kept now.", k.arn)
			}
			k.State = to
			k.unschedule()
			return nil
		}, nil)
		return CancelKeyDeletionOutput{KeyID: c.key.arn}, err
	})
}

// EventDeleteKey is the audit event of a deletion that came due.
const EventDeleteKey = "DeleteKey"

// deletionDue returns when the key is to be deleted, or the zero time.
func (k *Key) deletionDue() time.Time {
	switch {
	case k.State != keystate.PendingDeletion || k.Gone():
		return time.Time{}
	case k.Set != nil && k.Set.Told() && k.DeletionDate.IsZero():
		return k.Created // it was deleted before, in a past that this Region was restored from
	}
	return k.DeletionDate
}

// deleteDue deletes a key whose date has come: a tombstone takes the place of its row in
// one transaction, and from then on nothing brings it back; then the objects that the
// tombstone names are destroyed. What a crash leaves of them the next start destroys, and
// what the token refuses is tried again.
func (s *Service) deleteDue(ctx context.Context, id arn.KeyID) error {
	k := s.view.key(id)
	if k == nil || k.deletionDue().IsZero() || s.kept(k) {
		return nil
	}
	if k.Set != nil {
		return s.deleteShared(ctx, k)
	}
	cause := Cause{Event: EventDeleteKey}
	details := map[string]string{"deletionDate": k.DeletionDate.Format(time.RFC3339)}
	if err := s.auditBegun(ctx, cause, k.Account, id, details); err != nil {
		return err
	}
	t, err := s.entomb(ctx, id)
	if errors.Is(err, ErrUnchanged) {
		return nil // it was cancelled meanwhile
	}
	if err != nil {
		return s.auditEvent(ctx, cause, k.Account, id, details, err)
	}
	s.step("delete", "tombstone")
	s.grave.add(id, t) // the worker goes on there
	return nil
}

// entomb puts a tombstone in the place of the key's row. Aliases, grants and what is known of
// its use go with it.
func (s *Service) entomb(ctx context.Context, id arn.KeyID) (tombstone, error) {
	e := s.view.entry(id)
	if e == nil {
		return tombstone{}, ErrUnchanged
	}
	e.install.Lock() // no material arrives that the tombstone does not name
	defer e.install.Unlock()
	e.change.Lock()
	defer e.change.Unlock()
	k := e.key.Load()
	if k == nil || k.deletionDue().IsZero() || s.now().Before(k.deletionDue()) {
		return tombstone{}, ErrUnchanged
	}
	t := tombstone{account: k.Account}
	for _, m := range k.Materials {
		t.objects = append(t.objects, m.Object) // of lost ones, too: they may come back
	}
	s.commits.Lock()
	defer s.commits.Unlock()
	err := s.update(ctx, func(tx *seal.Tx) error {
		if err := tx.Delete(kindUsage, string(id)); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err := tx.Put(kindTombstone, string(id), t.encode()); err != nil {
			return err
		}
		return tx.Delete(kindKey, string(id))
	})
	if err != nil {
		return tombstone{}, fmt.Errorf("storing the tombstone of key %s: %w", id, err)
	}
	s.view.remove(k)
	return t, nil
}

// grave has the tombstones whose objects may still be in the token. It belongs to the
// worker.
type grave struct{ open map[arn.KeyID]tombstone }

func (g *grave) add(id arn.KeyID, t tombstone) {
	if g.open == nil {
		g.open = map[arn.KeyID]tombstone{}
	}
	g.open[id] = t
}

// bury destroys the objects of a deleted key, and records that they are gone.
func (s *Service) bury(ctx context.Context, id arn.KeyID) error {
	t, ok := s.grave.open[id]
	if !ok {
		return nil
	}
	for _, object := range t.objects {
		if err := s.token.Destroy(ctx, object); err != nil {
			return fmt.Errorf("destroying object %s of deleted key %s: %w", object, id, err)
		}
		s.step("delete", "token")
	}
	delete(s.grave.open, id)
	details := map[string]string{"objectsDestroyed": strconv.Itoa(len(t.objects))}
	s.log.WithField("key", id).WithField("objects", len(t.objects)).Info("key deleted, and its material destroyed")
	return s.auditEvent(ctx, Cause{Event: EventDeleteKey}, t.account, id, details, nil)
}

// buried records what the start has destroyed of a key that was deleted before.
func (s *Service) buried(ctx context.Context, id arn.KeyID, t tombstone, destroyed []hsm.ID) error {
	n := 0
	for _, object := range t.objects {
		if slices.Contains(destroyed, object) {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	details := map[string]string{"objectsDestroyed": strconv.Itoa(n), "at": "start"}
	return s.auditEvent(ctx, Cause{Event: EventDeleteKey}, t.account, id, details, nil)
}
