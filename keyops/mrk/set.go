package mrk

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

// Self is the Region and the instance that a Set belongs to.
type Self struct {
	Region   region.Name
	Instance region.InstanceID
}

// Signer signs in this Region's name, in its token.
type Signer interface {
	Sign(ctx context.Context, p statement.Purpose, payload []byte) (statement.Signed, error)
}

// Unsigned is a Signer with which a rule is tried on a copy: what it would write goes
// nowhere, and the token is left alone.
type Unsigned struct{}

// Sign signs nothing.
func (Unsigned) Sign(_ context.Context, p statement.Purpose, payload []byte) (statement.Signed, error) {
	return statement.Signed{Purpose: p, Payload: payload}, nil
}

// Verifier knows the signing keys of the Regions that this one has pinned.
type Verifier interface {
	// Verify returns nil if s carries the signature of that Region's instance. An instance
	// that is not pinned, or no longer, is an error.
	Verify(r region.Name, instance region.InstanceID, s statement.Signed) error
}

// Set is what this Region durably knows of one multi-Region key.
type Set struct {
	self Self
	key  arn.KeyID

	chain    []Certificate           // parents before children; the last one is the newest
	state    *State                  // the newest under the chain; nil until one was heard
	members  map[region.Name]*Member // newest of each Region, this one's included
	requests map[region.Name]CreateRequest
	known    map[material.ID]Listed // whatever a valid state ever listed; only grows
	admitted map[region.Name]uint64 // highest incarnation that a primary Region ever admitted; only grows
	// admission is the create request that began the key's incarnation here. It is this
	// Region's proof of membership towards a primary Region that has never heard of it.
	admission *CreateRequest

	permit      Nonce  // of the epoch in which this Region may act; zero for none
	incarnation uint64 // of the key here; 0 until it was admitted
	told        bool   // others hold this Region's own word that this incarnation is deleted
	spent       Counts // by this Region, as it has ever said; replaced, never changed
	floor       uint64 // counters up to here were used by this Region, in this incarnation
	frozen      *Conflict

	earlier    []Earlier    // states that list materials which the newest one does not; newest first
	sealed     *Certificate // offered to another Region and not decided: this Region does not act
	by         Claim        // on whose behalf
	offer      *Offer       // made to this Region and not decided
	refused    Nonce        // of the newest epoch that was offered to this Region and that it refused
	refusedFor string
	alone      material.ID // may be released although it is in this Region's token only
	destroying bool        // the objects are being destroyed; there is no way back
}

// Conflict is a pair of facts that cannot both be honest.
type Conflict struct {
	Cause       Cause // EQUIVOCATION or EPOCH_FORK
	Writer      region.Name
	Epoch       Epoch  // of the conflicting state or certificate; zero for member facts
	Incarnation uint64 // of the conflicting member fact
	Number      uint64 // sequence number or counter that was used twice
	Evidence    []byte // the refused statement; the other one is, or was, part of the set
}

// Key returns the key's ID.
func (s *Set) Key() arn.KeyID { return s.key }

// Self returns whose Set this is.
func (s *Set) Self() Self { return s.self }

// Clone returns a copy that may be changed. Facts are shared: they never change.
func (s *Set) Clone() *Set {
	c := *s
	c.chain = slices.Clone(s.chain)
	c.members = maps.Clone(s.members)
	c.requests = maps.Clone(s.requests)
	c.known = maps.Clone(s.known)
	c.admitted = maps.Clone(s.admitted)
	return &c
}

// Epoch returns the newest epoch known.
func (s *Set) Epoch() Epoch {
	if len(s.chain) == 0 {
		return Epoch{}
	}
	return s.head().Epoch
}

func (s *Set) head() *Certificate { return &s.chain[len(s.chain)-1] }

// Head returns the hash of the newest certificate, by which a peer knows where to start.
func (s *Set) Head() Hash {
	if len(s.chain) == 0 {
		return Hash{}
	}
	return s.head().Hash()
}

// Primary returns the Region that the newest certificate names.
func (s *Set) Primary() region.Name { return s.Epoch().Region }

// Acting reports whether this Region may act as the primary Region: the newest certificate
// names it, and it holds the permit for exactly that epoch.
func (s *Set) Acting() bool {
	if len(s.chain) == 0 || s.told || s.destroying || s.state == nil || guardSealed.Stops(s.sealed != nil) {
		return false
	}
	return s.named() && s.permit != Nonce{} && s.permit == s.Epoch().Nonce && s.state.Epoch == s.Epoch()
}

