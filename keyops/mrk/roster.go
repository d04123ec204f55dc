package mrk

import (
	"context"
	"fmt"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/region"
)

// What operators decide about members and materials. That they have approved it is the
// caller's to check, before: these states are one Region's word like all others.

// Suspend stops waiting for a member that is dark (rule 10). It comes back by itself.
func (s *Set) Suspend(ctx context.Context, signer Signer, r region.Name) error {
	st, err := s.manage()
	if err != nil {
		return err
	}
	e := st.Entry(r)
	if r == s.self.Region || !e.Status.In() || s.gone(e) {
		return fmt.Errorf("%w: %s", ErrNotMember, r)
	}
	if e.Status == Suspended {
		return nil
	}
	e.Status = Suspended
	st.setEntry(e)
	return s.publish(ctx, signer, st)
}

// Evict ends a Region's membership (rule 25). Its key is Disabled when it hears of it, and
// the Region may be replicated to again. Of a disassociated instance the key stays usable:
// retained.
//
// A member that has contradicted itself, and does not number past that, would keep the key
// frozen for ever: it can be evicted all the same, and that ends it.
func (s *Set) Evict(ctx context.Context, signer Signer, r region.Name, retained bool) error {
	manage := s.manage
	f := s.frozen
	thaws := f != nil && f.Cause == CauseEquivocation && f.Epoch.IsZero() && f.Writer == r
	if thaws {
		manage = s.write
	}
	st, err := manage()
	if err != nil {
		return err
	}
	if thaws {
		s.demote(st, Contact{}) // nobody was, while the key was frozen
	}
	e := st.Entry(r)
	if r == s.self.Region || guard25Member.Stops(!e.Status.In()) {
		return fmt.Errorf("%w: %s", ErrNotMember, r)
	}
	e.Status = Evicted
	if retained {
		e.Status = Retained
	}
	st.setEntry(e)
	if err := s.publish(ctx, signer, st); err != nil {
		return err
	}
	s.thaw(nil, &Result{})
	return nil
}

// WriteOff gives a material up that is in no token any more, so that members which once
// used it can be active again. What was encrypted with it is lost. Every Region has been
// heard and none says that it holds it; if one finds it later, it is taken back.
func (s *Set) WriteOff(ctx context.Context, signer Signer, id material.ID, c Contact) error {
	st, err := s.manage()
	if err != nil {
		return err
	}
	switch {
	case guardWriteOffAll.Stops(!s.heardAll(c)):
		return ErrNotHeard
	case guardWriteOffUse.Stops(id == st.Current || id == st.Pending):
		return fmt.Errorf("%w: %s is in use", ErrMaterial, id)
	}
	mentioned := st.listed(id) != nil
	for _, m := range s.sortedMembers() {
		if guardWriteOffHeld.Stops(!m.Deleted && m.Holds(id)) {
			return fmt.Errorf("%w: %s holds %s", ErrMaterial, m.Region, id)
		}
		mentioned = mentioned || idSet(m.Used).has(id)
	}
	if !mentioned {
		return fmt.Errorf("%w: %s", ErrUnlisted, id)
	}
	if st.listed(id) == nil {
		m, known := s.Known(id)
		if !known {
			m = Listed{ID: id, Created: c.Now(), Reason: ReasonTakenBack}
		}
		if err := s.list(st, m); err != nil {
			return err
		}
	}
	if st.listed(id).WrittenOff {
		return nil
	}
	st.listed(id).WrittenOff = true
	return s.publish(ctx, signer, st)
}
