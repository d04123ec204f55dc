package region

import (
	"bytes"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/wire"
)

// ErrReplacement means that a descriptor does not follow from the one before.
var ErrReplacement = errors.New("descriptor does not follow from the one before")

// Replacement puts a descriptor with a new signing key in the place of the one before. The
// old key names the new descriptor, so that it is the same Region's; the operators approve
// it, because whoever has the token's PIN has the use of the old key. It is carried in a
// file, and peers judge it again. Where the old key is lost, see Lost.
type Replacement struct {
	Descriptor statement.File    `json:"descriptor"` // the next, signed by the new key
	Succession statement.File    `json:"succession"` // names the next, signed by the old key; empty if that is lost
	Rosters    []approval.Change `json:"rosters"`    // since the first descriptor; the last decides
	Approvals  []statement.File  `json:"approvals"`
}

// succession is what the old key signs.
func succession(old, next SignedDescriptor) []byte {
	from, to := sha512.Sum384(old.Statement.Payload), sha512.Sum384(next.Statement.Payload)
	var w wire.Writer
	w.Uint(1)
	w.String(string(next.Region))
	w.String(string(next.Instance))
	w.Uint(next.Version)
	w.Bytes(from[:])
	w.Bytes(to[:])
	return w.Out()
}

// succeeds reports the first thing in which d is not the next descriptor of the same
// instance. Nothing but the key changes: a roster changes by the approvals of its own.
func (d Descriptor) succeeds(old Descriptor) error {
	switch {
	case d.Region != old.Region || d.Instance != old.Instance || d.Partition != old.Partition:
		return fmt.Errorf("%w: it is of instance %s in %s, the one before of %s in %s", ErrReplacement, d.Instance, d.Region, old.Instance, old.Region)
	case d.Version != old.Version+1:
		return fmt.Errorf("%w: version %d after version %d", ErrReplacement, d.Version, old.Version)
	case !slices.EqualFunc(d.Earlier, append(slices.Clone(old.Earlier), old.SigningKey), bytes.Equal):
		return fmt.Errorf("%w: its earlier signing keys are others", ErrReplacement)
	}
	var a, b wire.Writer
	d.Operators.Append(&a)
	old.Operators.Append(&b)
	if !bytes.Equal(a.Out(), b.Out()) {
		return fmt.Errorf("%w: its operators are others", ErrReplacement)
	}
	return nil
}

// Next returns the descriptor with the signing key spki in the place of d's. It is not
// signed yet.
func (d Descriptor) Next(spki []byte, now time.Time) Descriptor {
	next := d
	next.Earlier = append(slices.Clone(d.Earlier), d.SigningKey)
	next.SigningKey, next.Version, next.Created = spki, d.Version+1, now.Truncate(time.Second).UTC()
	return next
}

// NewReplacement has the old key sign that next follows. The approvals are still missing.
func NewReplacement(ctx context.Context, oldKey statement.Signer, old, next SignedDescriptor) (Replacement, error) {
	if err := next.succeeds(old.Descriptor); err != nil {
		return Replacement{}, err
	}
	r, err := NewLostReplacement(old, next)
	if err != nil {
		return Replacement{}, err
	}
	s, err := statement.Sign(ctx, oldKey, statement.Succession, succession(old, next))
	if err != nil {
		return Replacement{}, err
	}
	pub, err := old.PublicKey()
	if err != nil {
		return Replacement{}, err
	}
	if r.Succession, err = statement.NewFile(s, pub); err != nil {
		return Replacement{}, err
	}
	_, err = r.Open(old)
	return r, err
}

// Open verifies that the next descriptor follows from old by its own signing key and, unless
// that is lost, by old's, and returns it. Who approved that is for Verify.
func (r Replacement) Open(old SignedDescriptor) (SignedDescriptor, error) {
	s, err := r.Descriptor.Signed(statement.Descriptor)
	if err != nil {
		return SignedDescriptor{}, fmt.Errorf("%w: %w", ErrReplacement, err)
	}
	next, err := Open(s)
	if err != nil {
		return SignedDescriptor{}, fmt.Errorf("%w: %w", ErrReplacement, err)
	}
	if err := next.succeeds(old.Descriptor); err != nil {
		return SignedDescriptor{}, err
	}
	if r.Lost() {
		return next, nil
	}
	said, err := r.Succession.Signed(statement.Succession)
	if err != nil {
		return SignedDescriptor{}, fmt.Errorf("%w: %w", ErrReplacement, err)
	}
	if err := old.Verify(said); err != nil {
		return SignedDescriptor{}, fmt.Errorf("%w: %w", ErrReplacement, err)
	}
	if !bytes.Equal(said.Payload, succession(old, next)) {
		return SignedDescriptor{}, fmt.Errorf("%w: the old key names another", ErrReplacement)
	}
	return next, nil
}

