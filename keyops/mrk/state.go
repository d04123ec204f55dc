package mrk

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Status is what the primary Region says of a member.
type Status uint64

// Statuses. The protocol's OUT is Joining or Suspended: not awaited by rotations.
const (
	Removed   Status = iota // deleted its key; the entry stays for its incarnation
	Joining                 // OUT: not yet proven to hold what others may have used
	Suspended               // OUT: by operators, because it is dark
	Rejoining               // awaited, but nothing proven in this epoch
	Active                  // awaited and proven
	Evicted                 // by operators; may be replicated to again with a new incarnation
	Retained                // evicted when its instance was disassociated; its key stays usable
	statusEnd
)

var statusNames = [...]string{"REMOVED", "JOINING", "SUSPENDED", "REJOINING", "ACTIVE", "EVICTED", "RETAINED"}

// String returns the status in upper case.
func (s Status) String() string {
	if s < statusEnd {
		return statusNames[s]
	}
	return fmt.Sprintf("STATUS_%d", uint64(s))
}

// In reports whether the member has, or is to have, a replica.
func (s Status) In() bool {
	return s == Joining || s == Suspended || s == Rejoining || s == Active
}

// Awaited reports whether a rotation waits for the member.
func (s Status) Awaited() bool { return s == Rejoining || s == Active }

// Entry is a member as the primary Region's state lists it.
type Entry struct {
	Region      region.Name
	Instance    region.InstanceID
	Incarnation uint64 // grows with each replica that is made in that Region
	Status      Status
}

// Reason says why a material was listed.
type Reason uint64

// Reasons for which a material was listed.
const (
	ReasonCreation Reason = iota
	ReasonAutomatic
	ReasonOnDemand
	ReasonImport
	ReasonTakenBack // found in a token after a restore, or held by a member of an earlier line
	reasonEnd
)

// Listed is a material as the primary Region's state lists it.
type Listed struct {
	ID         material.ID
	SPKI       []byte // of key pairs: the public key as DER; else empty
	Birth      Nonce  // of the epoch in which it was first listed
	Created    int64  // Unix seconds by the primary Region's clock; for people, orders nothing
	Reason     Reason
	Released   int64  // Unix seconds at which it became current; 0 if it never did
	Holders    uint64 // Regions known to hold it when it was released
	WrittenOff bool   // lost everywhere, by the operators' word
}

// Rotation is the automatic rotation setting.
type Rotation struct {
	Enabled bool
	Days    uint64 // period
	Last    int64  // Unix seconds of the last rotation, or of the setting
}

// State is the primary Region's word about the whole set, ordered by (Epoch, Seq).
type State struct {
	Key       arn.KeyID
	Epoch     Epoch
	Seq       uint64
	Account   arn.Account
	Spec      string
	Usage     string
	Origin    string
	Created   int64       // Unix seconds; of the set's first key
	Current   material.ID // zero while there is none
	Pending   material.ID // zero unless a rotation is under way
	Rotation  Rotation
	Materials []Listed // in the order in which they were listed
	Members   []Entry  // sorted by Region

	signed statement.Signed
}

// Hash names the state.
func (s *State) Hash() Hash { return sha256.Sum256(s.signed.Payload) }

// Compare orders states by epoch, then sequence number.
func (s *State) Compare(o *State) int {
	return cmp.Or(s.Epoch.Compare(o.Epoch), cmp.Compare(s.Seq, o.Seq))
}

// Entry returns a Region's entry; one that was never listed has the status Removed and
// incarnation 0.
func (s *State) Entry(r region.Name) Entry {
	for _, e := range s.Members {
		if e.Region == r {
			return e
		}
	}
	return Entry{Region: r}
}

// setEntry replaces or adds a Region's entry and keeps the order.
func (s *State) setEntry(e Entry) {
	i, found := slices.BinarySearchFunc(s.Members, e.Region, func(x Entry, r region.Name) int {
		return strings.Compare(string(x.Region), string(r))
	})
	if found {
		s.Members[i] = e
		return
	}
	s.Members = slices.Insert(s.Members, i, e)
}

// listed returns the material's entry, or nil.
func (s *State) listed(id material.ID) *Listed {
	for i := range s.Materials {
		if s.Materials[i].ID == id {
			return &s.Materials[i]
		}
	}
	return nil
}

// exceeds reports whether the state lists a material that another one does not.
func (s *State) exceeds(o *State) bool {
	return slices.ContainsFunc(s.Materials, func(m Listed) bool { return o.listed(m.ID) == nil })
}

// clone returns a copy that may be changed and signed anew.
func (s *State) clone() *State {
	c := *s
	c.Materials = slices.Clone(s.Materials)
	c.Members = slices.Clone(s.Members)
	return &c
}

// sameProperties reports whether both states describe the same key: what is fixed when a
// key is made is the same in every state.
func (s *State) sameProperties(o *State) bool {
	return s.Key == o.Key && s.Account == o.Account && s.Spec == o.Spec && s.Usage == o.Usage &&
		s.Origin == o.Origin && s.Created == o.Created
}

