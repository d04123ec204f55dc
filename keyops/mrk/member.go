package mrk

import (
	"cmp"
	"crypto/sha256"
	"fmt"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Member is a Region's word about itself, ordered by (Incarnation, Counter). It is also
// the acknowledgement of everything that it shows to have arrived.
type Member struct {
	Key         arn.KeyID
	Region      region.Name
	Instance    region.InstanceID
	Incarnation uint64
	Counter     uint64
	Joined      Epoch         // epoch of the state that the Region follows; zero if it has none
	Seq         uint64        // of that state
	Held        []material.ID // in its token and proven; sorted
	Used        []material.ID // ever current there; only grows within an incarnation; sorted
	Current     material.ID   // what it encrypts with; zero if it cannot
	KeyState    string        // of its own key, such as Enabled
	Deleting    int64         // Unix seconds at which its deletion is due; 0 if none is
	Deleted     bool          // final for this incarnation
	Refused     Nonce         // of the newest epoch that was offered to it and that it refused; zero if none
	RefusedFor  string        // why, for people
	Spent       Counts        // how often it may have encrypted with each material; only grows

	signed statement.Signed
}

// Hash names the fact.
func (m *Member) Hash() Hash { return sha256.Sum256(m.signed.Payload) }

// Compare orders one Region's facts by incarnation, then counter. A deletion is the last
// word on an incarnation: a Region that was restored to before it may have counted on past
// it when it hears of it.
func (m *Member) Compare(o *Member) int {
	if m.Incarnation == o.Incarnation && guard23Final.Stops(m.Deleted != o.Deleted) {
		if m.Deleted {
			return 1
		}
		return -1
	}
	return cmp.Or(cmp.Compare(m.Incarnation, o.Incarnation), cmp.Compare(m.Counter, o.Counter))
}

// Holds reports whether the Region holds the material.
func (m *Member) Holds(id material.ID) bool { return idSet(m.Held).has(id) }

func (m *Member) payload() []byte {
	var w wire.Writer
	w.Uint(formatVersion)
	w.String(string(m.Key))
	w.String(string(m.Region))
	w.String(string(m.Instance))
	w.Uint(m.Incarnation)
	w.Uint(m.Counter)
	m.Joined.encodeOptional(&w)
	w.Uint(m.Seq)
	idSet(m.Held).encode(&w)
	idSet(m.Used).encode(&w)
	encodeOptionalMaterial(&w, m.Current)
	w.String(m.KeyState)
	w.Uint(uint64(m.Deleting))
	w.Bool(m.Deleted)
	w.Bytes(m.Refused[:])
	w.String(m.RefusedFor)
	m.Spent.encode(&w)
	return w.Out()
}

func parseMember(signed statement.Signed) (*Member, error) {
	if signed.Purpose != statement.Member {
		return nil, fmt.Errorf("%w: %s where a member fact belongs", wire.ErrMalformed, signed.Purpose)
	}
	r := wire.NewReader(signed.Payload)
	decodeVersion(r)
	m := &Member{
		Key: decodeKeyID(r), Region: decodeRegion(r), Instance: decodeInstance(r),
		Incarnation: decodeNumber(r), Counter: decodeNumber(r), Joined: decodeOptionalEpoch(r), Seq: decodeNumber(r),
		Held: decodeIDSet(r), Used: decodeIDSet(r),
		Current: decodeOptionalMaterial(r), KeyState: decodeWord(r, stateWord, "key state"),
		Deleting: decodeTime(r), Deleted: r.Bool(), signed: signed,
	}
	r.Fixed(m.Refused[:])
	m.RefusedFor = r.String(maxText)
	m.Spent = decodeCounts(r)
	if r.Err() == nil && (m.Incarnation == 0 || m.Counter == 0) {
		r.Fail("member %s with incarnation %d and counter %d", m.Region, m.Incarnation, m.Counter)
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("parsing member fact: %w", err)
	}
	return m, nil
}