// RequestReplacement asks the operators of roster to let next follow.
func RequestReplacement(roster approval.Roster, old, next SignedDescriptor, serial string, expires time.Time) approval.Request {
	return approval.Request{
		Operation: approval.ReplaceKeys, Region: string(next.Region), Instance: string(next.Instance), Roster: roster.Version,
		Serial: serial, Expires: expires,
		Object: []approval.Detail{
			{Name: "signing key", Text: statement.Fingerprint(next.SigningKey)},
			{Name: "signing key before", Text: statement.Fingerprint(old.SigningKey)},
			{Name: "descriptor", Text: fmt.Sprintf("version %d with fingerprint %s", next.Version, next.Fingerprint())},
		},
	}
}

// Verify opens a replacement that was carried out: the operators of the roster that the
// file leads to have approved it. It returns the next descriptor and that roster.
func (r Replacement) Verify(old SignedDescriptor) (SignedDescriptor, approval.Roster, error) {
	next, err := r.Open(old)
	if err != nil {
		return SignedDescriptor{}, approval.Roster{}, err
	}
	roster, err := old.Operators.Follow(string(old.Region), string(old.Instance), r.Rosters...)
	if err != nil {
		return SignedDescriptor{}, approval.Roster{}, err
	}
	if len(r.Approvals) == 0 {
		return SignedDescriptor{}, approval.Roster{}, approval.ErrNotEnough
	}
	q, err := approval.RequestOf(r.Approvals[0])
	if err != nil {
		return SignedDescriptor{}, approval.Roster{}, err
	}
	return next, roster, roster.Verify(r.Request(roster, old, next, q), r.Approvals)
}

// Replacement is the path of the file that leads to version n of an instance's descriptor.
func (d Dir) Replacement(of Descriptor, n uint64) string {
	return filepath.Join(string(d), "replacements", string(of.Region)+"@"+string(of.Instance), fmt.Sprintf("%d.json", n))
}

// Begun is the path of the replacement of this Region's own keys that was begun and not
// finished.
func (d Dir) Begun() string { return filepath.Join(string(d), "rekey.json") }

// Follows reports whether the kept replacements lead from one descriptor of an instance to
// another.
func (d Dir) Follows(from, to SignedDescriptor) error {
	for at := from; ; {
		if bytes.Equal(at.Statement.Payload, to.Statement.Payload) {
			return nil
		}
		if at.Version >= to.Version {
			return fmt.Errorf("%w: version %d here, known is version %d", ErrReplacement, to.Version, from.Version)
		}
		var r Replacement
		if err := statement.ReadJSON(d.Replacement(at.Descriptor, at.Version+1), &r); err != nil {
			return err
		}
		next, _, err := r.Verify(at)
		if err != nil {
			return err
		}
		at = next
	}
}

// KeepReplacement keeps a replacement that was verified. Another one for the same version is
// refused.
func (d Dir) KeepReplacement(of Descriptor, n uint64, r Replacement) error {
	path := d.Replacement(of, n)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	err := statement.WriteJSON(path, r)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	var kept Replacement
	if err := statement.ReadJSON(path, &kept); err != nil {
		return err
	}
	if !bytes.Equal(kept.Descriptor.Payload, r.Descriptor.Payload) {
		return fmt.Errorf("%w: %s names another", ErrReplacement, path)
	}
	return nil
}

// Swap puts a descriptor in the place of the one at path, whole or not at all, and makes
// that durable. It is the one file here that is overwritten: replacements and transcripts
// say what was there.
func (d SignedDescriptor) Swap(path string) error {
	f, err := d.file()
	if err != nil {
		return err
	}
	b, err := statement.MarshalJSON(f)
	if err != nil {
		return err
	}
	return statement.Replace(path, b, 0o644)
}
