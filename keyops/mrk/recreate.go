package mrk

import (
	"fmt"

	"github.com/keyferry/keyferry/keyops/material"
)

// Recreate makes the set of a key that this Region has had, and of which its store knows
// nothing any more: it comes from a backup of before the key. The proof is this Region's own
// fact, which no peer can write, and a state that still lists it. used is what the key
// encrypted with here, and must stay in its member fact. Without the proof, or if the fact
// says that the key was deleted, the error wraps ErrRequest: then only a create request makes
// the key.
func Recreate(self Self, v Verifier, f Facts) (set *Set, used []material.ID, err error) {
	var own *Member
	for _, m := range f.Members {
		if m.Region == self.Region && m.Instance == self.Instance && (own == nil || m.Compare(own) > 0) {
			own = m
		}
	}
	if own == nil || own.Deleted {
		return nil, nil, fmt.Errorf("%w: this Region never said that it has the key, or has said that it was deleted", ErrRequest)
	}
	s := newSet(self, f.Key)
	res, err := s.Merge(v, f)
	if err != nil {
		return nil, nil, err
	}
	if len(res.Refused) > 0 { // its own fact among them, if the signature is not its own
		return nil, nil, res.Refused[0].Err
	}
	if s.state == nil || s.state.Epoch != s.Epoch() {
		return nil, nil, fmt.Errorf("%w: no state of the newest epoch", ErrGap)
	}
	e := s.Entry(self.Region)
	if !e.Status.In() || e.Instance != self.Instance || guard3Recreated.Stops(e.Incarnation != own.Incarnation) {
		return nil, nil, fmt.Errorf("%w: incarnation %d is %s in the state, this Region had %d", ErrRequest, e.Incarnation, e.Status, own.Incarnation)
	}
	s.incarnation, s.floor = own.Incarnation, own.Counter
	return s, own.Used, nil
}
