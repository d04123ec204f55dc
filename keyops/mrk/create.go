package mrk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/region"
)

// Properties are fixed when a key is made and the same in every Region.
type Properties struct {
	Key     arn.KeyID
	Account arn.Account
	Spec    string
	Usage   string
	Origin  string
	Created int64 // Unix seconds
}

// Create makes the set of a new multi-Region key, of which this Region is the primary
// Region (rule 1). The first material has a zero ID if the key's material is imported
// later. The nonce is fresh. The caller calls Reissue before it stores the set.
func Create(ctx context.Context, signer Signer, self Self, p Properties, first Listed, nonce Nonce) (*Set, error) {
	if nonce == (Nonce{}) {
		return nil, errors.New("nonce of zeros") // it would be no permit
	}
	s := newSet(self, p.Key)
	cert := Certificate{
		Key:      p.Key,
		Epoch:    Epoch{Line: Line{Region: self.Region, Nonce: nonce}, Region: self.Region, Nonce: nonce},
		Instance: self.Instance,
	}
	if err := cert.Sign(ctx, signer); err != nil {
		return nil, err
	}
	st := &State{
		Key: p.Key, Epoch: cert.Epoch, Account: p.Account, Spec: p.Spec, Usage: p.Usage, Origin: p.Origin, Created: p.Created,
		Members: []Entry{{self.Region, self.Instance, 1, Active}},
	}
	if !first.ID.IsZero() {
		first.Birth, first.Released, first.Holders = nonce, p.Created, 1
		st.Materials = []Listed{first}
		st.Current = first.ID
	}
	s.chain, s.permit, s.incarnation = []Certificate{cert}, nonce, 1
	return s, s.publish(ctx, signer, st)
}

func newSet(self Self, key arn.KeyID) *Set {
	return &Set{
		self: self, key: key, members: map[region.Name]*Member{},
		requests: map[region.Name]CreateRequest{}, known: map[material.ID]Listed{}, admitted: map[region.Name]uint64{},
	}
}

// publish signs a state with the next sequence number and takes it.
func (s *Set) publish(ctx context.Context, signer Signer, st *State) error {
	st.Seq++
	if err := st.check(); err != nil {
		return err
	}
	if err := st.Sign(ctx, signer); err != nil {
		return err
	}
	s.take(st)
	return nil
}

// take makes st the newest state and remembers what it lists.
func (s *Set) take(st *State) {
	s.leaveBehind(st)
	s.state = st
	s.remember(st)
	for _, l := range st.Materials {
		if _, ok := s.known[l.ID]; ok {
			s.known[l.ID] = l // as the newest state says, whatever earlier ones do
		}
	}
	s.forget()
}

// remember keeps what outlives a state: the materials that it lists, and whom a primary
// Region has admitted. It reports whether a material or a member was not known before.
func (s *Set) remember(st *State) (news bool) {
	news = s.know(st)
	for _, e := range st.Members {
		news = news || e.Incarnation > s.admitted[e.Region]
		s.admit(e.Region, e.Incarnation)
	}
	return news
}

// know keeps the materials that a state lists, and reports whether one was not known before.
func (s *Set) know(st *State) (news bool) {
	for _, m := range st.Materials {
		if _, ok := s.known[m.ID]; !ok && len(s.known) < 2*MaxMaterials {
			s.known[m.ID], news = m, true
		}
	}
	return news
}

// admit remembers that a primary Region has admitted a member.
func (s *Set) admit(r region.Name, incarnation uint64) {
	if _, ok := s.admitted[r]; ok || len(s.admitted) < MaxMembers {
		s.admitted[r] = max(s.admitted[r], incarnation)
	}
}

// manage returns a copy of the state to change, if this Region may manage the key now.
func (s *Set) manage() (*State, error) {
	if guardFrozen.Stops(s.frozen != nil) {
		return nil, fmt.Errorf("%w: %s by %s", ErrFrozen, s.frozen.Cause, s.frozen.Writer)
	}
	return s.write()
}

// write is like manage, and asks for no contradictions.
func (s *Set) write() (*State, error) {
	switch {
	case guardSealed.Stops(s.sealed != nil):
		return nil, fmt.Errorf("%w: epoch %s", ErrOffered, s.sealed.Epoch)
	case guardActing.Stops(!s.Acting()):
		return nil, fmt.Errorf("%w: it is %s", ErrNotPrimary, s.Primary())
	}
	return s.state.clone(), nil
}

// enabled reports whether the key here is Enabled, or Updating, which only an Enabled key
// becomes.
func (s *Set) enabled() bool {
	own := s.Own()
	return own != nil && own.Incarnation == s.incarnation && (own.KeyState == stateEnabled || own.KeyState == stateUpdating)
}

// Key states that the rules know.
const (
	stateCreating = "Creating"
	stateDisabled = "Disabled"
	stateEnabled  = "Enabled"
	stateUpdating = "Updating"
)

