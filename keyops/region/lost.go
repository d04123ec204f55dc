package region

import (
	"time"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// Lost reports whether the old key does not name the next descriptor, since it is lost with
// its token. Then the operators alone do, whose keys are in no token, and they approve that
// in words of its own: approvals of a replacement that the old key has named do not count.
func (r Replacement) Lost() bool {
	s := r.Succession
	return s.Type == "" && len(s.Payload) == 0 && len(s.Signature) == 0 && s.Key == ""
}

// NewLostReplacement makes a replacement without the old key. The approvals are still
// missing.
func NewLostReplacement(old, next SignedDescriptor) (Replacement, error) {
	if err := next.succeeds(old.Descriptor); err != nil {
		return Replacement{}, err
	}
	pub, err := next.PublicKey()
	if err != nil {
		return Replacement{}, err
	}
	r := Replacement{Rosters: []approval.Change{}, Approvals: []statement.File{}}
	r.Descriptor, err = statement.NewFile(next.Statement, pub)
	return r, err
}

// RequestLost asks the operators of roster to let next follow without the old key, and to
// believe the store that the details are of.
func RequestLost(roster approval.Roster, old, next SignedDescriptor, serial string, expires time.Time, store []approval.Detail) approval.Request {
	q := RequestReplacement(roster, old, next, serial, expires)
	q.Operation = approval.ReplaceLostKeys
	q.Object = append(q.Object, store...)
	return q
}

// Request returns what operators have to have approved of this replacement. Serial, expiry
// and what is said of the store come from what they were asked: peers cannot see that store.
func (r Replacement) Request(roster approval.Roster, old, next SignedDescriptor, asked approval.Request) approval.Request {
	q := RequestReplacement(roster, old, next, asked.Serial, asked.Expires)
	if !r.Lost() {
		return q
	}
	return RequestLost(roster, old, next, asked.Serial, asked.Expires, asked.Object[min(len(q.Object), len(asked.Object)):])
}
