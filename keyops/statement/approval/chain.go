package approval

import (
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// ErrRoster means a roster that does not follow from the one before.
var ErrRoster = errors.New("roster does not follow from the one before")

// Change puts a roster in the place of the one before. Both must approve it: those who hand
// over, and enough of those who take over, so that a roster whose keys nobody has cannot
// lock everybody out. It is carried in files, and its chain is verified again wherever the
// newest roster counts.
type Change struct {
	Roster    []byte           `json:"roster"` // the next roster's one encoding
	Approvals []statement.File `json:"approvals"`
}

// RequestChange asks the operators of r, and those of next, to put next in the place of r.
func (r Roster) RequestChange(region, instance string, next Roster, serial string, expires time.Time) Request {
	q := Request{
		Operation: ChangeRoster, Region: region, Instance: instance, Roster: r.Version,
		Series: "roster of " + region, Epoch: next.Version, Target: statement.Fingerprint(next.encode()),
		Serial: serial, Expires: expires,
		Object: []Detail{{"approvals needed", fmt.Sprintf("%d of %d", next.Threshold, len(next.Operators))}},
	}
	for _, o := range next.Operators {
		q.Object = append(q.Object, Detail{"operator", fmt.Sprintf("%q with key %s", o.Name, statement.Fingerprint(o.Key))})
	}
	return q
}

// NewChange makes the change that was approved, if it may be made now.
func (r Roster) NewChange(region, instance string, next Roster, now time.Time, approvals []statement.File) (Change, error) {
	c := Change{Roster: next.encode(), Approvals: approvals}
	if _, err := r.Follow(region, instance, c); err != nil {
		return Change{}, err
	}
	q, err := RequestOf(approvals[0])
	if err != nil {
		return Change{}, err
	}
	return c, r.Check(q, now, approvals)
}

// Follow verifies changes of an instance's roster, each by the one before, and returns the
// newest. Nobody's clock counts here: each change was made in its time.
func (r Roster) Follow(region, instance string, changes ...Change) (Roster, error) {
	for _, c := range changes {
		next, err := r.next(region, instance, c)
		if err != nil {
			return Roster{}, fmt.Errorf("%w: after version %d: %w", ErrRoster, r.Version, err)
		}
		r = next
	}
	return r, nil
}

func (r Roster) next(region, instance string, c Change) (Roster, error) {
	d := wire.NewReader(c.Roster)
	next := Take(d)
	if err := d.Done(); err != nil {
		return Roster{}, err
	}
	if next.Version != r.Version+1 {
		return Roster{}, fmt.Errorf("version %d", next.Version)
	}
	if len(c.Approvals) == 0 {
		return Roster{}, ErrNotEnough
	}
	q, err := RequestOf(c.Approvals[0])
	if err != nil {
		return Roster{}, err
	}
	want := r.RequestChange(region, instance, next, q.Serial, q.Expires)
	if err := r.Verify(want, c.Approvals); err != nil {
		return Roster{}, fmt.Errorf("by those who hand over: %w", err)
	}
	if err := next.count(want, c.Approvals); err != nil {
		return Roster{}, fmt.Errorf("by those who take over: %w", err)
	}
	return next, nil
}
