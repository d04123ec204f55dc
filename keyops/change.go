package keyops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/store"
)

// update runs one sealed transaction. When its outcome is unknown nothing in memory can be
// trusted to match the disk, so the service stops writing: only a new start knows more.
func (s *Service) update(ctx context.Context, fn func(*seal.Tx) error) error {
	err := s.book.Update(ctx, fn)
	if errors.Is(err, store.ErrOutcomeUnknown) || errors.Is(err, store.ErrLeaseLost) {
		s.fail(err)
	}
	return err
}

// change changes one key: a copy is made, fn changes it, and once the copy is durable it is
// published. extra, if not nil, runs in the same transaction and may refuse. If fn returns
// ErrUnchanged nothing is written and the present key is returned.
func (s *Service) change(ctx context.Context, id arn.KeyID, fn func(*Key) error, extra func(*seal.Tx) error) (*Key, error) {
	e := s.view.entry(id)
	if e == nil {
		return nil, fmt.Errorf("key %s: %w", id, ErrNotFound)
	}
	e.change.Lock()
	defer e.change.Unlock()
	old := e.key.Load()
	if old == nil {
		return nil, fmt.Errorf("key %s: %w", id, ErrNotFound)
	}
	return s.changeLocked(ctx, old, fn, extra)
}

// changeLocked is change for who holds the key's lock.
func (s *Service) changeLocked(ctx context.Context, old *Key, fn func(*Key) error, extra func(*seal.Tx) error) (*Key, error) {
	k := old.clone()
	switch err := fn(k); {
	case errors.Is(err, ErrUnchanged):
		return old, nil
	case err != nil:
		return nil, err
	}
	if err := s.settle(ctx, old, k); err != nil {
		return nil, err
	}
	if err := s.commit(ctx, extra, pair{old, k}); err != nil {
		return nil, err
	}
	s.step("change", "outcome")
	return k, nil
}

// settle draws the conclusions of a change to a shared key: what its newest facts say of
// this Region's key, and this Region's own fact.
func (s *Service) settle(ctx context.Context, old, k *Key) error {
	if k.Set == nil {
		k.followImports(s.clock())
		return nil
	}
	if !k.Gone() {
		k.follow(old, s.now())
		s.keepUsable(old, k)
	}
	own := mrk.OwnFacts{Held: k.Held(), Used: k.Used, KeyState: string(k.State), Spent: k.spent(), Deleted: k.Gone()}
	if !k.DeletionDate.IsZero() {
		own.Deleting = k.DeletionDate.Unix()
	}
	if m := k.Material(k.Current); m != nil && !m.Lost {
		own.Current = k.Current
	}
	if _, err := k.Set.Reissue(ctx, s.Signer(), own); err != nil {
		return fmt.Errorf("reissuing the member fact of key %s: %w", k.ID, err)
	}
	return nil
}

// follow draws the conclusions for this Region's key.
func (k *Key) follow(old *Key, now time.Time) {
	// Rule 9: who holds the material that the primary Region calls current encrypts with it,
	// and has it among the used ones in the same transaction.
	if current := k.Set.Current(); !current.IsZero() {
		if m := k.Material(current); !guard9Held.Stops(m == nil || m.Lost) {
			k.makeCurrent(current)
		}
	}
	k.followImports(now)
	k.handOver()
	k.lastReplicaGone(now)
	k.withhold(old)
	switch {
	case k.Set.Told(): // rule 20: others know that this incarnation was deleted
		k.State = keystate.PendingDeletion
	case old != nil && k.Set.Incarnation() > old.Set.Incarnation():
		k.State = keystate.Creating
		if k.setAside(old) {
			k.State = keystate.Disabled
		}
	case k.Set.Shut() && k.State == keystate.Enabled: // rule 25
		k.State = keystate.Disabled
	}
	if k.State == keystate.Creating && k.Set.Ready(k.Held()) { // rule 6
		k.State = keystate.Enabled
		if k.Origin == OriginExternal {
			k.State = keystate.PendingImport
			k.followImports(now) // an incarnation begins with what the one before imported
		}
	}
	if k.State != keystate.PendingDeletion && k.State != keystate.PendingReplicaDeletion {
		k.unschedule()
	}
	k.recount()
}