// AddMember lists a Region as a new member with the next incarnation and keeps the request
// by which the Region makes its replica (rule 2). A member that never spoke, and whose
// request this Region has lost in a restore or a promotion, is asked for again. One that has
// the key and can show nobody's request any more begins another incarnation. Of the
// request, the caller sets principal, correlation ID, description, policy and tags. That the
// key is Enabled and that the destination allows it has been checked before.
func (s *Set) AddMember(ctx context.Context, signer Signer, to region.Name, instance region.InstanceID, req CreateRequest) error {
	st, err := s.manage()
	if err != nil {
		return err
	}
	e, incarnation := st.Entry(to), uint64(0)
	if m := s.members[to]; m != nil {
		if m.Incarnation > e.Incarnation && m.Incarnation <= s.admitted[to] && !m.Deleted {
			return fmt.Errorf("%w: %s says so", ErrMember, to) // adopted by the next Step
		}
		incarnation = m.Incarnation
	}
	switch {
	case to == s.self.Region, guard2Member.Stops(e.Status.In() && !s.gone(e) && !s.Forgotten(to)):
		return fmt.Errorf("%w: %s", ErrMember, to)
	case e.Incarnation == 0 && len(st.Members) >= MaxMembers:
		return fmt.Errorf("%w: %d members", ErrFull, len(st.Members))
	}
	req.Key, req.Source, req.Instance = s.key, s.self.Region, s.self.Instance
	req.Destination, req.ToInstance, req.Incarnation = to, instance, max(e.Incarnation, incarnation)
	if guard2Incarnation.Stops(true) || req.Incarnation == 0 {
		req.Incarnation++
	}
	if err := req.Sign(ctx, signer); err != nil {
		return err
	}
	if _, err := ParseCreateRequest(req.signed); err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	st.setEntry(Entry{to, instance, req.Incarnation, Joining})
	if err := s.publish(ctx, signer, st); err != nil {
		return err
	}
	s.requests = maps.Clone(s.requests)
	s.requests[to] = req
	return nil
}

// Forgotten reports whether a Region is listed as a member, was never heard as one, and will
// not be: nobody keeps the request by which it would make its replica. The instance before may
// have been heard, at the request of another Region.
func (s *Set) Forgotten(r region.Name) bool {
	e, m := s.Entry(r), s.members[r]
	_, kept := s.Request(r)
	return s.Acting() && !kept && (e.Status == Joining || e.Status == Suspended) && (m == nil || m.Incarnation < e.Incarnation || m.Instance != e.Instance)
}

// list adds a material to a state that is being changed.
func (s *Set) list(st *State, m Listed) error {
	if len(st.Materials) >= MaxMaterials {
		return fmt.Errorf("%w: %d materials", ErrFull, len(st.Materials))
	}
	if slices.ContainsFunc(st.Materials, func(l Listed) bool { return l.ID.Prefix() == m.ID.Prefix() }) {
		return fmt.Errorf("%w: %s", ErrMaterial, m.ID)
	}
	if m.Birth == (Nonce{}) {
		m.Birth = st.Epoch.Nonce
	}
	st.Materials = append(st.Materials, m)
	return nil
}

// Join makes the set of a key that this Region is asked to replicate (rule 3): facts with
// the whole chain of certificates, a state that lists this Region, and the request signed
// by the primary Region.
func Join(self Self, v Verifier, f Facts, req CreateRequest) (*Set, error) {
	s := newSet(self, f.Key)
	res, err := s.Merge(v, f)
	if err != nil {
		return nil, err
	}
	if len(res.Refused) > 0 {
		return nil, res.Refused[0].Err
	}
	return s, s.Admit(v, req)
}

// Admit lets the key begin a new incarnation here, if the primary Region asks for it and
// the newest state agrees. Policy, account and quota are the caller's to check.
func (s *Set) Admit(v Verifier, req CreateRequest) error {
	if s.state == nil || s.state.Epoch != s.Epoch() {
		return fmt.Errorf("%w: no state of the newest epoch", ErrGap)
	}
	head := s.head()
	if req.Key != s.key || req.Destination != s.self.Region || req.ToInstance != s.self.Instance {
		return fmt.Errorf("%w: create request for %s %s", ErrForeign, req.Destination, req.ToInstance)
	}
	if guard3Request.Stops(req.Source != head.Epoch.Region || req.Instance != head.Instance) {
		return fmt.Errorf("%w: from %s, the primary Region is %s", ErrRequest, req.Source, head.Epoch.Region)
	}
	if err := v.Verify(req.Source, req.Instance, req.signed); err != nil {
		return fmt.Errorf("verifying create request: %w", err)
	}
	e := s.Entry(s.self.Region)
	if !e.Status.In() || e.Instance != s.self.Instance || e.Incarnation != req.Incarnation {
		return fmt.Errorf("%w: incarnation %d is %s in the state, %d is asked for", ErrRequest, e.Incarnation, e.Status, req.Incarnation)
	}
	if guard3Newer.Stops(req.Incarnation <= s.incarnation) {
		return fmt.Errorf("%w: incarnation %d is over", ErrRequest, req.Incarnation)
	}
	s.rebirth(req.Incarnation)
	s.admission = &req
	return nil
}

// KeepAdmission keeps the create request of an incarnation that a state has begun here, and
// reports whether it did. A Region that was promoted without having heard of that state
// believes the request, and not this Region's word (rule 21).
func (s *Set) KeepAdmission(v Verifier, req CreateRequest) bool {
	mine := req.Key == s.key && req.Destination == s.self.Region && req.ToInstance == s.self.Instance && req.Source != s.self.Region
	if !mine || req.Incarnation != s.incarnation || s.admission != nil && s.admission.Incarnation >= req.Incarnation {
		return false
	}
	if !s.wasPrimary(req.Source, req.Instance) || v.Verify(req.Source, req.Instance, req.signed) != nil {
		return false
	}
	s.admission = &req
	return true
}

// rebirth begins a new incarnation of the key here.
func (s *Set) rebirth(incarnation uint64) {
	s.incarnation, s.told, s.destroying, s.floor = incarnation, false, false, 0
	s.offer, s.refused, s.refusedFor = nil, Nonce{}, ""
	if own := s.Own(); own != nil && own.Incarnation == s.incarnation {
		s.floor = own.Counter
	}
}
