package mrk

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/region"
)

// Contact is what a Region knows beside facts.
type Contact struct {
	// Regions are all other Regions of the deployment, members or not: a primary Region
	// restored from a backup does not know whom it has forgotten.
	Regions []region.Name
	// Heard reports whether the Region has told all it knows of this key since this start,
	// in an exchange begun by this Region after it.
	Heard func(region.Name) bool
	// Nonce returns a fresh nonce.
	Nonce func() (Nonce, error)
	// Now returns Unix seconds, for people: they order nothing.
	Now func() int64
	// Verifier knows, if it is a Historian, which instances are no more. It may be nil.
	Verifier Verifier
}

// EventKind says what Step did.
type EventKind string

// Kinds of events.
const (
	EventRenewed   EventKind = "PrimaryRenewed" // this Region acts again, in a new epoch
	EventTakenBack EventKind = "MaterialTakenBack"
	EventRemoved   EventKind = "ReplicaRemoved"
	EventAdopted   EventKind = "ReplicaAdopted"
	EventDemoted   EventKind = "ReplicaRejoining"
	EventActivated EventKind = "ReplicaActive"
	EventReleased  EventKind = "RotateKey" // the pending material is current
	EventAccepted  EventKind = "PrimaryAccepted"
	EventDeclined  EventKind = "PrimaryDeclined" // the Region that the key was offered to refused; this one goes on
	EventPromoted  EventKind = "PrimaryPromoted" // by operators
)

// Event is one thing that Step did.
type Event struct {
	Kind     EventKind
	Region   region.Name
	Material material.ID
	Holders  int    // of a released material: Regions known to hold it
	Reason   string // of a refusal, for people
}

// Step does what the acting primary Region does by itself: it renews its term (rule 18),
// lists what it was found to hold, removes members that are deleted (23), adopts members
// that it had forgotten (21), demotes and activates members by what they prove (11, 5), and
// releases the pending material (8). It relies on this Region's own fact being up to date.
func (s *Set) Step(ctx context.Context, signer Signer, c Contact) (changed bool, events []Event, err error) {
	var res Result
	s.thaw(c.Verifier, &res)
	if s.frozen != nil || s.state == nil || s.Own() == nil {
		return res.Changed, nil, nil
	}
	st := s.state.clone()
	if s.sealed != nil || !s.Acting() {
		if events, err = s.goOn(ctx, signer, st, c); err != nil || len(events) == 0 {
			return res.Changed && err == nil, nil, err
		}
	}
	rules := []func(*State, Contact) []Event{s.ownEntry, s.takeBack, s.remove, s.adopt, s.demote, s.activate, s.release}
	for _, rule := range rules {
		events = append(events, rule(st, c)...)
	}
	if len(events) == 0 {
		return res.Changed, nil, nil
	}
	if err := s.publish(ctx, signer, st); err != nil {
		return false, nil, err
	}
	s.requests = maps.Clone(s.requests)
	maps.DeleteFunc(s.requests, func(r region.Name, _ CreateRequest) bool {
		status := s.Entry(r).Status
		return status == Active || !status.In()
	})
	return true, slices.DeleteFunc(events, func(e Event) bool { return e.Kind == "" }), nil
}

// holds returns this Region's materials, by its own newest fact.
func (s *Set) holds() idSet {
	if own := s.Own(); own.Incarnation == s.incarnation {
		return own.Held
	}
	return nil
}

// uses returns what this Region encrypts with.
func (s *Set) uses() material.ID {
	if own := s.Own(); !own.Current.IsZero() {
		return own.Current
	}
	return s.state.Current
}

// heardAll reports whether every Region that may have acted on the key has been heard since
// this start. Members that operators suspended or evicted need not be. A member that is
// joining must be: in the time that a restored store has forgotten it may have become active.
func (s *Set) heardAll(c Contact) bool {
	for _, r := range c.Regions {
		switch s.Entry(r).Status {
		case Suspended, Evicted, Retained:
		default:
			if r != s.self.Region && !c.Heard(r) {
				return false
			}
		}
	}
	return true
}

// goOn opens this Region's next epoch, if it is to act again: after a refusal of its offer
// (rule 15), or because it lost its permit (18).
func (s *Set) goOn(ctx context.Context, signer Signer, st *State, c Contact) ([]Event, error) {
	event := Event{Kind: EventRenewed, Region: s.self.Region}
	next := uint64(1)
	if s.sealed != nil {
		why, declined := s.declined()
		if !declined {
			return nil, nil
		}
		event = Event{Kind: EventDeclined, Region: s.sealed.Epoch.Region, Reason: why}
		if guard15Burn.Stops(true) {
			next = 2 // nobody can accept a number that is over
		}
	}
	if kept := s.sealed != nil && s.named() && s.permit == s.head().Epoch.Nonce && !s.told && !s.destroying; !kept && !s.mayRenew(c) {
		return nil, nil
	}
	return s.renew(ctx, signer, st, c, next, event)
}

