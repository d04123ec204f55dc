package keyops

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// Operations that take the approvals of operators beside the permission of the caller. What
// is asked is made from the key as it is, under its lock, and never from what the caller
// says, so that an approval counts for what operators have read, or for nothing.

// Approvals are what operators say to an operation.
type Approvals struct {
	Files   [][]byte      // approvals, as "keyferry approve" writes them; at most one of each operator counts
	Request bool          // change nothing: the answer is the request that operators are to approve
	Life    time.Duration // of the request that is asked for; 0 = 24 hours, at most 7 days
}

// defaultLife is how long operators have to approve, and the caller to use the approvals.
const defaultLife = 24 * time.Hour

// parse reads the approvals, and refuses what no approval can be.
func (a Approvals) parse() ([]statement.File, error) {
	if len(a.Files) > approval.MaxOperators {
		return nil, invalid("approvals", "have at most %d members", approval.MaxOperators)
	}
	if a.Life < 0 || a.Life > approval.MaxLife || a.Life%time.Second != 0 {
		return nil, invalid("approvalLife", "have value between 1 second and %d days, in whole seconds", approval.MaxLife/day)
	}
	if a.Request && len(a.Files) > 0 {
		return nil, invalid("requestApprovals", "not be set together with approvals: they are given, or asked for")
	}
	var files []statement.File
	for i, b := range a.Files {
		var f statement.File
		if err := statement.UnmarshalJSON(b, &f); err != nil {
			return nil, &Error{Reason: ErrValidation, cause: err, Message: fmt.Sprintf("Approval %d is no file that keyferry approve has written.", i+1)}
		}
		if _, err := approval.RequestOf(f); err != nil {
			return nil, &Error{Reason: ErrValidation, cause: err, Message: fmt.Sprintf("Approval %d is no approval of a request that this version knows.", i+1)}
		}
		files = append(files, f)
	}
	return files, nil
}

// consent is what operators have to say to one call.
type consent struct {
	what  approval.Operation
	in    Approvals
	files []statement.File
	asked approval.Request // what the first approval is of; not verified
	// request is the file of what operators are to approve, if the call asks for it.
	request []byte
}

// newConsent reads the approvals of a call and completes its target.
func newConsent(what approval.Operation, in Approvals, t *target) *consent {
	p := &consent{what: what, in: in}
	files, err := in.parse()
	if err != nil && t.invalid == nil {
		t.invalid = err
	}
	if p.files = files; len(files) > 0 {
		p.asked, _ = approval.RequestOf(files[0]) // parse has read it
		if t.details == nil {
			t.details = map[string]string{}
		}
		t.details["request"] = p.asked.ID()
	}
	return p
}

// change is Service.change for an operation that takes approvals: fn runs if they are not
// needed, or if enough operators have approved exactly object, and never twice for the same
// request. If the call asks what is to be approved, nothing changes.
func (p *consent) change(ctx context.Context, s *Service, c *call, object func(*Key) ([]approval.Detail, error), fn func(*Key) error) (*Key, error) {
	if s.quorum.Needs(p.what) {
		if err := s.lookAtOperators(ctx); err != nil {
			return nil, err
		}
	}
	var used *approval.Request
	return s.change(ctx, c.key.ID, func(k *Key) error {
		if err := s.still(c, k); err != nil {
			return err
		}
		details, err := object(k)
		if err != nil {
			return err
		}
		q := approval.Request{
			Operation: p.what, Region: string(s.self.Region), Instance: string(s.self.Instance), Roster: s.operators().Version,
			Serial: p.asked.Serial, Expires: p.asked.Expires, Object: details,
		}
		switch {
		case p.in.Request && !s.quorum.Needs(p.what):
			return refuse(ErrValidation, "Region %s is configured to do %s without approvals: leave the request out.", s.self.Region, p.what)
		case p.in.Request:
			return p.ask(s, q)
		case !s.quorum.Needs(p.what):
			return fn(k)
		}
		if err := p.check(s, c, q); guardApproved.Stops(err != nil) {
			return err
		}
		used = &q
		return fn(k)
	}, func(tx *seal.Tx) error {
		if used == nil {
			return nil
		}
		return s.use(tx, c, *used)
	})
}

