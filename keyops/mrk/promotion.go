package mrk

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Promotion is what operators approve before a Region becomes the primary Region without the
// consent of the one before. It is an approval.Request with these parts, and nothing else.
type Promotion struct {
	Target     region.Name
	Instance   region.InstanceID // of Target
	Generation uint64            // above any that Target knows of the listed keys
	Suspend    []region.Name     // not waited for from the start, because they are dark
	Keys       uint64            // how many are listed
	Root       Hash              // of the KeyList
	Roster     uint64            // version of the roster of Target's operators
	Serial     string
	Expires    time.Time
}

// dark returns the Regions that are not waited for, sorted, each once.
func (p Promotion) dark() []region.Name {
	return slices.Compact(slices.Sorted(slices.Values(p.Suspend)))
}

// promotions is the series in which operators number forced promotions: an operator who
// approved a generation for one Region approves no lower or equal one for another.
const promotions = "promotions"

// Names of details of the request, for who reads it.
const (
	DetailKeys      = "list of keys" // the root of the list
	DetailSuspended = "Regions not waited for"
)

// Request returns the request that operators approve.
func (p Promotion) Request() approval.Request {
	dark := "none"
	if len(p.Suspend) > 0 {
		var names []string
		for _, r := range p.dark() {
			names = append(names, string(r))
		}
		dark = strings.Join(names, ", ")
	}
	return approval.Request{
		Operation: approval.ForcePromotion, Region: string(p.Target), Instance: string(p.Instance), Roster: p.Roster,
		Series: promotions, Epoch: p.Generation, Target: string(p.Target), Serial: p.Serial, Expires: p.Expires,
		Object: []approval.Detail{
			{Name: "keys", Text: strconv.FormatUint(p.Keys, 10)},
			{Name: DetailKeys, Text: p.Root.String()},
			{Name: DetailSuspended, Text: dark},
		},
	}
}

// forced is what a certificate carries that opens a line: the promotion, the proof that its
// key is on the list, and the approvals.
type forced struct {
	promotion Promotion
	proof     ListProof
	approvals []approval.Compact
}

// ForcedBy returns the promotion that opened the certificate's line, if this is the
// certificate that opened it, and the names of nobody: who approved is in the approvals.
func (c Certificate) ForcedBy() (Promotion, bool) {
	if c.forced == nil {
		return Promotion{}, false
	}
	return c.forced.promotion, true
}

// MaxPath is how many hashes the proof for one of MaxListed keys has.
const MaxPath = 20

const (
	maxFingerprint = 96
	maxSuspended   = MaxMembers
)

func (f *forced) encode(w *wire.Writer) {
	w.Bool(f != nil)
	if f == nil {
		return
	}
	p := f.promotion
	w.String(string(p.Target))
	w.String(string(p.Instance))
	w.Uint(p.Generation)
	w.Count(len(p.Suspend))
	for _, r := range p.Suspend {
		w.String(string(r))
	}
	w.Bytes(p.Root[:])
	w.Uint(p.Roster)
	w.String(p.Serial)
	w.Uint(uint64(p.Expires.Unix()))
	w.Uint(f.proof.Count)
	w.Uint(f.proof.Index)
	w.Count(len(f.proof.Path))
	for _, h := range f.proof.Path {
		w.Bytes(h[:])
	}
	w.Count(len(f.approvals))
	for _, a := range f.approvals {
		w.String(a.Key)
		w.Bytes(a.Signature)
	}
}

