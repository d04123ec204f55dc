package keyopstest

import (
	"context"
	"crypto"
	"slices"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store/sqlite"
)

// Inspect looks at the Region's store as its operators do, whether the Region runs or not,
// and returns what they are asked to approve of it.
func (r *Region) Inspect(t testing.TB) (keyops.StoreInspection, approval.Request) {
	t.Helper()
	db, err := sqlite.Open(t.Context(), sqlite.Config{Path: r.StorePath})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c, err := r.custody()
	if err != nil {
		t.Fatal(err)
	}
	c.Store = db
	in, err := c.Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return in, c.Request(in, approval.NewSerial(), r.now().Add(time.Hour).Truncate(time.Second).UTC())
}

// Approve lets the first n of the Region's operators approve a request.
func (r *Region) Approve(t testing.TB, q approval.Request, n int) []statement.File {
	t.Helper()
	var files []statement.File
	for _, k := range r.Operators[:n] {
		f, err := approval.Sign(t.Context(), k, q)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// TakeOff takes an operator off the Region's roster, approved by all, in the Region's
// directory only, as "keyferry-ceremony roster" does.
func (r *Region) TakeOff(t testing.TB, i int) {
	t.Helper()
	of := r.Descriptor.Descriptor
	roster, changes, err := r.Dir.LoadRosters(of)
	if err != nil {
		t.Fatal(err)
	}
	next := approval.Roster{Version: roster.Version + 1, Operators: slices.Delete(slices.Clone(roster.Operators), i, i+1)}
	next.Threshold = len(next.Operators)/2 + 1
	q := roster.RequestChange(string(of.Region), string(of.Instance), next, approval.NewSerial(), r.now().Add(time.Hour).Truncate(time.Second).UTC())
	c, err := roster.NewChange(string(of.Region), string(of.Instance), next, r.now(), r.Approve(t, q, len(r.Operators)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Dir.KeepRosters(of, append(changes, c)); err != nil {
		t.Fatal(err)
	}
	r.Operators = slices.Delete(slices.Clone(r.Operators), i, i+1)
}

// Reseal seals the store of a stopped Region anew.
func (r *Region) Reseal(ctx context.Context, approvals []statement.File) (head seal.Head, err error) {
	err = r.keep(ctx, func(c keyops.Custody) (err error) {
		head, err = c.Reseal(ctx, r.log, approvals)
		return err
	})
	return head, err
}

// InspectClock says what operators are asked to approve of a stopped Region's clock.
func (r *Region) InspectClock(ctx context.Context) (in keyops.ClockInspection, q approval.Request, err error) {
	err = r.keep(ctx, func(c keyops.Custody) (err error) {
		if in, err = c.InspectClock(ctx); err == nil {
			q = c.ClockRequest(in, approval.NewSerial(), r.now().Add(time.Hour).Truncate(time.Second).UTC())
		}
		return err
	})
	return in, q, err
}

// ConfirmClock believes the clock of a stopped Region.
func (r *Region) ConfirmClock(ctx context.Context, approvals []statement.File) error {
	return r.keep(ctx, func(c keyops.Custody) error { return c.ConfirmClock(ctx, r.log, approvals) })
}

// keep holds store and audit log of a stopped Region as its operators do.
func (r *Region) keep(ctx context.Context, fn func(keyops.Custody) error) error {
	defer r.Stop()
	c, err := r.custody()
	if err != nil {
		return err
	}
	if err := r.openStore(ctx); err != nil {
		return err
	}
	if err := r.openAudit(ctx); err != nil {
		return err
	}
	c.Store = r.store
	return fn(c)
}

// Believe seals the store of a stopped Region anew as it is, approved by all its operators.
func (r *Region) Believe(t testing.TB) {
	t.Helper()
	_, q := r.Inspect(t)
	if _, err := r.Reseal(t.Context(), r.Approve(t, q, len(r.Operators))); err != nil {
		t.Fatal(err)
	}
}

// custody is the Region's without its store, with what its own audit log has witnessed.
func (r *Region) custody() (keyops.Custody, error) {
	c := keyops.Custody{
		Self: r.Descriptor, Roster: r.Descriptor.Operators, Token: r.Token, Seal: r.SealKey, Clock: r.Options.Clock,
		Witnessed: r.Witnessed,
	}
	public, err := r.Descriptor.PublicKey()
	if err != nil {
		return c, err
	}
	last, err := audit.Newest(r.AuditDir, []crypto.PublicKey{public})
	if err == nil && last.Number != 0 {
		c.Witnessed = append(c.Witnessed, last.Store)
	}
	return c, err
}

func (r *Region) now() time.Time {
	if r.Options.Clock == nil {
		return time.Now()
	}
	return r.Options.Clock()
}

// MadeSince lists what was made in the Region since a time, whether it runs or not.
func (r *Region) MadeSince(t testing.TB, since time.Time) ([]keyops.MadeMaterial, error) {
	t.Helper()
	db, err := sqlite.Open(t.Context(), sqlite.Config{Path: r.StorePath})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return keyops.Custody{Self: r.Descriptor, Token: r.Token, Seal: r.SealKey, Store: db}.Made(t.Context(), since)
}