// changePrimary is change, with the approvals of operators if the key is a multi-Region
// primary key, and without for any other.
func (p *consent) changePrimary(ctx context.Context, s *Service, c *call, object func(*Key) ([]approval.Detail, error), fn func(*Key) error) (*Key, error) {
	if c.key.Set != nil && c.key.Set.Primary() == s.self.Region {
		return p.change(ctx, s, c, object, fn)
	}
	if p.in.Request || len(p.files) > 0 {
		return nil, refuse(ErrValidation, "%s is no multi-Region primary key, and is deleted without approvals: leave them out.", c.key.arn)
	}
	return s.change(ctx, c.key.ID, func(k *Key) error {
		if err := s.still(c, k); err != nil {
			return err
		}
		if k.Set != nil && k.Set.Primary() == s.self.Region {
			return refuse(ErrConflict, "%s has just become the primary key; repeat the call.", k.arn)
		}
		return fn(k)
	}, nil)
}

// ask writes down what operators are to approve, and changes nothing.
func (p *consent) ask(s *Service, q approval.Request) error {
	life := p.in.Life
	if life == 0 {
		life = defaultLife
	}
	q.Serial, q.Expires = approval.NewSerial(), s.now().Add(life).Truncate(time.Second)
	if err := q.Validate(); err != nil {
		return fmt.Errorf("asking for approvals of %s: %w", q.Operation, err)
	}
	b, err := statement.MarshalJSON(q)
	if err != nil {
		return fmt.Errorf("asking for approvals of %s: %w", q.Operation, err)
	}
	p.request = b
	return ErrUnchanged
}

// check counts the approvals, and records whose they are.
func (p *consent) check(s *Service, c *call, q approval.Request) error {
	if err := p.countable(s); err != nil {
		return err
	}
	roster := s.operators()
	if err := roster.Check(q, s.now(), p.files); err != nil {
		return disapproved(err)
	}
	c.approvedBy(roster, q, p.files)
	return nil
}

// countable refuses a call without approvals, and to count any while nobody can know whether
// they have expired.
func (p *consent) countable(s *Service) error {
	if len(p.files) == 0 {
		roster := s.operators()
		return refuse(ErrAccessDenied,
			"%s in Region %s takes the approvals of %d of its %d operators (roster version %d) beside your permission. Ask for the request (keyferry: --request FILE), have operators approve it (keyferry approve FILE --key KEY), and repeat the call with their approvals (--approval FILE...).",
			p.what, s.self.Region, roster.Threshold, len(roster.Operators), roster.Version)
	}
	return disapproved(s.clocksAgree())
}

// approvedBy records whose approvals counted.
func (c *call) approvedBy(r approval.Roster, q approval.Request, files []statement.File) {
	c.record.detail("approvedBy", strings.Join(r.Approved(q, files), ", "))
}

// use makes the request one that was carried out on the call's key.
func (s *Service) use(tx *seal.Tx, c *call, q approval.Request) error {
	err := useOnce(q, "/"+string(c.key.ID), s.now(), tx.Get, tx.Put)
	if errors.Is(err, approval.ErrUsed) {
		return disapproved(err)
	}
	return err
}

// disapproved says why approvals do not count. What is wrong with them is for the caller to
// know: it has nothing but names, fingerprints of public keys and what was approved.
func disapproved(err error) error {
	if err == nil {
		return nil
	}
	advice := "Make a new request, and have it approved."
	switch {
	case errors.Is(err, ErrClocksApart):
		advice = "Nobody can know whether they have expired: set the wrong one of the two clocks and repeat the call. The approvals are not spent."
	case errors.Is(err, approval.ErrUsed):
		advice = "Each request is carried out once for a key; the audit log has it under its ID."
	case errors.Is(err, approval.ErrNotEnough):
		advice = "What was approved has to be exactly what is there now; if that has changed, make a new request."
	}
	words := strings.ReplaceAll(err.Error(), "\n", "; ")
	return &Error{Reason: ErrAccessDenied, Message: fmt.Sprintf("The approvals of operators do not allow this: %s. %s", words, advice), cause: err}
}

// inSet is what every request about a multi-Region key begins with: the key, and the epoch
// that it is in, so that what was approved in one epoch is good in no other.
func inSet(k *Key) []approval.Detail {
	e := k.Set.Epoch()
	return []approval.Detail{
		{Name: "key", Text: k.arn},
		{Name: "primary Region", Text: fmt.Sprintf("%s, generation %d, number %d", e.Region, e.Line.Generation, e.Number)},
		{Name: "newest certificate", Text: k.Set.Head().String()},
	}
}

// memberNamed returns the Region whose membership a call is about.
func memberNamed(name, field string) (region.Name, error) {
	r, err := region.ParseName(name)
	if err != nil {
		return "", invalid(field, "satisfy regular expression pattern: ^([a-z]+-){2,3}\\d+$")
	}
	return r, nil
}