// named reports whether the newest certificate names this Region and instance.
func (s *Set) named() bool {
	return s.Primary() == s.self.Region && s.head().Instance == s.self.Instance
}

// DropPermit makes this Region stop acting until it has renewed its term. It is called when
// store or token may have been rolled back or changed.
func (s *Set) DropPermit() { s.permit = Nonce{} }

// Frozen returns the conflict that keeps the key from being managed, or nil.
func (s *Set) Frozen() *Conflict { return s.frozen }

// State returns the newest state, which must not be changed, or nil.
func (s *Set) State() *State { return s.state }

// Incarnation returns the incarnation of the key in this Region.
func (s *Set) Incarnation() uint64 { return s.incarnation }

// Told reports whether others hold this Region's word that its key is deleted, although
// the key exists: this Region was rolled back. Such a key is not used any more.
func (s *Set) Told() bool { return s.told }

// Own returns this Region's newest fact about itself, or nil.
func (s *Set) Own() *Member { return s.members[s.self.Region] }

// Entry returns a Region's entry in the newest state.
func (s *Set) Entry(r region.Name) Entry {
	if s.state == nil {
		return Entry{Region: r}
	}
	return s.state.Entry(r)
}

// MemberView is a Region with its entry in the newest state and its own newest fact.
type MemberView struct {
	Entry
	Fact *Member // nil if the Region was never heard; may be of an older incarnation
}

// Members returns the Regions that have, or are to have, a replica, sorted by name; this
// Region and the primary Region included.
func (s *Set) Members() []MemberView {
	if s.state == nil {
		return nil
	}
	var out []MemberView
	for _, e := range s.state.Members {
		if e.Status.In() && !s.gone(e) {
			out = append(out, MemberView{e, s.members[e.Region]})
		}
	}
	return out
}

// Audience returns every other Region that is or was a member: those that are told of
// every change.
func (s *Set) Audience() []region.Name {
	if s.state == nil {
		return nil
	}
	return slices.DeleteFunc(s.state.regions(), func(r region.Name) bool { return r == s.self.Region })
}

// Concerns reports whether a Region is known to be, or to have been, a member or the
// primary Region. What this set says is told to nobody else.
func (s *Set) Concerns(r region.Name) bool {
	return s.Entry(r).Incarnation > 0 || s.admitted[r] > 0 ||
		slices.ContainsFunc(s.chain, func(c Certificate) bool { return c.Epoch.Region == r })
}

// Admission returns the create request that began the key here, or nil where it was made.
func (s *Set) Admission() *CreateRequest { return s.admission }

// Listed returns the materials of the newest state, in the order in which they were listed.
func (s *Set) Listed() []Listed {
	if s.state == nil {
		return nil
	}
	return s.state.Materials
}

// Known returns a material that a valid state lists or has listed. What the newest one lists
// is known even if earlier ones, which former primary Regions can write at any time, have taken
// all the room there is for others.
func (s *Set) Known(id material.ID) (Listed, bool) {
	if s.state != nil {
		if m := s.state.listed(id); m != nil {
			return *m, true
		}
	}
	m, ok := s.known[id]
	return m, ok
}

// Current returns the material that the newest state says to encrypt with, or zero.
func (s *Set) Current() material.ID {
	if s.state == nil {
		return material.ID{}
	}
	return s.state.Current
}

// Pending returns the material that waits to become current, or zero.
func (s *Set) Pending() material.ID {
	if s.state == nil {
		return material.ID{}
	}
	return s.state.Pending
}

// Request returns the create request that is kept for a Region, if it is not for an incarnation
// before the one that the newest state lists: a restored store keeps it, and forgets the next.
func (s *Set) Request(r region.Name) (CreateRequest, bool) {
	c, ok := s.requests[r]
	return c, ok && c.Incarnation >= s.Entry(r).Incarnation
}

// Ready reports whether a replica that holds these materials may leave Creating: the
// primary Region calls it active and nothing that the state lists is missing (rule 6).
func (s *Set) Ready(held []material.ID) bool {
	if s.state == nil || s.told || s.destroying || s.state.Epoch != s.Epoch() {
		return false
	}
	e := s.Entry(s.self.Region)
	if guard6Active.Stops(e.Status != Active) || e.Incarnation != s.incarnation {
		return false
	}
	return s.external() || !guard6Holds.Stops(len(s.lacking(newIDSet(held))) > 0)
}

