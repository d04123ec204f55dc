package mrk

import (
	"fmt"

	"github.com/keyferry/keyferry/keyops/region"
)

// Historian is a Verifier that knows instances of Regions which are no more, since the Region
// was initialised again or retired. What such an instance has signed is history: it counts
// beneath what a Region has signed that is there, and says nothing new, or whoever gets hold
// of its signing key could decide.
type Historian interface {
	Verifier
	// Former reports whether that instance is no more.
	Former(r region.Name, instance region.InstanceID) bool
}

func former(v Verifier, r region.Name, instance region.InstanceID) bool {
	h, ok := v.(Historian)
	return ok && guard9Former.Stops(h.Former(r, instance))
}

// mergeCertificates takes the certificates of one message up to the last one that leads to a
// Region which is there: those of a former instance count together with what follows them, or
// not at all.
func (s *Set) mergeCertificates(v Verifier, list []Certificate, res *Result) {
	before, was := *s, *res
	for end := len(list); end > 0; {
		s.mergeEach(v, list[:end], res)
		if s.Head() == before.Head() || !former(v, s.Primary(), s.head().Instance) {
			break
		}
		writer := s.Primary()
		*s, *res = before, was
		res.refuse(writer, fmt.Errorf("merging certificates of %s: %w", writer, ErrFormer))
		was.Refused = res.Refused
		for end--; end > 0 && former(v, list[end-1].Epoch.Region, list[end-1].Instance); {
			end--
		}
	}
}

// vouched refuses what a former instance has signed of itself alone. That it was a member is
// history; what it says of an incarnation that nobody has admitted is not.
func (s *Set) vouched(v Verifier, m *Member) error {
	if !former(v, m.Region, m.Instance) {
		return nil
	}
	e := s.Entry(m.Region)
	if m.Incarnation > s.admitted[m.Region] || e.Incarnation == m.Incarnation && e.Instance != m.Instance {
		return fmt.Errorf("%w: incarnation %d", ErrFormer, m.Incarnation)
	}
	return nil
}