// setAside reports whether clients of this Region had disabled the key, or scheduled its
// deletion, before another incarnation of it began: only they make it usable again. The
// deletion was of the incarnation before. A key that was evicted is Disabled because of that,
// and usable again once it is listed, unless clients had their reasons, too: else a primary
// Region could enable what was disabled here by evicting it first.
func (k *Key) setAside(old *Key) bool {
	if old.Set.Shut() {
		return old.Withheld && !old.Set.Told()
	}
	return old.off() && !old.Set.Told()
}

// withhold keeps what clients of this Region have said of a key for as long as it is evicted.
func (k *Key) withhold(old *Key) {
	switch {
	case !k.Set.Shut():
		k.Withheld = false
	case k.State == keystate.PendingDeletion, old != nil && !old.Set.Shut() && old.off():
		k.Withheld = true
	}
}

// off reports whether the key is out of use until clients say otherwise.
func (k *Key) off() bool { return k.State == keystate.Disabled || k.State == keystate.PendingDeletion }

// handOver follows what becomes of a hand-over, at both of its ends, and of a primary key
// that another Region has taken over (rule 16). A clock never starts because of that: who
// wanted the whole set deleted says so to the new primary Region.
func (k *Key) handOver() {
	_, offering := k.Set.Offered()
	_, considering := k.Set.Considering()
	switch updating := offering || considering; {
	case updating && k.State == keystate.Enabled:
		k.State = keystate.Updating
	case guard16Updating.Stops(!updating && k.State == keystate.Updating):
		k.State = keystate.Enabled
	case guard16Deletion.Stops(k.State == keystate.PendingReplicaDeletion && k.Set.Primary() != k.Set.Self().Region):
		k.State = keystate.Disabled
	}
}

// pair is a key before and after a change; old is nil for a new key.
type pair struct{ old, now *Key }

// commit makes changed keys durable in one transaction and publishes them together. extra,
// if not nil, runs in the same transaction and may refuse.
func (s *Service) commit(ctx context.Context, extra func(*seal.Tx) error, pairs ...pair) error {
	for _, p := range pairs {
		if err := s.prepare(p.now); err != nil {
			return err
		}
		p.now.Version = 1
		if p.old != nil {
			p.now.Version = p.old.Version + 1
		}
	}
	// Publication follows the commit under one lock, so that what a transaction reads in
	// memory is what the one before it made durable.
	s.commits.Lock()
	defer s.commits.Unlock()
	var marks []Mark
	for _, p := range pairs {
		if p.old == nil || p.old.Gone() && !p.now.Gone() {
			if err := s.thawed(); err != nil { // an instance is frozen under the same lock
				return err
			}
		}
		marks = append(marks, s.marks.due(p.old, p.now, s.clock())...)
	}
	err := s.update(ctx, func(tx *seal.Tx) error {
		if extra != nil {
			if err := extra(tx); err != nil {
				return err
			}
		}
		for _, m := range marks {
			if err := tx.Put(store.KindMark, m.row(), m.encode()); err != nil {
				return err
			}
		}
		for _, p := range pairs {
			if err := tx.Put(kindKey, string(p.now.ID), p.now.encode()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("storing key %s: %w", pairs[0].now.ID, err)
	}
	keys := make([]*Key, len(pairs))
	for i, p := range pairs {
		keys[i] = p.now
	}
	s.view.publish(keys...)
	s.marks.set(marks)
	if s.syncs.own.Load() != nil && slices.ContainsFunc(pairs, func(p pair) bool { return p.old == nil }) {
		s.syncs.poke() // a new key: all resources may mean it, too
	}
	return nil
}

// prepare completes what a key holds in memory only.
func (s *Service) prepare(k *Key) error {
	if k.policy == nil || !bytes.Equal(k.Policy, k.parsed) {
		p, err := policy.Parse(k.Policy, policy.KeyPolicy)
		if err != nil {
			return fmt.Errorf("policy of key %s: %w", k.ID, err)
		}
		k.policy, k.parsed = p, slices.Clone(k.Policy)
	}
	for i := range k.Materials {
		if k.Materials[i].watch == nil {
			k.Materials[i].watch = &watch{}
		}
		if k.Set != nil {
			k.Materials[i].elsewhere = k.Set.SpentElsewhere(k.Materials[i].ID)
		}
	}
	if k.used == nil {
		k.used = &usage{}
	}
	k.indexGrants()
	k.arn = s.keyARN(k.Account, k.ID)
	return k.check()
}