func (s *State) payload() []byte {
	var w wire.Writer
	w.Uint(formatVersion)
	w.String(string(s.Key))
	s.Epoch.encode(&w)
	w.Uint(s.Seq)
	w.String(string(s.Account))
	w.String(s.Spec)
	w.String(s.Usage)
	w.String(s.Origin)
	w.Uint(uint64(s.Created))
	encodeOptionalMaterial(&w, s.Current)
	encodeOptionalMaterial(&w, s.Pending)
	w.Bool(s.Rotation.Enabled)
	w.Uint(s.Rotation.Days)
	w.Uint(uint64(s.Rotation.Last))
	w.Count(len(s.Materials))
	for _, m := range s.Materials {
		m.encode(&w)
	}
	w.Count(len(s.Members))
	for _, e := range s.Members {
		w.String(string(e.Region))
		w.String(string(e.Instance))
		w.Uint(e.Incarnation)
		w.Uint(uint64(e.Status))
	}
	return w.Out()
}

func (m Listed) encode(w *wire.Writer) {
	w.Bytes(m.ID[:])
	w.Bytes(m.SPKI)
	w.Bytes(m.Birth[:])
	w.Uint(uint64(m.Created))
	w.Uint(uint64(m.Reason))
	w.Uint(uint64(m.Released))
	w.Uint(m.Holders)
	w.Bool(m.WrittenOff)
}

func decodeListed(r *wire.Reader) Listed {
	m := Listed{ID: decodeMaterialID(r), SPKI: r.Bytes(maxSPKI)}
	r.Fixed(m.Birth[:])
	m.Created = decodeTime(r)
	m.Reason = Reason(r.Uint())
	m.Released = decodeTime(r)
	m.Holders = r.Uint()
	m.WrittenOff = r.Bool()
	if r.Err() == nil && (m.Reason >= reasonEnd || m.Holders > MaxMembers) {
		r.Fail("material listed for reason %d with %d holders", m.Reason, m.Holders)
	}
	return m
}

// decodeTime reads Unix seconds, from 1970 to far beyond any key's life.
func decodeTime(r *wire.Reader) int64 {
	v := r.Uint()
	if v > 1<<40 {
		r.Fail("time %d", v)
		return 0
	}
	return int64(v)
}

func parseState(signed statement.Signed) (*State, error) {
	if signed.Purpose != statement.State {
		return nil, fmt.Errorf("%w: %s where a state belongs", wire.ErrMalformed, signed.Purpose)
	}
	r := wire.NewReader(signed.Payload)
	decodeVersion(r)
	s := &State{Key: decodeKeyID(r), Epoch: decodeEpoch(r), Seq: decodeNumber(r), signed: signed}
	account, err := arn.ParseAccount(r.String(maxName))
	if err != nil && r.Err() == nil {
		r.Fail("%v", err)
	}
	s.Account = account
	s.Spec = decodeWord(r, upperWord, "key spec")
	s.Usage = decodeWord(r, upperWord, "key usage")
	s.Origin = decodeWord(r, upperWord, "origin")
	s.Created = decodeTime(r)
	s.Current = decodeOptionalMaterial(r)
	s.Pending = decodeOptionalMaterial(r)
	s.Rotation = Rotation{Enabled: r.Bool(), Days: r.Uint(), Last: decodeTime(r)}
	for range r.Count(MaxMaterials) {
		if r.Err() != nil {
			break
		}
		s.Materials = append(s.Materials, decodeListed(r))
	}
	for range r.Count(MaxMembers) {
		if r.Err() != nil {
			break
		}
		s.Members = append(s.Members, Entry{decodeRegion(r), decodeInstance(r), decodeNumber(r), Status(r.Uint())})
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("parsing state: %w", err)
	}
	return s, s.check()
}

// check refuses what no honest primary Region writes.
func (s *State) check() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("parsing state: %w: "+format, append([]any{wire.ErrMalformed}, args...)...)
	}
	prefixes := make(map[[material.PrefixSize]byte]bool, len(s.Materials))
	for _, m := range s.Materials {
		if prefixes[m.ID.Prefix()] {
			return fail("two materials with one prefix")
		}
		prefixes[m.ID.Prefix()] = true
	}
	for i, e := range s.Members {
		if i > 0 && s.Members[i-1].Region >= e.Region {
			return fail("members out of order")
		}
		if e.Status >= statusEnd || e.Incarnation == 0 {
			return fail("member %s with incarnation %d and status %d", e.Region, e.Incarnation, uint64(e.Status))
		}
	}
	for _, id := range []material.ID{s.Current, s.Pending} {
		if !id.IsZero() && s.listed(id) == nil {
			return fail("current or pending material is not listed")
		}
	}
	if !s.Pending.IsZero() && s.Pending == s.Current {
		return fail("current material is pending")
	}
	if s.Entry(s.Epoch.Region).Status != Active {
		return fail("the primary Region is not an active member")
	}
	return nil
}

// regions returns every Region that is or was a member.
func (s *State) regions() []region.Name {
	out := make([]region.Name, len(s.Members))
	for i, e := range s.Members {
		out[i] = e.Region
	}
	return out
}
