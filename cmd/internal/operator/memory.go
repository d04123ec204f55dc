package operator

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// ErrContradiction means that the key has approved the same number of a series, or a higher
// one, for another target.
var ErrContradiction = errors.New("approved for another target before")

// memory is the content of a file KEY.signed, in the order of operation and series.
type memory struct {
	Signed []highest `json:"signed"`
}

// highest is the highest number that the key has approved in one series.
type highest struct {
	Operation approval.Operation `json:"operation"`
	Series    string             `json:"series"`
	Epoch     uint64             `json:"epoch"`
	Target    string             `json:"target"`
}

func (h highest) compare(o highest) int {
	return cmp.Or(cmp.Compare(h.Operation, o.Operation), cmp.Compare(h.Series, o.Series))
}

// check returns the memory as it is once the request is approved, and whether it differs.
func (m memory) check(q approval.Request) (memory, bool, error) {
	if q.Series == "" {
		return m, false, nil
	}
	now := highest{q.Operation, q.Series, q.Epoch, q.Target}
	i, found := slices.BinarySearchFunc(m.Signed, now, highest.compare)
	if !found {
		return memory{slices.Insert(slices.Clone(m.Signed), i, now)}, true, nil
	}
	before := m.Signed[i]
	if q.Epoch <= before.Epoch {
		if q.Target != before.Target {
			return m, false, fmt.Errorf("%w: number %d of %s went to %s, this is number %d for %s; if both are right, ask again with number %d or more",
				ErrContradiction, before.Epoch, q.Series, before.Target, q.Epoch, q.Target, before.Epoch+1)
		}
		return m, false, nil
	}
	signed := slices.Clone(m.Signed)
	signed[i] = now
	return memory{signed}, true, nil
}

// load reads the memory. One that cannot be read is no empty one.
func load(path string) (memory, error) {
	m := memory{Signed: []highest{}}
	err := statement.ReadJSON(path, &m)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return memory{Signed: []highest{}}, nil
	case err != nil:
		return m, fmt.Errorf("what this key has approved before: %w", err)
	case !slices.IsSortedFunc(m.Signed, highest.compare):
		return m, fmt.Errorf("what this key has approved before: %s is out of order", path)
	}
	return m, nil
}

// remember makes durable that the request is approved, or refuses it.
func remember(path string, q approval.Request) error {
	m, err := load(path)
	if err != nil {
		return err
	}
	next, changed, err := m.check(q)
	if err != nil || !changed {
		return err
	}
	b, err := statement.MarshalJSON(next)
	if err != nil {
		return err
	}
	return statement.Replace(path, b, 0o600)
}
