package region

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Descriptor is what a Region says of itself. Its peers pin it once, by a fingerprint that
// a person reads out; everything else that they believe of the Region follows from it.
type Descriptor struct {
	Region    Name
	Instance  InstanceID
	Partition string // the ARN partition; peers of another are refused
	// SigningKey is the SPKI of the Region signing key, EC P-384, in DER.
	SigningKey []byte
	// Operators approve what the daemon's PIN alone must not be able to do.
	Operators approval.Roster
	Created   time.Time // to the second
	// Version is 1 at init and grows by one when the signing key is replaced.
	Version uint64
	// Earlier are the SPKIs of the signing keys before, the oldest first. What they signed for
	// good is still this Region's word; nothing fresh is.
	Earlier [][]byte
}

// maxVersion bounds how often a Region's signing key is replaced.
const maxVersion = 64

// ErrDescriptor means a descriptor that does not verify or says something impossible.
var ErrDescriptor = errors.New("descriptor not valid")

var partitionPattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// ParsePartition checks the name of an ARN partition, such as aws.
func ParsePartition(s string) (string, error) {
	if !partitionPattern.MatchString(s) {
		return "", fmt.Errorf("partition %q: want a lower-case letter, then letters, digits and hyphens", s)
	}
	return s, nil
}

// Validate reports the first field that is wrong.
func (d Descriptor) Validate() error {
	if _, err := ParseName(string(d.Region)); err != nil {
		return err
	}
	if _, err := ParseInstanceID(string(d.Instance)); err != nil {
		return err
	}
	if _, err := ParsePartition(d.Partition); err != nil {
		return err
	}
	if _, err := d.PublicKey(); err != nil {
		return err
	}
	if d.Version < 1 || d.Version > maxVersion {
		return fmt.Errorf("version %d: want 1 to %d", d.Version, maxVersion)
	}
	if uint64(len(d.Earlier)) != d.Version-1 {
		return fmt.Errorf("version %d with %d earlier signing keys", d.Version, len(d.Earlier))
	}
	for i, spki := range d.Earlier {
		if _, err := parseKey(spki); err != nil {
			return fmt.Errorf("earlier %w", err)
		}
		if bytes.Equal(spki, d.SigningKey) || slices.ContainsFunc(d.Earlier[:i], func(o []byte) bool { return bytes.Equal(o, spki) }) {
			return errors.New("a signing key that is there twice")
		}
	}
	return d.Operators.Validate()
}

// PublicKey returns the Region signing key's public half.
func (d Descriptor) PublicKey() (*ecdsa.PublicKey, error) {
	return parseKey(d.SigningKey)
}

