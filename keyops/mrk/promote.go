package mrk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

var (
	// ErrActing means that this Region acts as the primary Region already.
	ErrActing = errors.New("this Region acts as the primary Region")
	// ErrStale means that operators approved a promotion after another certificate than the
	// newest one here, or with a generation that is not above all known here.
	ErrStale = errors.New("approved for what is not the newest any more")
	// ErrUnusable means that this Region does not hold the material that it encrypts with.
	ErrUnusable = errors.New("current material not held here")
	// ErrRosterUnknown means that the operators are not known here who approved a promotion.
	ErrRosterUnknown = errors.New("operators' roster not known here")
)

// NextGeneration returns the lowest generation that a forced promotion of this key may have.
func (s *Set) NextGeneration() uint64 { return s.Epoch().Line.Generation + 1 }

// Approved is what a target has in its hands when it promotes itself.
type Approved struct {
	Promotion Promotion
	Proof     ListProof // that this key is on the list
	Approvals []statement.File
	Roster    approval.Roster // the newest of this Region
	Now       time.Time       // by this Region's clock; the one that expiry is measured with
}

// Promote makes this Region the primary Region without the consent of the one before (rule
// 17): a new line, which outranks every hand-over. It is also what ends a fork, and a
// hand-over whose target is lost: then the Region that offered is promoted again. That the
// approvals have not been used for this key before follows from their generation; the caller
// remembers the request beside, in the same transaction.
func (s *Set) Promote(ctx context.Context, signer Signer, a Approved, c Contact) ([]Event, error) {
	p := a.Promotion
	own := s.Own()
	switch {
	case len(s.chain) == 0 || s.state == nil || own == nil:
		return nil, fmt.Errorf("%w: nothing is known of the key", ErrGap)
	case s.told || s.destroying || guard17Enabled.Stops(!s.enabled()):
		return nil, ErrNotEnabled
	case guard17Acting.Stops(s.Acting() && s.frozen == nil):
		return nil, ErrActing
	case guard17Current.Stops(!s.holds().has(own.Current)):
		return nil, ErrUnusable
	case p.Target != s.self.Region || p.Instance != s.self.Instance || slices.Contains(p.Suspend, s.self.Region):
		return nil, fmt.Errorf("%w: approved for %s %s", ErrForeign, p.Target, p.Instance)
	case guard17Generation.Stops(p.Generation < s.NextGeneration()):
		return nil, fmt.Errorf("%w: generation %d, known is %d", ErrStale, p.Generation, s.Epoch().Line.Generation)
	}
	if p.Suspend = p.dark(); len(p.Suspend) > maxSuspended {
		return nil, fmt.Errorf("%w: %d Regions not waited for, at most %d", ErrFull, len(p.Suspend), maxSuspended)
	}
	a.Promotion = p
	if f := (&forced{promotion: p, proof: a.Proof}); guard17Newest.Stops(p.Keys != a.Proof.Count || !f.lists(ListedKey{s.key, s.Head()})) {
		return nil, fmt.Errorf("%w: this key with its newest certificate is not on the approved list", ErrStale)
	}
	if err := a.Roster.Check(p.Request(), a.Now, a.Approvals); guard17Approved.Stops(err != nil) {
		return nil, err
	}
	nonce, err := c.Nonce()
	if err != nil {
		return nil, err
	}
	cert := s.successor(nonce)
	cert.Epoch = Epoch{Line: Line{p.Generation, s.self.Region, nonce}, Region: s.self.Region, Nonce: nonce}
	cert.Force(a)
	if err := cert.Sign(ctx, signer); err != nil {
		return nil, err
	}
	st := s.state.clone()
	s.begin(append(room(s.chain), cert))
	s.open(st, cert.Epoch, c)
	for i, m := range st.Members {
		if m.Region != s.self.Region && m.Status.In() && slices.Contains(p.Suspend, m.Region) {
			st.Members[i].Status = Suspended
		}
	}
	if err := s.publish(ctx, signer, st); err != nil {
		return nil, err
	}
	s.thaw(nil, &Result{})
	return []Event{{Kind: EventPromoted, Region: s.self.Region}}, nil
}

// maxLines bounds the lines in a chain: the certificate that opens one carries approvals.
const maxLines = 8

// room returns the chain that a certificate which opens a line follows: what is known, or
// nothing if that is full. Such a certificate proves itself by its approvals, so a chain can
// begin with it, and what a full chain forgets is only who was primary long ago.
func room(chain []Certificate) []Certificate {
	lines := 0
	for _, c := range chain {
		if c.forced != nil {
			lines++
		}
	}
	if len(chain) >= MaxCertificates-roomInside || lines >= maxLines {
		return nil
	}
	return slices.Clip(chain)
}

// roomInside is how many certificates a line can grow by at least before it is full.
const roomInside = 128
