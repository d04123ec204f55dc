package mrk

import (
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/region"
)

var (
	// ErrPrimary means that the primary key is to be destroyed by a rule that is for replicas.
	ErrPrimary = errors.New("the primary key is here")
	// ErrUnconfirmed means that no acting primary Region has just confirmed that it holds
	// everything that is held here.
	ErrUnconfirmed = errors.New("not confirmed that the primary Region holds all that is held here")
	// ErrPresent means that another Region has, or may have, a key of the set.
	ErrPresent = errors.New("another Region may have the key")
)

// Question asks a Region to confirm what it is to a key and what it holds, freshly: the
// nonce is new, and the signed answer repeats it.
type Question struct {
	Key   arn.KeyID
	Held  []material.ID // what the asking Region holds
	Nonce Nonce
}

// Confirmation answers a Question.
type Confirmation struct {
	From   region.Name
	Nonce  Nonce         // the question's
	Exists bool          // there is a key, not deleted, in that Region
	Acting bool          // it acts as the primary Region
	Held   []material.ID // of the materials that were asked for
}

// Ask returns the question whose answer lets the key here be destroyed.
func (s *Set) Ask(nonce Nonce) Question {
	q := Question{Key: s.key, Nonce: nonce}
	if s.Own() != nil {
		q.Held = s.holds()
	}
	return q
}

// Confirm answers a question. What this Region is destroying it does not hold.
func (s *Set) Confirm(q Question) Confirmation {
	c := Confirmation{From: s.self.Region, Nonce: q.Nonce, Acting: s.Acting()}
	own := s.Own()
	if own == nil {
		return c
	}
	c.Exists = s.incarnation > 0 && !own.Deleted
	if s.destroying {
		return c
	}
	held := s.holds()
	for _, id := range q.Held {
		if held.has(id) {
			c.Held = append(c.Held, id)
		}
	}
	return c
}

// BeginDestruction decides that the replica's objects are destroyed now (rule 22): an acting
// primary Region other than this one has just confirmed, with the nonce of the question,
// that it holds everything that is held here. There is no way back. A key that holds nothing
// needs no confirmation. That the deletion is due is the caller's to know.
func (s *Set) BeginDestruction(nonce Nonce, c Confirmation) error {
	own := s.Own()
	if own == nil || len(s.chain) == 0 {
		return fmt.Errorf("%w: nothing is known of the key", ErrGap)
	}
	held := s.holds()
	if guard22Primary.Stops(s.Primary() == s.self.Region && !(s.told && len(held) == 0)) {
		return ErrPrimary
	}
	if len(held) > 0 {
		switch {
		case guard22Nonce.Stops(c.Nonce != nonce || nonce == Nonce{}):
			return fmt.Errorf("%w: an answer to another question", ErrUnconfirmed)
		case guard22Confirmed.Stops(!c.Acting || c.From == s.self.Region):
			return fmt.Errorf("%w: %s does not act as the primary Region", ErrUnconfirmed, c.From)
		case guard22Holds.Stops(!held.within(newIDSet(c.Held))):
			return fmt.Errorf("%w: %s lacks some", ErrUnconfirmed, c.From)
		}
	}
	s.destroying = true
	s.offer = nil
	return nil
}

// BeginSetDestruction decides that the primary key's objects are destroyed now (rule 24): no
// member is left but evicted ones, and every other Region of the deployment, evicted ones
// excepted, has just answered that it has no such key. There is no way back.
func (s *Set) BeginSetDestruction(c Contact, nonce Nonce, answers []Confirmation) error {
	st, err := s.manage()
	if err != nil {
		return err
	}
	for _, e := range st.Members {
		if e.Region != s.self.Region && guard24Members.Stops(e.Status.In() && !s.gone(e)) {
			return fmt.Errorf("%w: %s is %s", ErrPresent, e.Region, e.Status)
		}
	}
	absent := map[region.Name]bool{}
	for _, a := range answers {
		if a.Nonce == nonce && nonce != (Nonce{}) {
			absent[a.From] = !a.Exists
		}
	}
	for _, r := range c.Regions {
		out := st.Entry(r).Status == Evicted || st.Entry(r).Status == Retained
		if r != s.self.Region && guard24Absent.Stops(!out && !absent[r]) {
			return fmt.Errorf("%w: %s has not just answered that it has none", ErrPresent, r)
		}
	}
	s.destroying = true
	return nil
}

// Destroying reports whether the destruction of the objects here has begun. It is finished
// after every start until OwnFacts says Deleted.
func (s *Set) Destroying() bool { return s.destroying }
