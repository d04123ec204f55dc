package mrk

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

// Result says what Merge did.
type Result struct {
	Changed bool      // the set is to be stored
	Gap     bool      // a certificate or state hangs in the air: send from Head on
	Rosters bool      // operators approved a promotion who are not known here: show the changes of that Region's roster
	Epoch   bool      // a newer epoch is known; a Region that acted before does not any more
	State   bool      // a newer state is known
	Fenced  bool      // this Region acted, or had offered the key, and does not any more: a higher epoch is known
	Reborn  bool      // the key here begins a higher incarnation than it knew of: it is Creating
	Rolled  bool      // this Region met a fact of its own that it does not remember
	Refused []Refusal // facts that were not taken, others of the same message may have been
}

// Refusal is a fact that was not taken, and why.
type Refusal struct {
	Writer region.Name
	Cause  Cause // SIGNATURE_INVALID, EPOCH_FORK, EQUIVOCATION, or empty
	Err    error
}

func (r *Result) refuse(writer region.Name, err error) {
	ref := Refusal{Writer: writer, Err: err}
	switch {
	case errors.Is(err, ErrEpochFork):
		ref.Cause = CauseEpochFork
	case errors.Is(err, ErrEquivocation):
		ref.Cause = CauseEquivocation
	case errors.Is(err, ErrGap):
		r.Gap = true
	case errors.Is(err, ErrRosterUnknown):
		r.Rosters = true
	case errors.Is(err, statement.ErrSignature), errors.Is(err, ErrCertificate), errors.Is(err, ErrFormer):
		ref.Cause = CauseSignatureInvalid
	}
	r.Refused = append(r.Refused, ref)
}

// Merge takes what is newer and valid of f, each fact for itself (rules 9, 16 and 20). A
// fact that is older than the one known, or the same, is passed over without looking at its
// signature. The error is of f as a whole.
func (s *Set) Merge(v Verifier, f Facts) (Result, error) {
	var res Result
	if f.Key != s.key {
		return res, fmt.Errorf("%w: facts of key %s", ErrForeign, f.Key)
	}
	for _, m := range f.Members {
		if err := s.mergeMember(v, m, &res); err != nil {
			res.refuse(m.Region, fmt.Errorf("merging member fact of %s: %w", m.Region, err))
		}
	}
	s.mergeCertificates(v, f.Certificates, &res)
	if f.State != nil {
		if err := s.mergeState(v, f.State, &res); err != nil {
			res.refuse(f.State.Epoch.Region, fmt.Errorf("merging state %d of epoch %s: %w", f.State.Seq, f.State.Epoch, err))
		}
	}
	for _, e := range f.Earlier {
		if err := s.mergeEarlier(v, e, &res); err != nil {
			res.refuse(e.State.Epoch.Region, fmt.Errorf("merging what epoch %s listed: %w", e.State.Epoch, err))
		}
	}
	if f.Admission != nil {
		if err := s.mergeAdmission(v, *f.Admission, f.Earlier, &res); err != nil {
			res.refuse(f.Admission.Destination, fmt.Errorf("merging admission of %s: %w", f.Admission.Destination, err))
		}
	}
	s.follow(&res)
	s.dismiss(v, &res)
	s.thaw(v, &res)
	return res, nil
}

// mergeEach takes certificates, each for itself.
func (s *Set) mergeEach(v Verifier, list []Certificate, res *Result) {
	var side []Certificate
	gap, refused := false, len(res.Refused)
	for _, c := range list {
		if gap && c.forced == nil {
			continue // it follows what was refused
		}
		if err := s.mergeCertificate(v, c, &side, res); err != nil {
			res.refuse(c.Epoch.Region, fmt.Errorf("merging certificate of epoch %s: %w", c.Epoch, err))
			if errors.Is(err, ErrRosterUnknown) {
				return // it may be believed once its roster was shown, and what follows it then has its parent
			}
			// A line that operators opened proves itself, whatever it follows: those who approve
			// again, because their roster had changed, do so after what was refused here.
			gap = gap || !errors.Is(err, ErrEpochFork)
		} else if c.forced != nil {
			if gap {
				res.Refused = res.Refused[:refused] // what was before the line does not count any more
			}
			gap = false
		}
	}
}

