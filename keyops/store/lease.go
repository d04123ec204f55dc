package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrLeaseHeld says that another process is the writer. It comes as a *HeldError.
	ErrLeaseHeld = errors.New("writer lease held")
	// ErrLeaseLost says that this Store is not, or no longer, the writer.
	ErrLeaseLost = errors.New("writer lease lost")
)

// HeldError names the writer that is in the way.
type HeldError struct {
	Owner   string
	Term    uint64
	Expires time.Time
}

// Error names owner and expiry.
func (e *HeldError) Error() string {
	return fmt.Sprintf("%v by %q until %s", ErrLeaseHeld, e.Owner, e.Expires.UTC().Format(time.RFC3339))
}

// Unwrap returns ErrLeaseHeld.
func (e *HeldError) Unwrap() error { return ErrLeaseHeld }

// Lease is the right to write. A term is never given out twice, so a writer that slept
// through its successor's start is refused by the term and not by anybody's clock.
type Lease interface {
	// Owner is the name that the lease was acquired under.
	Owner() string
	// Term grows with every acquisition of the store's lease by anyone.
	Term() uint64
	// Expires is when another process may take the lease.
	Expires() time.Time
	// Renew moves the expiry to a full ttl from now. An expired lease that nobody took can
	// still be renewed. ErrLeaseLost is final.
	Renew(ctx context.Context) error
	// Release lets the next writer in at once. Releasing a lost lease is no error.
	Release(ctx context.Context) error
}

// WaitLease acquires the lease, and while another process holds it tries again every poll:
// this is what a standby does. It also returns who was in the way last, or nil.
func WaitLease(ctx context.Context, s Store, owner string, ttl, poll time.Duration) (Lease, *HeldError, error) {
	var before *HeldError
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, before, fmt.Errorf("waiting for the writer lease: %w", ctx.Err())
		case <-timer.C:
		}
		lease, err := s.AcquireLease(ctx, owner, ttl)
		if !errors.As(err, &before) {
			return lease, before, err
		}
		timer.Reset(poll)
	}
}

// KeepLease renews the lease every third of its ttl until ctx ends (then the error is nil)
// or the lease is lost. Any other failure is reported to warn and tried again: what it
// threatens, writing after the expiry, the store refuses by itself.
func KeepLease(ctx context.Context, lease Lease, ttl time.Duration, warn func(error)) error {
	ticker := time.NewTicker(ttl / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		err := lease.Renew(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, ErrLeaseLost), errors.Is(err, ErrClosed):
			return err
		default:
			warn(err)
		}
	}
}
