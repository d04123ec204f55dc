package keyops

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/store"
)

// The deletion of multi-Region keys. Nothing destroys the last copy of a material: a replica
// key is destroyed once the acting primary Region has just confirmed that it holds all that
// is held here (rule 22), a primary key once every other Region has just answered that it
// has no such key (24). The row of a key that is gone stays: the Regions that knew of it
// have to hear that it is deleted, whenever they can be reached again.

// Gone reports whether a multi-Region key was deleted here.
func (k *Key) Gone() bool { return !k.Deleted.IsZero() }

// hasReplicas reports whether another Region has, or is to have, a replica key.
func (k *Key) hasReplicas() bool {
	for _, m := range k.Set.Members() {
		if m.Region != k.Set.Self().Region {
			return true
		}
	}
	return false
}

// lastReplicaGone begins the waiting period of a primary key that waited for its replica
// keys to be deleted.
func (k *Key) lastReplicaGone(now time.Time) {
	if k.State == keystate.PendingReplicaDeletion && k.Set.Acting() && !k.hasReplicas() {
		k.State = keystate.PendingDeletion
		k.DeletionDate = now.Add(time.Duration(k.PendingDays) * day)
	}
}

// errNotDueThere means that another Region's clock has not reached the date: one of the two
// is wrong, and a wrong clock must not destroy keys.
var errNotDueThere = errors.New("by the clock of another Region the deletion is not due yet")

// deleteShared deletes a multi-Region key whose date has come. What it needs to know of
// other Regions it asks them now; if they do not answer, it is tried again.
func (s *Service) deleteShared(ctx context.Context, k *Key) error {
	begin, err := s.confirmed(ctx, k)
	if err != nil {
		return err
	}
	cause := Cause{Event: EventDeleteKey}
	details := map[string]string{"deletionDate": k.deletionDue().Format(time.RFC3339)}
	if err := s.auditBegun(ctx, cause, k.Account, k.ID, details); err != nil {
		return err
	}
	e := s.view.entry(k.ID)
	if e == nil {
		return nil
	}
	e.install.Lock() // no material arrives that the row does not list
	defer e.install.Unlock()
	now, err := s.change(ctx, k.ID, func(k *Key) error {
		if due := k.deletionDue(); due.IsZero() || s.now().Before(due) || s.kept(k) {
			return ErrUnchanged // cancelled meanwhile
		}
		if err := begin(k.Set); err != nil {
			return fmt.Errorf("deciding the destruction of key %s: %w", k.ID, err)
		}
		k.Deleted, k.Aliases, k.Grants = s.now(), nil, nil
		return nil
	}, func(tx *seal.Tx) error {
		if err := tx.Delete(kindUsage, string(k.ID)); !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return nil
	})
	if err != nil {
		return s.auditEvent(ctx, cause, k.Account, k.ID, details, err)
	}
	if !now.Gone() {
		return nil
	}
	s.step("delete", "tombstone")
	return s.buryShared(ctx, k.ID)
}

// confirmed asks the other Regions, and returns what decides the destruction with their
// answers.
func (s *Service) confirmed(ctx context.Context, k *Key) (func(*mrk.Set) error, error) {
	nonce, err := mrk.NewNonce(rand.Reader)
	if err != nil {
		return nil, err
	}
	q := k.Set.Ask(nonce)
	if k.Set.Primary() != s.self.Region || k.Set.Told() {
		var c mrk.Confirmation
		if len(q.Held) > 0 {
			if c, err = s.confirm(ctx, k, k.Set.Primary(), q); err != nil {
				return nil, err
			}
		}
		return func(set *mrk.Set) error { return set.BeginDestruction(nonce, c) }, nil
	}
	contact := s.contact(k)
	var answers []mrk.Confirmation
	for _, r := range contact.Regions {
		if status := k.Set.Entry(r).Status; r == s.self.Region || status == mrk.Evicted || status == mrk.Retained {
			continue
		}
		c, err := s.confirm(ctx, k, r, q)
		if err != nil {
			return nil, err
		}
		answers = append(answers, c)
	}
	return func(set *mrk.Set) error { return set.BeginSetDestruction(contact, nonce, answers) }, nil
}

// confirm asks one Region, whose clock has a say as well.
func (s *Service) confirm(ctx context.Context, k *Key, r region.Name, q mrk.Question) (mrk.Confirmation, error) {
	if s.peers == nil {
		return mrk.Confirmation{}, fmt.Errorf("asking Region %s about key %s: %w: it is not configured", r, k.ID, ErrPeerUnreachable)
	}
	c, there, err := s.peers.Confirm(ctx, r, q)
	if err != nil {
		return c, fmt.Errorf("asking Region %s about key %s: %w", r, k.ID, err)
	}
	if guard22Everywhere.Stops(there.Before(k.deletionDue())) {
		return c, fmt.Errorf("key %s: %w: it is %s in Region %s", k.ID, errNotDueThere, there.UTC().Format(time.RFC3339), r)
	}
	return c, nil
}

// contact is whom this Region has heard about a key.
func (s *Service) contact(k *Key) mrk.Contact {
	if s.peers == nil {
		return s.aloneContact(k)
	}
	return s.peers.Contact(k.ID)
}

// burialDue returns when the objects of a key that is gone are destroyed: at once, until
// they are.
func (k *Key) burialDue() time.Time {
	if k.Gone() && len(k.Held()) > 0 {
		return k.Deleted
	}
	return time.Time{}
}

// buryShared destroys the objects of a key that is gone, and records that they are. The row
// goes on listing them: a token that is restored may bring them back.
func (s *Service) buryShared(ctx context.Context, id arn.KeyID) error {
	k := s.view.fact(id)
	if k == nil || k.burialDue().IsZero() {
		return nil
	}
	for _, m := range k.Materials {
		if err := s.token.Destroy(ctx, m.Object); err != nil {
			return fmt.Errorf("destroying object %s of deleted key %s: %w", m.Object, id, err)
		}
		s.step("delete", "token")
	}
	if _, err := s.change(ctx, id, func(k *Key) error {
		for i := range k.Materials {
			k.Materials[i].Lost = true
		}
		return nil
	}, nil); err != nil {
		return err
	}
	s.log.WithField("key", id).WithField("objects", len(k.Materials)).Info("key deleted, and its material destroyed")
	details := map[string]string{"objectsDestroyed": strconv.Itoa(len(k.Materials))}
	return s.auditEvent(ctx, Cause{Event: EventDeleteKey}, k.Account, id, details, nil)
}

// destroyAgain destroys what the token still holds, or holds again, of keys that are gone.
func (s *Service) destroyAgain(ctx context.Context, objects map[hsm.ID]hsm.Object) error {
	for _, k := range s.view.facts() {
		if !k.Gone() {
			continue
		}
		for _, m := range k.Materials {
			if _, there := objects[m.Object]; !there {
				continue
			}
			if err := s.token.Destroy(ctx, m.Object); err != nil {
				return fmt.Errorf("destroying object %s of deleted key %s: %w", m.Object, k.ID, err)
			}
			s.found.Destroyed = append(s.found.Destroyed, fmt.Sprintf("%s of %s", m.Object, k.ID))
		}
	}
	return nil
}