func (s *Set) mergeMember(v Verifier, m *Member, res *Result) error {
	old := s.members[m.Region]
	if old != nil {
		c := later(v, m, old)
		if c < 0 || c == 0 && bytes.Equal(m.signed.Payload, old.signed.Payload) {
			return nil
		}
	} else if len(s.members) >= MaxMembers {
		return fmt.Errorf("%w: %d members", ErrFull, len(s.members))
	}
	if err := v.Verify(m.Region, m.Instance, m.signed); guard9Member.Stops(err != nil) {
		return err
	}
	if m.Region == s.self.Region {
		s.recall(m, res)
		return nil
	}
	if old != nil && later(v, m, old) == 0 && s.apart(m) {
		// Nobody's word, which must not be able to freeze a key that it has no part in: all
		// Regions keep the same one of its facts.
		if bytes.Compare(m.signed.Payload, old.signed.Payload) < 0 {
			return nil
		}
	} else if old != nil && later(v, m, old) == 0 {
		s.freeze(Conflict{
			Cause: CauseEquivocation, Writer: m.Region, Incarnation: m.Incarnation, Number: m.Counter, Evidence: m.signed.Marshal(),
		}, res)
		return fmt.Errorf("%w: counter %d of incarnation %d", ErrEquivocation, m.Counter, m.Incarnation)
	}
	s.members = maps.Clone(s.members)
	s.members[m.Region] = m
	res.Changed = true
	return nil
}

// apart reports whether a Region that has written a member fact has no part in the key: it never
// had, or the newest state has ended the membership, and nobody has admitted it again. It may
// never number past what it said.
func (s *Set) apart(m *Member) bool {
	e := s.Entry(m.Region)
	return !s.Concerns(m.Region) || !e.Status.In() && (e.Incarnation >= m.Incarnation || m.Incarnation > s.admitted[m.Region])
}

// recall handles a fact of this Region's own that is newer than what it remembers, or
// another one with the same number: store or token were rolled back (rule 20). The next
// Reissue counts above it.
func (s *Set) recall(m *Member, res *Result) {
	res.Changed = s.spend(m.Spent) || res.Changed // whichever instance wrote it: what it encrypted exists
	if m.Instance != s.self.Instance {
		return // of the instance before this one; incarnations go on above it
	}
	res.Changed, res.Rolled = true, true
	if m.Incarnation == s.incarnation && guard13Refused.Stops(m.Refused != Nonce{}) {
		s.refused, s.refusedFor = m.Refused, m.RefusedFor // a refusal is final
	}
	own := s.Own()
	deleted := own != nil && own.Deleted && own.Incarnation == s.incarnation
	switch {
	case m.Incarnation < s.incarnation || s.incarnation == 0:
		// An incarnation that is over, or a key that is only being admitted.
	case s.Acting() && (m.Incarnation > s.incarnation || m.Deleted && !deleted):
		s.incarnation, s.floor = m.Incarnation, 0
		if m.Deleted {
			s.incarnation++ // promoted since; the next Step says so
		}
	case m.Incarnation > s.incarnation:
		s.incarnation, s.floor, s.told = m.Incarnation, 0, m.Deleted
		res.Reborn = !m.Deleted
	case guard20Told.Stops(m.Deleted && !deleted):
		s.told = true
	}
	if m.Incarnation == s.incarnation {
		s.floor = max(s.floor, m.Counter)
	}
}