// lacking returns the listed materials that are not among the held ones.
func (s *Set) lacking(held idSet) (out []material.ID) {
	for _, m := range s.state.Materials {
		if !m.WrittenOff && !held.has(m.ID) {
			out = append(out, m.ID)
		}
	}
	return out
}

// Shut reports whether the newest state evicts this Region's key, which then is Disabled.
func (s *Set) Shut() bool {
	e := s.Entry(s.self.Region)
	return e.Status == Evicted && e.Incarnation >= s.incarnation && !s.Acting()
}

func (s *Set) external() bool { return s.state != nil && s.state.Origin == "EXTERNAL" }

// gone reports whether a Region has said that the incarnation of its entry is deleted.
func (s *Set) gone(e Entry) bool {
	m := s.members[e.Region]
	return m != nil && m.Deleted && !guard23Newest.Stops(m.Incarnation < e.Incarnation)
}

// Hash covers all facts, so that two Regions with the same hash have nothing to tell each
// other but materials.
func (s *Set) Hash() Hash {
	h := sha256.New()
	fmt.Fprintf(h, "keyferry/set/v1\x00%s\x00", s.key)
	sum := func(x Hash) { h.Write(x[:]) }
	sum(s.Head())
	if s.state == nil {
		sum(Hash{})
	} else {
		sum(s.state.Hash())
	}
	for _, r := range slices.Sorted(maps.Keys(s.members)) {
		sum(s.members[r].Hash())
	}
	return Hash(h.Sum(nil))
}

// Facts returns what a Region needs that knows the certificates up to and including the
// one of hash after; all certificates if that one is not known here.
func (s *Set) Facts(after Hash) Facts {
	f := Facts{Key: s.key, Certificates: s.chain, State: s.state}
	if s.Entry(s.self.Region).Incarnation < s.incarnation {
		f.Admission = s.admission // the primary Region does not know of this key
	}
	for i := range s.chain {
		if s.chain[i].Hash() == after {
			f.Certificates = s.chain[i+1:]
		}
	}
	for _, r := range slices.Sorted(maps.Keys(s.members)) {
		f.Members = append(f.Members, s.members[r])
	}
	f.Earlier = s.fitting(f)
	return f
}

// Owes returns the materials that this Region holds and that another one, by its own
// newest fact, lacks. A Region that has not yet said anything of its incarnation is owed
// nothing: its word comes first.
func (s *Set) Owes(to region.Name) []material.ID {
	own, its, e := s.Own(), s.members[to], s.Entry(to)
	if own == nil || its == nil || to == s.self.Region || s.external() || s.told || s.destroying {
		return nil
	}
	if its.Deleted || its.Incarnation != e.Incarnation || !e.Status.In() && s.Primary() != to {
		return nil
	}
	var out []material.ID
	for _, id := range own.Held {
		if _, known := s.Known(id); known && !its.Holds(id) {
			out = append(out, id)
		}
	}
	return out
}

// Accepts returns the material that a blob is to be, if this Region takes the blob: it is
// addressed to this incarnation, and a state under a valid certificate lists its material
// (rule 4).
func (s *Set) Accepts(b Blob) (Listed, error) {
	if b.Key != s.key || b.Destination != s.self.Region || b.ToInstance != s.self.Instance || s.incarnation == 0 ||
		guard4Incarnation.Stops(b.Incarnation != s.incarnation) || guard4Deleted.Stops(s.told || s.destroying) {
		return Listed{}, fmt.Errorf("%w: blob for %s %s incarnation %d", ErrForeign, b.Destination, b.ToInstance, b.Incarnation)
	}
	if own := s.Own(); own != nil && guard4Deleted.Stops(own.Deleted && own.Incarnation == s.incarnation) {
		return Listed{}, fmt.Errorf("%w: the key is deleted here", ErrForeign)
	}
	m, ok := s.Known(b.Material)
	if guard4Listed.Stops(!ok) {
		return Listed{}, fmt.Errorf("%w: %s", ErrUnlisted, b.Material)
	}
	return m, nil
}

// Fact returns the newest fact of a Region about itself, or nil.
func (s *Set) Fact(r region.Name) *Member { return s.members[r] }
