// Package approval counts what operators agreed to.
//
// An operator is a person with a private key of their own, outside every token: what the
// user PIN of a daemon can sign, a thief of that PIN can sign as well. An approval is an
// operator's signature over one operation on one object, with the epoch it applies to and
// an expiry. A roster says whose approvals count and how many are needed.
package approval

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Operation names what is approved, so that an approval of one operation never counts for another.
type Operation string

// Operations that need approvals.
const (
	Offer Operation = "ceremony-offer" // hand transport keys to the establishment key of an offer
)

// ErrNotEnough means that fewer operators of the roster approved than it demands.
var ErrNotEnough = errors.New("not enough approvals")

// Approval is what one operator signs.
type Approval struct {
	Operation Operation
	Object    []byte // SHA-384 of the object's signed bytes
	Epoch     uint64 // 0 if the object has none
	Expires   time.Time
}

func (a Approval) marshal() []byte {
	var w wire.Writer
	w.String(string(a.Operation))
	w.Bytes(a.Object)
	w.Uint(a.Epoch)
	w.Uint(uint64(a.Expires.Unix()))
	return w.Out()
}

func parse(b []byte) (Approval, error) {
	r := wire.NewReader(b)
	a := Approval{Operation: Operation(r.String(64)), Object: r.Bytes(64), Epoch: r.Uint()}
	sec := r.Uint()
	if sec > 1<<40 {
		r.Fail("expiry %d is beyond any calendar", sec)
	}
	a.Expires = time.Unix(int64(sec), 0).UTC()
	if err := r.Done(); err != nil {
		return Approval{}, fmt.Errorf("parsing approval: %w", err)
	}
	return a, nil
}

// Sign makes one operator's approval.
func Sign(ctx context.Context, key crypto.Signer, a Approval) (statement.File, error) {
	if err := statement.CheckKey(key.Public()); err != nil {
		return statement.File{}, err
	}
	s, err := statement.Sign(ctx, statement.HostKey(key), statement.Approval, a.marshal())
	if err != nil {
		return statement.File{}, err
	}
	return statement.NewFile(s, key.Public())
}

// Check reports whether enough different operators of the roster approved exactly this
// operation, object and epoch, and none of the counted approvals has expired at now.
// Approvals that do not count are named in the error.
func (r Roster) Check(want Approval, now time.Time, approvals []statement.File) error {
	approved := map[string]bool{}
	var refused []error
	for i, f := range approvals {
		name, err := r.one(want, now, f)
		if err != nil {
			refused = append(refused, fmt.Errorf("approval %d: %w", i+1, err))
			continue
		}
		approved[name] = true
	}
	if r.Threshold >= 1 && len(approved) >= r.Threshold {
		return nil
	}
	return errors.Join(append([]error{fmt.Errorf("%w: %d of %d needed", ErrNotEnough, len(approved), r.Threshold)}, refused...)...)
}

// one verifies one approval and returns its operator's name.
func (r Roster) one(want Approval, now time.Time, f statement.File) (string, error) {
	s, err := f.Signed(statement.Approval)
	if err != nil {
		return "", err
	}
	for _, o := range r.Operators {
		if statement.Fingerprint(o.Key) != f.Key {
			continue
		}
		pub, err := x509.ParsePKIXPublicKey(o.Key)
		if err != nil {
			return "", fmt.Errorf("key of operator %q: %w", o.Name, err)
		}
		if err := s.Verify(pub); err != nil {
			return "", fmt.Errorf("operator %q: %w", o.Name, err)
		}
		a, err := parse(s.Payload)
		if err != nil {
			return "", fmt.Errorf("operator %q: %w", o.Name, err)
		}
		switch {
		case a.Operation != want.Operation, string(a.Object) != string(want.Object), a.Epoch != want.Epoch:
			return "", fmt.Errorf("operator %q approved another operation, object or epoch", o.Name)
		case !now.Before(a.Expires):
			return "", fmt.Errorf("approval of operator %q expired at %s", o.Name, a.Expires.Format(time.RFC3339))
		}
		return o.Name, nil
	}
	return "", fmt.Errorf("key %s is no operator's on the roster", f.Key)
}
