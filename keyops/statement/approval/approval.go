// Package approval counts what operators agreed to.
//
// An operator is a person with a private key of their own, outside every token: what the
// user PIN of a daemon can sign, a thief of that PIN can sign as well. A [Request] says in
// words what is to be done, where, and until when it may be; an approval is an operator's
// signature over exactly that. A [Roster] says whose approvals count and how many are
// needed: more than half, so that two groups that know nothing of each other cannot approve
// contrary things. Rosters follow each other in a chain that each quorum signs.
//
// An approval is worth nothing but for its request, and a request can be carried out once:
// who carries it out remembers its ID in the same transaction, and refuses with [ErrUsed]
// one that is remembered.
//
// The package holds no keys and no state, and all functions may be called at once.
package approval

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyferry/keyferry/keyops/statement"
)

// Sentinels of this package.
var (
	// ErrNotEnough means that fewer operators of the roster approved than it demands.
	ErrNotEnough = errors.New("not enough approvals")
	// ErrExpired means that the request may not be carried out any more, or not yet.
	ErrExpired = errors.New("request not valid at this time")
	// ErrUsed means that the request was carried out before.
	ErrUsed = errors.New("approvals used before")
)

// Sign makes one operator's approval.
func Sign(ctx context.Context, key crypto.Signer, q Request) (statement.File, error) {
	if err := statement.CheckKey(key.Public()); err != nil {
		return statement.File{}, err
	}
	if err := q.Validate(); err != nil {
		return statement.File{}, err
	}
	s, err := statement.Sign(ctx, statement.HostKey(key), statement.Approval, q.payload())
	if err != nil {
		return statement.File{}, err
	}
	return statement.NewFile(s, key.Public())
}

// RequestOf returns the request that an approval is for. It verifies nothing: the request
// says what to compare with what is about to be done, and whom to ask whether it counts.
func RequestOf(f statement.File) (Request, error) {
	s, err := f.Signed(statement.Approval)
	if err != nil {
		return Request{}, err
	}
	return parseRequest(s.Payload)
}

// Check reports whether the request may be carried out now: it has not expired, and enough
// different operators of the roster approved exactly it. The caller has made want from what
// it is about to do; only serial and expiry may come from elsewhere.
func (r Roster) Check(want Request, now time.Time, approvals []statement.File) error {
	if !now.Before(want.Expires) {
		return fmt.Errorf("%w: it expired at %s", ErrExpired, want.Expires.Format(time.RFC3339))
	}
	if want.Expires.After(now.Add(MaxLife)) {
		return fmt.Errorf("%w: it expires at %s, and none may live longer than %s", ErrExpired, want.Expires.Format(time.RFC3339), MaxLife)
	}
	return r.Verify(want, approvals)
}

// Verify is Check at any time after the request was carried out: for those who judge what
// another has done.
func (r Roster) Verify(want Request, approvals []statement.File) error {
	if want.Roster != r.Version {
		return fmt.Errorf("%w: the request is to operators of roster version %d, and version %d decides: ask again", ErrNotEnough, want.Roster, r.Version)
	}
	return r.count(want, approvals)
}

// Approved returns the names of the operators whose approvals of the request count, in the
// order of the roster.
func (r Roster) Approved(want Request, approvals []statement.File) []string {
	var names []string
	for _, o := range r.Operators {
		if slices.ContainsFunc(approvals, func(f statement.File) bool {
			name, err := r.one(want, f)
			return err == nil && name == o.Name
		}) {
			names = append(names, o.Name)
		}
	}
	return names
}

// count names in its error the approvals that do not count.
func (r Roster) count(want Request, approvals []statement.File) error {
	if err := r.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotEnough, err)
	}
	approved := map[string]bool{}
	var refused []error
	for i, f := range approvals {
		name, err := r.one(want, f)
		if err == nil && approved[name] {
			err = fmt.Errorf("operator %q approved before, and counts once", name)
		}
		if err != nil {
			refused = append(refused, fmt.Errorf("approval %d: %w", i+1, err))
			continue
		}
		approved[name] = true
	}
	if len(approved) >= r.Threshold {
		return nil
	}
	return errors.Join(append([]error{fmt.Errorf("%w: %d of %d needed", ErrNotEnough, len(approved), r.Threshold)}, refused...)...)
}

// one verifies one approval and returns its operator's name.
func (r Roster) one(want Request, f statement.File) (string, error) {
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
		got, err := parseRequest(s.Payload)
		if err != nil {
			return "", fmt.Errorf("operator %q: %w", o.Name, err)
		}
		if !got.same(want) {
			return "", fmt.Errorf("operator %q approved another request: %s", o.Name, difference(got, want))
		}
		return o.Name, nil
	}
	return "", fmt.Errorf("key %q is no operator's on the roster", f.Key)
}

// difference names the first field in which two requests differ.
func difference(got, want Request) string {
	for _, f := range []struct {
		name   string
		differ bool
	}{
		{"operation", got.Operation != want.Operation},
		{"Region", got.Region != want.Region},
		{"instance", got.Instance != want.Instance},
		{"roster version", got.Roster != want.Roster},
		{"epoch", got.Series != want.Series || got.Epoch != want.Epoch || got.Target != want.Target},
		{"serial", got.Serial != want.Serial},
		{"expiry", !got.Expires.Equal(want.Expires)},
	} {
		if f.differ {
			return "its " + f.name + " differs"
		}
	}
	for i, d := range want.Object {
		if i >= len(got.Object) || got.Object[i] != d {
			return fmt.Sprintf("its object differs at %q", d.Name)
		}
	}
	return "its object has more"
}
