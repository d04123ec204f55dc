package mrk

import (
	"maps"
	"slices"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Counts says how often materials may have encrypted: a bound that is raised in coarse
// steps, ahead of what is done.
type Counts map[material.ID]uint64

const (
	maxCounts = 2 * MaxMaterials // as many as a set can know
	maxSpent  = 1 << 56          // sums of MaxMembers counts do not wrap around
)

func (c Counts) encode(w *wire.Writer) {
	w.Count(len(c))
	for _, id := range slices.SortedFunc(maps.Keys(c), compareIDs) {
		w.Bytes(id[:])
		w.Uint(c[id])
	}
}

func decodeCounts(r *wire.Reader) Counts {
	var c Counts
	var last material.ID
	for range r.Count(maxCounts) {
		id, n := decodeMaterialID(r), r.Uint()
		if r.Err() != nil {
			return nil
		}
		if n == 0 || n > maxSpent || compareIDs(last, id) >= 0 {
			r.Fail("counts out of order or out of bounds")
			return nil
		}
		if c == nil {
			c = Counts{}
		}
		c[id], last = n, id
	}
	return c
}

// Spent returns how often this Region may have used a material, as it has ever said: over
// incarnations of its key, and whatever its store has forgotten since.
func (s *Set) Spent(id material.ID) uint64 { return s.spent[id] }

// SpentElsewhere returns the sum of what the other Regions have said of themselves, the
// evicted and the deleted among them: what they have encrypted exists.
func (s *Set) SpentElsewhere(id material.ID) uint64 {
	var sum uint64
	for r, m := range s.members {
		if r != s.self.Region {
			sum += m.Spent[id]
		}
	}
	return sum
}

// spend takes over what this Region has used. Its own facts come back before the states that
// list what they are about, so a count of what is not listed is kept as well.
func (s *Set) spend(by Counts) (raised bool) {
	spent := maps.Clone(s.spent)
	if spent == nil {
		spent = Counts{}
	}
	for id, n := range by {
		if _, known := spent[id]; n > spent[id] && n <= maxSpent && (known || len(spent) < maxCounts) {
			spent[id], raised = n, true
		}
	}
	if raised {
		s.spent = spent
	}
	return raised
}