func decodeForced(r *wire.Reader) *forced {
	if !r.Bool() {
		return nil
	}
	f := &forced{promotion: Promotion{Target: decodeRegion(r), Instance: decodeInstance(r), Generation: decodeNumber(r)}}
	p := &f.promotion
	for range r.Count(maxSuspended) {
		p.Suspend = append(p.Suspend, decodeRegion(r))
	}
	r.Fixed(p.Root[:])
	p.Roster, p.Serial = decodeNumber(r), r.String(maxName)
	p.Expires = time.Unix(decodeTime(r), 0).UTC()
	f.proof.Count, f.proof.Index = r.Uint(), r.Uint()
	p.Keys = f.proof.Count
	for range r.Count(MaxPath) {
		var h Hash
		r.Fixed(h[:])
		f.proof.Path = append(f.proof.Path, h)
	}
	for range r.Count(approval.MaxOperators) {
		f.approvals = append(f.approvals, approval.Compact{Key: r.String(maxFingerprint), Signature: r.Bytes(statement.MaxSignature)})
	}
	if r.Err() == nil && len(p.dark()) != len(p.Suspend) {
		r.Fail("a Region is not waited for twice")
	}
	if r.Err() == nil && !slices.IsSorted(p.Suspend) {
		r.Fail("Regions not waited for are out of order")
	}
	return f
}

// Electors knows whose approvals count. A Verifier that is not one believes no forced
// promotion.
type Electors interface {
	// Roster returns the roster of that version of a Region's instance, and the newest
	// version that is known here, each verified from the pinned descriptor on.
	// ErrRosterUnknown means that this version is not known here: the sender shows its
	// changes first.
	Roster(r region.Name, instance region.InstanceID, version uint64) (roster approval.Roster, newest uint64, err error)
}

// RosterUnknownError is an ErrRosterUnknown that says which changes have to be shown first.
type RosterUnknownError struct {
	Region   region.Name // whose operators approved
	Instance region.InstanceID
	Version  uint64 // of the roster that they are on
}

// Error says which roster is not known.
func (e *RosterUnknownError) Error() string {
	return fmt.Sprintf("%v: version %d of %s %s", ErrRosterUnknown, e.Version, e.Region, e.Instance)
}

// Is makes it an ErrRosterUnknown.
func (e *RosterUnknownError) Is(target error) bool { return target == ErrRosterUnknown }

// lists reports whether the promotion is of this key after this certificate.
func (f *forced) lists(k ListedKey) bool {
	root, ok := f.proof.root(k)
	return ok && root == f.promotion.Root
}

// verifyForced checks a certificate that opens a line. Nobody's clock counts: whether the
// approvals had expired was the target's to check, when it used them. history is set while
// a whole chain is read for the first time, when approvals of an earlier roster are part of
// what has been; later a roster older than the one known here is refused, or operators who
// were taken off could come back.
func (c Certificate) verifyForced(v Verifier, history bool) error {
	e, f := c.Epoch, c.forced
	switch {
	case f == nil:
		return fmt.Errorf("%w: another line without approvals", ErrCertificate)
	case e.Number != 0 || e.Line.Region != e.Region || e.Line.Nonce != e.Nonce || e.Line.Generation == 0,
		c.Parent.IsZero() || !c.Final.IsZero() || len(c.counter) != 0:
		return fmt.Errorf("%w: not the first of its line", ErrCertificate)
	case f.promotion.Target != e.Region || f.promotion.Instance != c.Instance || f.promotion.Generation != e.Line.Generation:
		return fmt.Errorf("%w: approvals of another promotion", ErrCertificate)
	case guard17Listed.Stops(!f.lists(ListedKey{c.Key, c.Parent})):
		return fmt.Errorf("%w: the key is not on the approved list", ErrCertificate)
	}
	if err := v.Verify(e.Region, c.Instance, c.signed); err != nil {
		return err
	}
	electors, ok := v.(Electors)
	if !ok {
		return &RosterUnknownError{e.Region, c.Instance, f.promotion.Roster}
	}
	roster, newest, err := electors.Roster(e.Region, c.Instance, f.promotion.Roster)
	if errors.Is(err, ErrRosterUnknown) {
		return &RosterUnknownError{e.Region, c.Instance, f.promotion.Roster}
	}
	if err != nil {
		return err
	}
	if guard17Roster.Stops(!history && f.promotion.Roster < newest) {
		return fmt.Errorf("%w: approved by roster version %d, known is %d: approve again", ErrCertificate, f.promotion.Roster, newest)
	}
	q := f.promotion.Request()
	if err := roster.Verify(q, q.Expand(f.approvals)); guard17Approved.Stops(err != nil) {
		return fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return nil
}
