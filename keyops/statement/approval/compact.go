package approval

import "github.com/keyferry/keyferry/keyops/statement"

// Compact is an approval without the request, which whoever reads it makes anew: for
// approvals that travel with what they have allowed.
type Compact struct {
	Key       string // fingerprint of the operator's key
	Signature []byte
}

// Compact returns the approvals of the request that count, one of each operator, in the
// order of the roster.
func (r Roster) Compact(want Request, approvals []statement.File) []Compact {
	var out []Compact
	for _, o := range r.Operators {
		for _, f := range approvals {
			if name, err := r.one(want, f); err == nil && name == o.Name {
				out = append(out, Compact{Key: f.Key, Signature: f.Signature})
				break
			}
		}
	}
	return out
}

// Expand returns the approvals of which compact ones were made, if they are of this request.
func (q Request) Expand(compact []Compact) []statement.File {
	payload := q.payload()
	out := make([]statement.File, len(compact))
	for i, c := range compact {
		out[i] = statement.File{Type: string(statement.Approval), Payload: payload, Signature: c.Signature, Key: c.Key}
	}
	return out
}
