package synchronization

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// End is one end of an association.
type End struct {
	Region   region.Name
	Instance region.InstanceID
}

// EndOf returns the end that a descriptor describes.
func EndOf(d region.Descriptor) End { return End{d.Region, d.Instance} }

// String returns what people are shown: the Region and its instance.
func (e End) String() string { return fmt.Sprintf("%s, instance %s", e.Region, e.Instance) }

// like reports whether two ends are the same instance, or the same Region: one that was
// initialised again has another instance.
func (e End) like(o End) bool { return e.Region == o.Region || e.Instance == o.Instance }

// Severance ends an association for good.
type Severance struct {
	ID        ID
	Account   arn.Account
	Primary   End
	Replica   End
	Principal string    // who asked for it, by the primary instance's word
	At        time.Time // by the primary instance's clock, to the second; orders nothing
}

// Between reports whether the severance is of exactly these two instances, whichever of them
// was the primary instance.
func (s Severance) Between(a, b End) bool {
	return s.Primary == a && s.Replica == b || s.Primary == b && s.Replica == a
}

// Forbids reports whether the two can never be associated: these instances, or ones that
// were made in their Regions since, whichever of them would be the primary instance.
func (s Severance) Forbids(primary, replica End) bool {
	return s.Primary.like(primary) && s.Replica.like(replica) || s.Primary.like(replica) && s.Replica.like(primary)
}

// Payload returns the one encoding, which both ends sign.
func (s Severance) Payload() []byte {
	var w wire.Writer
	w.Uint(severanceForm)
	w.String(string(s.ID))
	w.String(string(s.Account))
	for _, e := range []End{s.Primary, s.Replica} {
		w.String(string(e.Region))
		w.String(string(e.Instance))
	}
	w.String(s.Principal)
	w.Uint(uint64(s.At.Unix()))
	return w.Out()
}

const (
	severanceForm = 1
	severedSchema = 1
	maxSeverance  = 4096
)

// ParseSeverance reads what Payload wrote.
func ParseSeverance(b []byte) (Severance, error) {
	r := wire.NewReader(b)
	if v := r.Uint(); r.Err() == nil && v != severanceForm {
		r.Fail("severance of form %d", v)
	}
	s := Severance{
		ID: decodeID(r), Account: decodeAccount(r),
		Primary: End{decodeRegion(r), decodeInstance(r)}, Replica: End{decodeRegion(r), decodeInstance(r)},
		Principal: r.String(maxPrincipal),
	}
	at := r.Uint()
	if at > 1<<40 {
		r.Fail("time %d is beyond any calendar", at)
		at = 0
	}
	s.At = time.Unix(int64(at), 0).UTC()
	if r.Err() == nil && s.Primary.like(s.Replica) {
		r.Fail("severance of %s from itself", s.Primary)
	}
	if err := r.Done(); err != nil {
		return Severance{}, fmt.Errorf("parsing a severance: %w", err)
	}
	return s, nil
}

// Severed is a severance with the signatures of its ends. It is never taken back: for each
// pair every Region keeps one, and shows it to all others.
type Severed struct {
	Severance
	Ended    statement.Signed // by the primary instance
	Accepted statement.Signed // by the replica instance, which is frozen; without a purpose until it is
}

// Signer signs in a Region's name.
type Signer interface {
	Sign(ctx context.Context, p statement.Purpose, payload []byte) (statement.Signed, error)
}

// Sever signs a severance in the primary instance's name.
func Sever(ctx context.Context, signer Signer, s Severance) (Severed, error) {
	signed, err := signer.Sign(ctx, statement.Severed, s.Payload())
	if err != nil {
		return Severed{}, fmt.Errorf("severing %s from %s: %w", s.Replica, s.Primary, err)
	}
	return Severed{Severance: s, Ended: signed}, nil
}

// Accept signs a severance in the replica instance's name, which is frozen by that.
func (s Severed) Accept(ctx context.Context, signer Signer) (Severed, error) {
	signed, err := signer.Sign(ctx, statement.Frozen, s.Ended.Payload)
	if err != nil {
		return Severed{}, fmt.Errorf("accepting to be severed from %s: %w", s.Primary, err)
	}
	s.Accepted = signed
	return s, nil
}

// Frozen reports whether the replica instance has accepted the severance.
func (s Severed) Frozen() bool { return s.Accepted.Purpose != "" }

// Name names the pair of instances.
func (s Severed) Name() string { return string(s.Primary.Instance) + "/" + string(s.Replica.Instance) }

// Newer reports whether s takes the place of old, which is of the same pair: one that is
// accepted outranks one that is not, and among equals all Regions keep the same one.
func (s Severed) Newer(old Severed) bool {
	if s.Frozen() != old.Frozen() {
		return s.Frozen()
	}
	return bytes.Compare(s.Ended.Payload, old.Ended.Payload) < 0
}

// Encode returns the one encoding of a severance with its signatures.
func (s Severed) Encode() []byte {
	var w wire.Writer
	w.Uint(severedSchema)
	w.Bytes(s.Ended.Marshal())
	if s.Frozen() {
		w.Bytes(s.Accepted.Marshal())
	} else {
		w.Bytes(nil)
	}
	return w.Out()
}

// DecodeSevered reads what Encode wrote. It verifies no signature.
func DecodeSevered(b []byte) (Severed, error) {
	r := wire.NewReader(b)
	if v := r.Uint(); r.Err() == nil && v != severedSchema {
		r.Fail("severance of schema %d", v)
	}
	ended, accepted := r.Bytes(maxSeverance), r.Bytes(maxSeverance)
	if err := r.Done(); err != nil {
		return Severed{}, fmt.Errorf("decoding a severance: %w", err)
	}
	var s Severed
	var err error
	if s.Ended, err = parseSigned(ended, statement.Severed); err != nil {
		return Severed{}, err
	}
	if len(accepted) > 0 {
		if s.Accepted, err = parseSigned(accepted, statement.Frozen); err != nil {
			return Severed{}, err
		}
		if !bytes.Equal(s.Accepted.Payload, s.Ended.Payload) {
			return Severed{}, fmt.Errorf("decoding a severance: %w: the replica instance has accepted another one", wire.ErrMalformed)
		}
	}
	s.Severance, err = ParseSeverance(s.Ended.Payload)
	return s, err
}

func parseSigned(b []byte, p statement.Purpose) (statement.Signed, error) {
	s, err := statement.Parse(b)
	if err == nil && s.Purpose != p {
		err = fmt.Errorf("%w: %s where %s belongs", wire.ErrMalformed, s.Purpose, p)
	}
	if err != nil {
		return s, fmt.Errorf("decoding a severance: %w", err)
	}
	return s, nil
}
