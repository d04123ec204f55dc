package mrk

import (
	"bytes"
	"context"
	"maps"

	"github.com/keyferry/keyferry/keyops/material"
)

// OwnFacts is what the key's own Region adds to a set.
type OwnFacts struct {
	Held     []material.ID // in the token and proven to be what they are called
	Used     []material.ID // ever current here in this incarnation
	Current  material.ID   // what this Region encrypts with; zero if it cannot
	KeyState string        // such as Enabled
	Deleting int64         // Unix seconds at which the deletion is due; 0 if none is
	Deleted  bool          // the objects are destroyed and the key is a tombstone
	Spent    Counts        // how often each material may have encrypted here
}

// Reissue writes and signs this Region's own fact if its contents have changed. The caller
// calls it in every transaction that changes the set or what OwnFacts says.
func (s *Set) Reissue(ctx context.Context, signer Signer, own OwnFacts) (changed bool, err error) {
	if s.incarnation == 0 {
		return false, nil
	}
	if own.Deleted {
		s.told = false // what others say is so
	}
	m := &Member{
		Key: s.key, Region: s.self.Region, Instance: s.self.Instance, Incarnation: s.incarnation,
		Held: newIDSet(own.Held), Used: newIDSet(own.Used),
		Current: own.Current, KeyState: own.KeyState, Deleting: own.Deleting, Deleted: own.Deleted || s.told,
	}
	if s.state != nil {
		m.Joined, m.Seq = s.state.Epoch, s.state.Seq
	}
	if own.Deleted || guardAlive.Stops(s.destroying) {
		m.Held = nil // nobody may count on what is being destroyed
	}
	m.Refused, m.RefusedFor = s.refused, s.refusedFor
	counter := uint64(0)
	if guard20Count.Stops(true) {
		counter = s.floor
	}
	s.spend(own.Spent)
	m.Spent = s.spent
	if old := s.Own(); old != nil && old.Incarnation == s.incarnation {
		m.Counter = old.Counter
		if old.Counter > counter && bytes.Equal(m.payload(), old.signed.Payload) {
			return false, nil
		}
		counter = max(counter, old.Counter)
	}
	m.Counter = counter + 1
	if err := m.Sign(ctx, signer); err != nil {
		return false, err
	}
	s.members = maps.Clone(s.members)
	s.members[s.self.Region] = m
	return true, nil
}
