package mrk

import (
	"errors"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Earlier is a state with the certificates that lead to it from the chain. Who followed it
// shows it, because it lists materials that the newest state does not: the Region that was
// promoted had never heard of them, or the one that wrote it went back to before it and has
// numbered past it. What is encrypted with them stays readable, since whoever sees that a
// valid state listed them takes them in.
type Earlier struct {
	Branch []Certificate // parents before children; empty if the chain has the state's certificate
	State  *State
}

const (
	maxEarlier = 2
	maxBranch  = 32
)

// leave remembers the newest state before another chain takes the place of the present one. What
// leads to the earlier states was partly in the present one.
func (s *Set) leave(next []Certificate) {
	if s.state == nil {
		return
	}
	var all []Earlier
	for _, e := range append([]Earlier{{State: s.state}}, s.earlier...) {
		if e, ok := s.rebased(e, next); ok {
			all = append(all, e)
		}
	}
	s.keep(all)
}

// rebased returns an earlier state, or the newest one, with the certificates that lead to it from
// another chain; false if they are not known or too many.
func (s *Set) rebased(e Earlier, next []Certificate) (Earlier, bool) {
	at := slices.IndexFunc(s.chain, func(c Certificate) bool { return c.Epoch == e.State.Epoch })
	if len(e.Branch) > 0 {
		at = indexOf(s.chain, e.Branch[0].Parent) // none for a line of which nothing before is known
	} else if at < 0 {
		return e, false // of a chain that was left before
	}
	branch := slices.Concat(s.chain[:at+1], e.Branch)
	for len(branch) > 0 && indexOf(next, branch[0].Hash()) >= 0 {
		branch = branch[1:]
	}
	e.Branch = branch
	return e, len(branch) <= maxBranch
}

// keep remembers earlier states to show them to others, the first ones if there are too many.
func (s *Set) keep(all []Earlier) {
	var kept []Earlier
	for _, e := range all {
		if len(kept) < maxEarlier && !slices.ContainsFunc(kept, func(k Earlier) bool { return k.State.Compare(e.State) == 0 }) {
			kept = append(kept, e)
		}
	}
	s.earlier = kept
}

// leaveBehind remembers the newest state if the one that follows it in its epoch lists less.
// Within an epoch nothing made in a token is taken off the list, so the writer has forgotten
// what it wrote. Pending imports are taken back, and nobody shows them.
func (s *Set) leaveBehind(next *State) {
	if s.state != nil && s.state.Epoch == next.Epoch && !s.external() && s.state.exceeds(next) {
		s.leave(s.chain)
	}
}

// forget drops the earlier states of which the newest one lists everything, but for the one
// that shows who admitted this Region, until the newest one lists this Region, too.
func (s *Set) forget() {
	s.earlier = slices.DeleteFunc(slices.Clone(s.earlier), func(e Earlier) bool {
		switch {
		case e.State.Epoch == s.state.Epoch && s.external():
			return true
		case e.State.Epoch.Compare(s.state.Epoch) > 0:
			return false
		case s.admission != nil && s.Entry(s.self.Region).Incarnation < s.incarnation && names(e.Branch, s.admission.Source, s.admission.Instance):
			return false
		}
		return !e.State.exceeds(s.state)
	})
}

// mergeEarlier believes that the materials were listed, and nothing else of the state: a
// former primary Region could write itself in as a member.
func (s *Set) mergeEarlier(v Verifier, e Earlier, res *Result) error {
	if !slices.ContainsFunc(e.State.Materials, func(m Listed) bool { _, known := s.known[m.ID]; return !known }) {
		return nil
	}
	if s.state != nil && !e.State.sameProperties(s.state) {
		return ErrProperties
	}
	if _, err := s.verifyEarlier(v, e); err != nil {
		return err
	}
	res.Changed = s.know(e.State) || res.Changed
	if s.state != nil && e.State.Compare(s.state) < 0 {
		// Who shows it may forget it, and the one that holds the material, too. It takes no room
		// from what this Region has followed itself: a former primary Region writes any number.
		s.keep(append(slices.Clone(s.earlier), e))
	}
	return nil
}

// verifyEarlier returns the chain that ends with the certificate of an earlier state.
func (s *Set) verifyEarlier(v Verifier, e Earlier) ([]Certificate, error) {
	chain := s.chain
	for i, c := range e.Branch {
		if i > 0 && c.Parent != e.Branch[i-1].Hash() {
			return nil, fmt.Errorf("%w: branch of an earlier epoch", ErrCertificate)
		}
		if at := indexOf(s.chain, c.Hash()); at >= 0 {
			chain = s.chain[:at+1] // forgotten where the branch comes from, and not here
			continue
		}
		base, err := s.base(v, c, chain)
		if errors.Is(err, ErrGap) {
			return nil, fmt.Errorf("%w: branch of certificates that are not known here", ErrCertificate)
		}
		if err != nil {
			return nil, err
		}
		chain = append(slices.Clip(base), c)
	}
	at := slices.IndexFunc(chain, func(c Certificate) bool { return c.Epoch == e.State.Epoch })
	if at < 0 {
		return nil, fmt.Errorf("%w: earlier state without its certificate", ErrCertificate)
	}
	if err := v.Verify(chain[at].Epoch.Region, chain[at].Instance, e.State.signed); guard9Earlier.Stops(err != nil) {
		return nil, err
	}
	return chain[:at+1], nil
}

// outranked reports whether the instance was the primary Region in a line that operators
// opened and that another promotion, made at the same time, has outranked: whom it admitted
// meanwhile is a member like any other. Of a branch that no operator has approved nothing is
// believed: a former primary Region could have written it.
func (s *Set) outranked(v Verifier, earlier []Earlier, r region.Name, instance region.InstanceID) bool {
	return slices.ContainsFunc(earlier, func(e Earlier) bool {
		i := slices.IndexFunc(e.Branch, func(c Certificate) bool { return indexOf(s.chain, c.Hash()) < 0 })
		if i < 0 || e.Branch[i].forced == nil || !names(e.Branch[i:], r, instance) {
			return false
		}
		chain, err := s.verifyEarlier(v, e)
		return err == nil && names(chain, r, instance)
	})
}

func (e Earlier) encode(w *wire.Writer) {
	w.Count(len(e.Branch))
	for _, c := range e.Branch {
		c.encode(w)
	}
	w.Bytes(e.State.signed.Marshal())
}

func decodeEarlier(r *wire.Reader) Earlier {
	var e Earlier
	for range r.Count(maxBranch) {
		e.Branch = append(e.Branch, decodeCertificate(r))
		if r.Err() != nil {
			return e
		}
	}
	signed := decodeSigned(r)
	if r.Err() != nil {
		return e
	}
	st, err := parseState(signed)
	if err != nil {
		r.Fail("%v", err)
		return e
	}
	e.State = st
	for _, c := range e.Branch {
		if c.Key != st.Key {
			r.Fail("certificate of another key")
		}
	}
	return e
}

// beside is what a message has room for beside facts: a create request, blobs, an envelope.
const beside = 192 << 10

// fitting returns the earlier states that can be sent beside everything else.
func (s *Set) fitting(f Facts) []Earlier {
	if len(s.earlier) == 0 {
		return nil
	}
	left := min(statement.MaxPayload/4, statement.MaxPayload-beside-len(f.Marshal()))
	var out []Earlier
	for _, e := range s.earlier {
		var w wire.Writer
		if e.encode(&w); len(w.Out()) <= left {
			left -= len(w.Out())
			out = append(out, e)
		}
	}
	return out
}