// mayRenew is the guard of rule 18.
func (s *Set) mayRenew(c Contact) bool {
	e := s.Entry(s.self.Region)
	if guard18Named.Stops(!s.named()) || s.told || s.destroying || s.permit != (Nonce{}) {
		return false
	}
	if s.Own().Deleted || e.Status == Evicted || e.Status == Retained || len(s.chain) >= MaxCertificates {
		return false
	}
	if !s.external() && guard18Current.Stops(!s.holds().has(s.uses())) {
		return false
	}
	return !guard18Heard.Stops(!s.heardAll(c))
}

// renew opens this Region's next epoch on the state that it knows, so many numbers further.
func (s *Set) renew(ctx context.Context, signer Signer, st *State, c Contact, numbers uint64, event Event) ([]Event, error) {
	nonce, err := c.Nonce()
	if err != nil {
		return nil, err
	}
	cert := s.successor(nonce)
	cert.Epoch.Number += numbers
	if err := cert.Sign(ctx, signer); err != nil {
		return nil, err
	}
	s.begin(append(slices.Clip(s.chain), cert))
	s.open(st, cert.Epoch, c)
	return []Event{event}, nil
}

// open turns the last state known into the first one of this Region's new epoch: only what
// is held here is listed (what members of earlier epochs hold beside is still Known, and
// accepted), and nothing is proven yet of the others.
func (s *Set) open(st *State, e Epoch, c Contact) {
	st.Epoch, st.Seq = e, 0
	held := s.holds()
	if !s.external() {
		st.Materials = slices.DeleteFunc(st.Materials, func(m Listed) bool { return !m.WrittenOff && !held.has(m.ID) })
		s.takeBack(st, c)
		// This may be older than what the last state said, if that was never held here.
		st.Current = s.uses()
		if st.listed(st.Pending) == nil || st.Pending == st.Current {
			st.Pending = material.ID{}
		}
	}
	for i, m := range st.Members {
		if m.Region != s.self.Region && guard13Prove.Stops(m.Status == Active) {
			st.Members[i].Status = Rejoining
		}
	}
	st.setEntry(Entry{s.self.Region, s.self.Instance, s.incarnation, Active})
}

// ownEntry corrects this Region's incarnation after a fact of its own came back.
func (s *Set) ownEntry(st *State, _ Contact) []Event {
	want := Entry{s.self.Region, s.self.Instance, s.incarnation, Active}
	if st.Entry(s.self.Region) == want {
		return nil
	}
	st.setEntry(want)
	return []Event{{}}
}

// takeBack lists what this Region holds and the state does not: materials found in the
// token after a restore, or sent by members of an earlier line. Of imported ones only those
// that it has used: the others are pending imports that were taken back.
func (s *Set) takeBack(st *State, c Contact) (events []Event) {
	for _, id := range s.holds() {
		if s.external() && !slices.Contains(s.Own().Used, id) {
			continue
		}
		if l := st.listed(id); l != nil {
			if l.WrittenOff { // given up, and found after all
				l.WrittenOff = false
				events = append(events, Event{Kind: EventTakenBack, Region: s.self.Region, Material: id})
			}
			continue
		}
		m, ok := s.Known(id)
		if !ok {
			m = Listed{ID: id, Created: c.Now(), Reason: ReasonTakenBack}
		}
		if s.list(st, m) == nil {
			events = append(events, Event{Kind: EventTakenBack, Region: s.self.Region, Material: id})
		}
	}
	return events
}

// remove is rule 23.
func (s *Set) remove(st *State, _ Contact) (events []Event) {
	for i, e := range st.Members {
		if e.Region != s.self.Region && e.Status != Removed && s.gone(e) {
			st.Members[i].Status = Removed
			st.Members[i].Incarnation = max(e.Incarnation, s.members[e.Region].Incarnation)
			events = append(events, Event{Kind: EventRemoved, Region: e.Region})
		}
	}
	return events
}

// adopt is rule 21. A Region's own word is not enough: it is adopted as an incarnation that
// a primary Region has admitted, or a hostile peer could make itself a member of any key
// and be sent its materials.
func (s *Set) adopt(st *State, _ Contact) (events []Event) {
	for _, m := range s.sortedMembers() {
		e := st.Entry(m.Region)
		unknown := m.Incarnation > e.Incarnation || m.Incarnation == e.Incarnation && e.Status == Removed
		if e.Status == Evicted && m.Incarnation == e.Incarnation && !guard21Evicted.Stops(true) {
			unknown = true
		}
		if m.Region == s.self.Region || m.Deleted || !unknown || e.Incarnation == 0 && len(st.Members) >= MaxMembers {
			continue
		}
		if guard21Admitted.Stops(m.Incarnation > s.admitted[m.Region]) {
			continue
		}
		st.setEntry(Entry{m.Region, m.Instance, m.Incarnation, Joining})
		events = append(events, Event{Kind: EventAdopted, Region: m.Region})
	}
	return events
}

