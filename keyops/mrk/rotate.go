package mrk

import (
	"context"
	"fmt"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/region"
)

// Rotate lists a new material, which this Region's token holds already, as pending (rule 7).
// If the key has other members, but none that is awaited, the material would become current
// in this token alone: that is ErrAlone, and RotateAlone accepts it.
func (s *Set) Rotate(ctx context.Context, signer Signer, m Listed) error {
	return s.rotate(ctx, signer, m, false)
}

// RotateAlone is Rotate by somebody who accepts that the material may become current while
// only this Region's token holds it.
func (s *Set) RotateAlone(ctx context.Context, signer Signer, m Listed) error {
	return s.rotate(ctx, signer, m, true)
}

func (s *Set) rotate(ctx context.Context, signer Signer, m Listed, alone bool) error {
	st, err := s.manage()
	switch {
	case err != nil:
		return err
	case guard7Enabled.Stops(!s.enabled()):
		return ErrNotEnabled
	case guard7Pending.Stops(!st.Pending.IsZero()):
		return fmt.Errorf("%w: %s", ErrPending, st.Pending)
	case guard7Alone.Stops(!alone && s.lonely(st)):
		return ErrAlone
	}
	if err := s.list(st, m); err != nil {
		return err
	}
	st.Pending = m.ID
	if err := s.publish(ctx, signer, st); err != nil {
		return err
	}
	s.alone = material.ID{}
	if alone {
		s.alone = m.ID
	}
	return nil
}

// AcceptAlone lets the pending material become current although no other Region holds it,
// for a rotation that others have left since it began.
func (s *Set) AcceptAlone() error {
	if _, err := s.manage(); err != nil {
		return err
	}
	if s.state.Pending.IsZero() {
		return fmt.Errorf("%w: no material is pending", ErrNothing)
	}
	s.alone = s.state.Pending
	return nil
}

// lonely reports whether a release would await nobody although the key has other members. A
// key that was never replicated is in one token whatever is done.
func (s *Set) lonely(st *State) bool {
	in, awaited := 0, 0
	for _, e := range st.Members {
		if e.Region == s.self.Region || s.gone(e) {
			continue
		}
		if e.Status.In() {
			in++
		}
		if e.Status.Awaited() {
			awaited++
		}
	}
	return in > 0 && awaited == 0
}

// Progress says how far a rotation has come.
type Progress struct {
	Pending material.ID
	Holding []region.Name // this Region and every awaited one that holds it; sorted
	Awaited []region.Name // those that a release waits for, because they have not proven to hold it; sorted
	Out     []region.Name // members that are not waited for: joining or suspended; sorted
	Alone   bool          // nobody else is waited for, and nobody has accepted that
}

// Progress returns how far the rotation has come that is under way, or false.
func (s *Set) Progress() (Progress, bool) {
	if s.Pending().IsZero() {
		return Progress{}, false
	}
	p := Progress{Pending: s.state.Pending}
	p.Holding, p.Awaited = s.barrier(s.state)
	for _, e := range s.state.Members {
		if e.Status.In() && !e.Status.Awaited() && !s.gone(e) {
			p.Out = append(p.Out, e.Region)
		}
	}
	p.Alone = s.lonely(s.state) && s.alone != p.Pending && !s.external()
	return p, true
}

// barrier returns the Regions that hold the pending material and those that a release
// waits for. The primary Region holds what it has made pending.
func (s *Set) barrier(st *State) (holding, awaited []region.Name) {
	for _, e := range st.Members {
		m := s.members[e.Region]
		switch {
		case e.Region == st.Epoch.Region:
			holding = append(holding, e.Region)
		case !e.Status.Awaited() || s.gone(e):
		case m == nil || guard8Joined.Stops(!s.joined(st, e)) || guard8Holds.Stops(!m.Holds(st.Pending)):
			awaited = append(awaited, e.Region)
		default:
			holding = append(holding, e.Region)
		}
	}
	return holding, awaited
}

// SetRotation writes the rotation setting, which all Regions share.
func (s *Set) SetRotation(ctx context.Context, signer Signer, r Rotation) error {
	st, err := s.manage()
	if err != nil {
		return err
	}
	if st.Rotation == r {
		return nil
	}
	st.Rotation = r
	return s.publish(ctx, signer, st)
}