// Keys returns the Region signing key and those before, the newest first: audit checkpoints
// are signed by the one of their time.
func (d Descriptor) Keys() ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	for _, spki := range append([][]byte{d.SigningKey}, reversed(d.Earlier)...) {
		k, err := parseKey(spki)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func reversed(list [][]byte) [][]byte {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

// KeyName is the name in the token of the signing key and the seal key that belong to this
// descriptor. Each version has its own, because for a while the token holds two.
func (d Descriptor) KeyName() string {
	if d.Version <= 1 {
		return string(d.Instance)
	}
	return fmt.Sprintf("%s#%d", d.Instance, d.Version)
}

func parseKey(spki []byte) (*ecdsa.PublicKey, error) {
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fmt.Errorf("parsing signing key: %w", err)
	}
	k, ok := pub.(*ecdsa.PublicKey)
	if !ok || k.Curve.Params().Name != "P-384" {
		return nil, errors.New("signing key: want EC P-384")
	}
	return k, nil
}

// Verify reports whether s was signed by this Region's signing key.
func (d Descriptor) Verify(s statement.Signed) error {
	pub, err := d.PublicKey()
	if err != nil {
		return err
	}
	err = s.Verify(pub)
	if err == nil {
		return nil
	}
	if lasting[s.Purpose] {
		for _, spki := range d.Earlier {
			if earlier, bad := parseKey(spki); bad == nil && s.Verify(earlier) == nil {
				return nil
			}
		}
	}
	return fmt.Errorf("statement of Region %s: %w", d.Region, err)
}

// lasting are the statements that are kept, and shown again after the signing key was
// replaced. All others are made when they are needed, so that whoever had the use of an
// earlier key can make none that counts.
var lasting = map[statement.Purpose]bool{
	statement.Transcript: true, statement.Certificate: true, statement.State: true, statement.Member: true,
	statement.CreateReplica: true, statement.Checkpoint: true, statement.Severed: true, statement.Frozen: true,
	statement.RetiredRegion: true, statement.FormerInstance: true,
}

func (d Descriptor) payload() []byte {
	var w wire.Writer
	w.String(string(d.Region))
	w.String(string(d.Instance))
	w.String(d.Partition)
	w.Bytes(d.SigningKey)
	d.Operators.Append(&w)
	w.Uint(uint64(d.Created.Unix()))
	w.Uint(d.Version)
	if d.Version > 1 { // descriptors of before there was a second version end here
		w.Count(len(d.Earlier))
		for _, spki := range d.Earlier {
			w.Bytes(spki)
		}
	}
	return w.Out()
}

// SignedDescriptor is a descriptor with the statement that carries it.
type SignedDescriptor struct {
	Descriptor
	Statement statement.Signed
}

// Sign makes the statement of a descriptor, signed by the key that it names.
func (d Descriptor) Sign(ctx context.Context, s statement.Signer) (SignedDescriptor, error) {
	if err := d.Validate(); err != nil {
		return SignedDescriptor{}, fmt.Errorf("%w: %w", ErrDescriptor, err)
	}
	signed, err := statement.Sign(ctx, s, statement.Descriptor, d.payload())
	if err != nil {
		return SignedDescriptor{}, err
	}
	return Open(signed) // also proves that the signer holds the named key
}

// Open reads a descriptor and verifies that the key which it names signed it. That proves
// possession of the key and nothing else: trust comes from comparing the fingerprint.
func Open(s statement.Signed) (SignedDescriptor, error) {
	if s.Purpose != statement.Descriptor {
		return SignedDescriptor{}, fmt.Errorf("%w: statement of type %q", ErrDescriptor, s.Purpose)
	}
	r := wire.NewReader(s.Payload)
	d := Descriptor{
		Region:     Name(r.String(32)),
		Instance:   InstanceID(r.String(32)),
		Partition:  r.String(32),
		SigningKey: r.Bytes(512),
		Operators:  approval.Take(r),
	}
	created := r.Uint()
	if created > 1<<40 {
		r.Fail("creation time %d is beyond any calendar", created)
	}
	d.Created = time.Unix(int64(created), 0).UTC()
	d.Version = r.Uint()
	if d.Version > 1 {
		for range r.Count(maxVersion - 1) {
			d.Earlier = append(d.Earlier, r.Bytes(512))
		}
	}
	if err := r.Done(); err != nil {
		return SignedDescriptor{}, fmt.Errorf("%w: %w", ErrDescriptor, err)
	}
	if err := d.Validate(); err != nil {
		return SignedDescriptor{}, fmt.Errorf("%w: %w", ErrDescriptor, err)
	}
	if err := d.Verify(s); err != nil {
		return SignedDescriptor{}, fmt.Errorf("%w: %w", ErrDescriptor, err)
	}
	return SignedDescriptor{Descriptor: d, Statement: s}, nil
}

// Fingerprint is what one person reads out and another compares before the descriptor is
// pinned. It covers every field.
func (d SignedDescriptor) Fingerprint() string { return statement.Fingerprint(d.Statement.Payload) }

// Load reads a descriptor file.
func Load(path string) (SignedDescriptor, error) {
	var f statement.File
	if err := statement.ReadJSON(path, &f); err != nil {
		return SignedDescriptor{}, err
	}
	s, err := f.Signed(statement.Descriptor)
	if err != nil {
		return SignedDescriptor{}, fmt.Errorf("%s: %w", path, err)
	}
	d, err := Open(s)
	if err != nil {
		return SignedDescriptor{}, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// Save writes the descriptor to a new file.
func (d SignedDescriptor) Save(path string) error {
	f, err := d.file()
	if err != nil {
		return err
	}
	return statement.WriteJSON(path, f)
}

func (d SignedDescriptor) file() (f statement.File, err error) {
	pub, err := d.PublicKey()
	if err != nil {
		return f, err
	}
	return statement.NewFile(d.Statement, pub)
}