// demote is rule 11.
func (s *Set) demote(st *State, _ Contact) (events []Event) {
	if s.external() {
		return nil
	}
	held := s.holds()
	need := held.without(st.Pending)
	for i, e := range st.Members {
		m := s.members[e.Region]
		if e.Region == s.self.Region || e.Status != Active || m == nil || m.Deleted {
			continue
		}
		if guard11Held.Stops(!need.within(m.Held)) || guard11Used.Stops(!s.live(m.Used).within(held)) {
			st.Members[i].Status = Rejoining
			events = append(events, Event{Kind: EventDemoted, Region: e.Region})
		}
	}
	return events
}

// activate is rule 5. Nobody is Active before it has proven, in this epoch, that both sides
// hold what either may have used.
func (s *Set) activate(st *State, _ Contact) (events []Event) {
	for i, e := range st.Members {
		if e.Status.In() && e.Status != Active && s.proven(st, e) {
			st.Members[i].Status = Active
			events = append(events, Event{Kind: EventActivated, Region: e.Region})
		}
	}
	return events
}

func (s *Set) proven(st *State, e Entry) bool {
	m := s.members[e.Region]
	if !s.joined(st, e) {
		return false
	}
	if guard5Suspended.Stops(e.Status == Suspended && m.Seq < st.Seq) {
		return false // what it said before it was suspended is no sign of life
	}
	if s.external() {
		// A new replica takes no import before it is Active, and is awaited from then on.
		return m.KeyState == stateCreating || st.Pending.IsZero() || m.Holds(st.Pending)
	}
	held, used := s.holds(), s.live(m.Used)
	if guard5Holds.Stops(!held.within(m.Held)) || guard5Used.Stops(!used.within(held)) {
		return false
	}
	// Demote, which came before, leaves no Active member that lacks what is held here. The
	// rule does not rely on that order.
	for _, y := range st.Members {
		if y.Status != Active || y.Region == e.Region || y.Region == s.self.Region || s.gone(y) {
			continue
		}
		if its := s.members[y.Region]; guard5Others.Stops(its == nil || !used.within(its.Held)) {
			return false
		}
	}
	return true
}

// joined reports whether a member's newest fact is of the incarnation that is listed, of
// this epoch, and not its last. A fact of an earlier epoch proves nothing: its writer may
// still encrypt with what only that epoch knew.
func (s *Set) joined(st *State, e Entry) bool {
	m := s.members[e.Region]
	switch {
	case m == nil || m.Instance != e.Instance:
	case guard5Deleted.Stops(m.Deleted), guard5Incarnation.Stops(m.Incarnation != e.Incarnation), guard5Joined.Stops(m.Joined != st.Epoch):
	default:
		return true
	}
	return false
}

// live leaves out what operators have written off.
func (s *Set) live(ids []material.ID) idSet {
	return slices.DeleteFunc(slices.Clone(ids), func(id material.ID) bool {
		m := s.state.listed(id)
		return m != nil && m.WrittenOff
	})
}

// release is rule 8: one transaction at one writer. Before it nobody encrypts with the
// pending material, after it everybody awaited holds it.
func (s *Set) release(st *State, c Contact) []Event {
	if st.Pending.IsZero() || s.external() || guard8Heard.Stops(!s.heardAll(c)) {
		return nil
	}
	holding, awaited := s.barrier(st)
	if len(awaited) > 0 || guard8Alone.Stops(len(holding) == 1 && s.lonely(st) && s.alone != st.Pending) {
		return nil
	}
	return []Event{s.releaseTo(st, c, len(holding))}
}

// releaseTo makes the pending material current.
func (s *Set) releaseTo(st *State, c Contact, holders int) Event {
	m := st.listed(st.Pending)
	m.Released, m.Holders = c.Now(), uint64(holders)
	st.Current, st.Pending, s.alone = st.Pending, material.ID{}, material.ID{}
	return Event{Kind: EventReleased, Region: s.self.Region, Material: st.Current, Holders: holders}
}

func (s *Set) sortedMembers() []*Member {
	out := make([]*Member, 0, len(s.members))
	for _, m := range s.members {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b *Member) int { return strings.Compare(string(a.Region), string(b.Region)) })
	return out
}
