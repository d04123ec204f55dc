package mrk

import (
	"fmt"
	"slices"
)

// mergeCertificate takes a certificate that extends the chain, or opens a line that outranks
// it. side holds the certificates of the same message that stand beside the chain, because
// they are of a second successor of one epoch: nothing of them counts, unless operators have
// opened a line after them.
func (s *Set) mergeCertificate(v Verifier, c Certificate, side *[]Certificate, res *Result) error {
	hash := c.Hash()
	if indexOf(s.chain, hash) >= 0 {
		return nil
	}
	first, again := len(s.chain) == 0, s.opensAgain(c)
	outranked := !first && c.Epoch.Line.Compare(s.head().Epoch.Line) < 0
	if outranked && !again {
		return nil // nothing in that line counts any more
	}
	base, err := s.base(v, c, *side)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(base, func(k Certificate) bool { return k.Epoch.Nonce == c.Epoch.Nonce }) {
		return fmt.Errorf("%w: nonce used before", ErrCertificate)
	}
	next := append(slices.Clip(base), c)
	if guard17Once.Stops(again) {
		*side = next
		at := s.Epoch() // only a line above both ends it
		if !outranked {
			at = c.Epoch
		}
		s.freeze(Conflict{Cause: CauseEpochFork, Writer: c.Epoch.Region, Epoch: at, Number: at.Number, Evidence: c.signed.Marshal()}, res)
		return fmt.Errorf("%w: line %d of %s once more by the same approvals", ErrEpochFork, c.Epoch.Line.Generation, c.Epoch.Region)
	}
	if outranked {
		return nil
	}
	outranks := first || c.Epoch.Line.Compare(s.head().Epoch.Line) > 0
	if !outranks && c.Parent != s.Head() {
		at := next[max(0, len(next)-2)]
		if guard16Fork.Stops(true) {
			*side = next
			s.freeze(Conflict{
				Cause: CauseEpochFork, Writer: at.Epoch.Region, Epoch: c.Epoch, Number: c.Epoch.Number, Evidence: c.signed.Marshal(),
			}, res)
			return fmt.Errorf("%w: %s", ErrEpochFork, at.Epoch)
		}
		if c.Epoch.Compare(s.Epoch()) <= 0 {
			return nil
		}
	}
	res.Fenced = res.Fenced || s.sealed != nil || s.permit != Nonce{}
	s.leave(next)
	s.chain, *side = next, nil
	s.fence()
	res.Changed, res.Epoch = true, true
	return nil
}

// opensAgain reports whether a certificate opens a line by the approvals that have opened the
// newest one, which are used once: a Region that has handed its key over could outrank its
// successor with them. What this Region has itself signed, and has forgotten, it believes.
func (s *Set) opensAgain(c Certificate) bool {
	if c.forced == nil || len(s.chain) == 0 {
		return false
	}
	line := s.head().Epoch.Line
	i := slices.IndexFunc(s.chain, func(k Certificate) bool { return k.forced != nil && k.Epoch.Line == line })
	if i < 0 || c.Epoch.Line == line || s.chain[i].forced.promotion.Request().ID() != c.forced.promotion.Request().ID() {
		return false
	}
	mine := c.Epoch.Region == s.self.Region && c.Instance == s.self.Instance
	return !mine || c.Epoch.Line.Compare(line) < 0
}

// base verifies a certificate and returns the certificates that it follows: of the chain, of
// the side branch, or none for one that begins a chain.
func (s *Set) base(v Verifier, c Certificate, side []Certificate) ([]Certificate, error) {
	var base []Certificate
	if i := indexOf(side, c.Parent); i >= 0 {
		base = side[:i+1]
	} else if i := indexOf(s.chain, c.Parent); i >= 0 {
		base = s.chain[:i+1]
	}
	if c.forced != nil {
		return room(base), c.verifyForced(v, s.incarnation == 0)
	}
	switch {
	case len(base) == 0 && len(s.chain) == 0:
		return nil, c.verifyFirst(v)
	case len(base) == 0:
		return nil, ErrGap
	}
	if err := c.verifyChild(v, base[len(base)-1]); err != nil {
		return nil, err
	}
	if len(base) >= MaxCertificates {
		return nil, fmt.Errorf("%w: %d certificates", ErrFull, len(base))
	}
	return base, nil
}

func indexOf(chain []Certificate, hash Hash) int {
	return slices.IndexFunc(chain, func(k Certificate) bool { return k.Hash() == hash })
}