func (s *Set) mergeState(v Verifier, st *State, res *Result) error {
	i := slices.IndexFunc(s.chain, func(c Certificate) bool { return c.Epoch == st.Epoch })
	if i < 0 {
		return ErrGap
	}
	writer := s.chain[i]
	if s.state != nil {
		c := st.Compare(s.state)
		if c < 0 || c == 0 && bytes.Equal(st.signed.Payload, s.state.signed.Payload) {
			return nil
		}
		if !st.sameProperties(s.state) {
			return ErrProperties
		}
	}
	if former(v, writer.Epoch.Region, writer.Instance) {
		return ErrFormer
	}
	if err := v.Verify(writer.Epoch.Region, writer.Instance, st.signed); guard9State.Stops(err != nil) {
		return err
	}
	mine := writer.Epoch.Region == s.self.Region && writer.Instance == s.self.Instance
	if s.state != nil && st.Compare(s.state) == 0 {
		if guard9Once.Stops(!mine) {
			s.freeze(Conflict{
				Cause: CauseEquivocation, Writer: writer.Epoch.Region, Epoch: st.Epoch, Number: st.Seq, Evidence: st.signed.Marshal(),
			}, res)
			return fmt.Errorf("%w: state %d", ErrEquivocation, st.Seq)
		}
		if s.permit == (Nonce{}) {
			// The renewal supersedes both. Whom this one lists must not be forgotten by it: they
			// were admitted by this Region before it was rolled back.
			res.Changed = s.remember(st) || res.Changed
			return nil
		}
	}
	if mine {
		if guard20Permit.Stops(true) {
			s.permit = Nonce{} // written by this Region and not remembered: it was rolled back
		}
		res.Rolled = true
	}
	s.take(st)
	res.Changed, res.State = true, true
	return nil
}

// mergeAdmission believes that a Region is a member if a Region that was primary has signed
// so, whatever the states say that are known here. The Region has to say so itself, too: what
// is remembered is bounded, and nobody's name takes a place.
func (s *Set) mergeAdmission(v Verifier, req CreateRequest, earlier []Earlier, res *Result) error {
	if req.Incarnation <= s.admitted[req.Destination] {
		return nil
	}
	if guard21Self.Stops(req.Source == req.Destination) {
		// A primary Region has no request for itself, but a former one could write it, and
		// come back after its eviction.
		return fmt.Errorf("%w: %s asks for itself", ErrRequest, req.Source)
	}
	if former(v, req.Source, req.Instance) {
		return fmt.Errorf("%w: %w", ErrRequest, ErrFormer) // or a Region that was evicted could come back
	}
	if !s.wasPrimary(req.Source, req.Instance) && !s.outranked(v, earlier, req.Source, req.Instance) {
		return fmt.Errorf("%w: %s was never the primary Region", ErrRequest, req.Source)
	}
	if err := v.Verify(req.Source, req.Instance, req.signed); err != nil {
		return err
	}
	if word := s.members[req.Destination]; word == nil || word.Incarnation < req.Incarnation {
		return nil
	}
	s.admit(req.Destination, req.Incarnation)
	res.Changed = true
	return nil
}

// follow takes over what the newest state says of this Region.
func (s *Set) follow(res *Result) {
	if s.state == nil || s.incarnation == 0 {
		return
	}
	e := s.Entry(s.self.Region)
	if e.Instance != s.self.Instance || !e.Status.In() || e.Incarnation <= s.incarnation {
		return
	}
	if own := s.Own(); own != nil && own.Deleted && own.Incarnation == s.incarnation && !s.told {
		return // a tombstone needs a create request, whose policy the new key gets: Admit
	}
	s.rebirth(e.Incarnation)
	res.Changed, res.Reborn = true, true
}

func (s *Set) freeze(c Conflict, res *Result) {
	if s.frozen == nil {
		s.frozen = &c
		res.Changed = true
	}
}

// thaw ends a freeze when the writer has numbered past both of its facts, so that neither
// counts any more, or when it is a member no more, or of an instance that is no more: it may
// never do so, and what it has said of itself is history. A fork ends with a later line only.
func (s *Set) thaw(v Verifier, res *Result) {
	f := s.frozen
	if f == nil {
		return
	}
	over := false
	switch {
	case f.Cause == CauseEpochFork:
		over = s.Epoch().Line.Compare(f.Epoch.Line) > 0
	case f.Epoch.IsZero():
		m := s.members[f.Writer]
		over = m != nil && (m.Compare(&Member{Incarnation: f.Incarnation, Counter: f.Number}) > 0 || former(v, m.Region, m.Instance) || s.apart(m))
	default:
		over = s.state != nil && s.state.Compare(&State{Epoch: f.Epoch, Seq: f.Number}) > 0
	}
	if over {
		s.frozen = nil
		res.Changed = true
	}
}
