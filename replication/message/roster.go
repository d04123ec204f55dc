package message

import (
	"fmt"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/wire"
)

// RosterNeed names a roster whose operators approved something here, and who are not known
// yet: changes after version From, up to version To. No more are asked for: a Region that
// knows a newer roster than the one that approved would refuse what was approved.
type RosterNeed struct {
	Region   region.Name
	Instance region.InstanceID
	From, To uint64
}

func (n RosterNeed) encode(w *wire.Writer) {
	w.Bool(n.To > 0)
	if n.To == 0 {
		return
	}
	w.String(string(n.Region))
	w.String(string(n.Instance))
	w.Uint(n.From)
	w.Uint(n.To)
}

func decodeRosterNeed(r *wire.Reader) RosterNeed {
	if !r.Bool() {
		return RosterNeed{}
	}
	p := DecodeParty(r)
	n := RosterNeed{p.Region, p.Instance, r.Uint(), r.Uint()}
	if r.Err() == nil && n.From >= n.To {
		r.Fail("changes of a roster after version %d, up to %d", n.From, n.To)
	}
	return n
}

// Rosters carries changes of one roster, or asks for them.
type Rosters struct {
	Need    RosterNeed
	Changes []approval.Change // after need.from; none in a question
}

const (
	MaxChanges     = 64        // of one message
	MaxChangeBytes = 384 << 10 // of one message, but for the first change
)

// Marshal returns the one encoding of it.
func (b Rosters) Marshal() []byte {
	var w wire.Writer
	b.Need.encode(&w)
	w.Count(len(b.Changes))
	for _, c := range b.Changes {
		keyops.EncodeChange(&w, c)
	}
	return w.Out()
}

// ParseRosters reads what Marshal wrote, and nothing else.
func ParseRosters(p []byte) (Rosters, error) {
	r := wire.NewReader(p)
	b := Rosters{Need: decodeRosterNeed(r)}
	if r.Err() == nil && b.Need.To == 0 {
		r.Fail("nobody's roster")
	}
	for range r.Count(MaxChanges) {
		b.Changes = append(b.Changes, keyops.DecodeChange(r))
		if r.Err() != nil {
			break
		}
	}
	if err := r.Done(); err != nil {
		return b, fmt.Errorf("parsing changes of a roster: %w", err)
	}
	return b, nil
}
