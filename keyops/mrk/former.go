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

// later compares the facts of two instances of a Region: whatever the numbers say, one that is
// there has the last word, so that the key of one that is no more is of no use for it.
func later(v Verifier, m, old *Member) int {
	switch gone := former(v, m.Region, m.Instance); {
	case m.Instance == old.Instance || gone == former(v, old.Region, old.Instance):
		return m.Compare(old)
	case gone:
		return -1
	}
	return 1
}
