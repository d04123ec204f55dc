package mrk

import (
	"context"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/keyops/material"
)

// Keys of origin EXTERNAL: materials are listed like others, and their bytes do not travel.

// ListImported lists a material that was imported here (EXTERNAL keys). The first one is
// current at once: replicas wait for their own import anyway. A later one is pending until
// ReleaseImported.
func (s *Set) ListImported(ctx context.Context, signer Signer, m Listed) error {
	if s.state == nil || !s.external() {
		return fmt.Errorf("%w: materials of this key are not imported", ErrMaterial)
	}
	if !s.state.Current.IsZero() {
		return s.rotate(ctx, signer, m, true) // the release is by hand, and says how many hold it
	}
	st, err := s.manage()
	if err != nil {
		return err
	}
	if err := s.list(st, m); err != nil {
		return err
	}
	l := st.listed(m.ID)
	l.Released, l.Holders = l.Created, 1
	st.Current = m.ID
	return s.publish(ctx, signer, st)
}

// CancelPending takes a pending import back (EXTERNAL keys). Nobody has encrypted with it,
// since only this Region could have released it. Who holds it and finds it listed no more
// may delete it.
func (s *Set) CancelPending(ctx context.Context, signer Signer) error {
	st, err := s.manage()
	switch {
	case err != nil:
		return err
	case st.Pending.IsZero():
		return fmt.Errorf("%w: no material is pending", ErrNothing)
	case !s.external():
		return fmt.Errorf("%w: a rotation that has begun ends by itself", ErrPending)
	}
	st.Materials = slices.DeleteFunc(st.Materials, func(m Listed) bool { return m.ID == st.Pending })
	st.Pending, s.alone = material.ID{}, material.ID{}
	return s.publish(ctx, signer, st)
}

// ReleaseImported makes the pending import current, if every awaited member has imported it
// (rule 8 for EXTERNAL keys, whose owner says when). It returns how many Regions hold it.
func (s *Set) ReleaseImported(ctx context.Context, signer Signer, c Contact) (holders int, err error) {
	st, err := s.manage()
	switch {
	case err != nil:
		return 0, err
	case st.Pending.IsZero() || !s.external():
		return 0, fmt.Errorf("%w: no import is pending", ErrNothing)
	case guard8Heard.Stops(!s.heardAll(c)):
		return 0, ErrNotHeard
	}
	holding, awaited := s.barrier(st)
	if guard8Holds.Stops(len(awaited) > 0) {
		return 0, fmt.Errorf("%w: %v", ErrAwaited, awaited)
	}
	s.releaseTo(st, c, len(holding))
	return len(holding), s.publish(ctx, signer, st)
}

// Orphans returns the imported materials that members say they have used and that the newest
// state does not list, sorted: another Region had been promoted, or a backup has made the
// primary Region forget them. Whoever has used one needs it, and nobody else can be given it
// but by its owner. A member that names what never was harms nothing but its own status.
func (s *Set) Orphans() (ids []material.ID) {
	if s.state == nil || !s.external() {
		return nil
	}
	for _, m := range s.Members() {
		if m.Fact == nil || m.Fact.Incarnation != m.Incarnation {
			continue
		}
		for _, id := range m.Fact.Used {
			if s.state.listed(id) == nil {
				ids = append(ids, id)
			}
		}
	}
	return newIDSet(ids)
}

// Relist lists a material again that members have used and no state lists, and that its owner
// has imported here: whoever has the bytes has shown that it is no invention. It is neither
// pending nor current, and the others wait for its import.
func (s *Set) Relist(ctx context.Context, signer Signer, m Listed) error {
	st, err := s.manage()
	if err != nil {
		return err
	}
	if !slices.Contains(s.Orphans(), m.ID) {
		return fmt.Errorf("%w: %s", ErrUnlisted, m.ID)
	}
	if known, ok := s.Known(m.ID); ok {
		m = known
	} else {
		m.Reason = ReasonTakenBack
	}
	if err := s.list(st, m); err != nil {
		return err
	}
	return s.publish(ctx, signer, st)
}
