package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

var (
	// ErrNotFound says that no row has this kind and ID.
	ErrNotFound = errors.New("row not found")
	// ErrConflict says that the stored version is not the one that the change builds on.
	ErrConflict = errors.New("row version conflict")
	// ErrInvalid says that a kind, ID, version or size is outside its bounds.
	ErrInvalid = errors.New("invalid row")
	// ErrReadOnly says that a change was tried in a view.
	ErrReadOnly = errors.New("change in a read-only transaction")
	// ErrFull says that the disk or the database is full. Nothing was applied, and the same
	// call succeeds once there is space.
	ErrFull = errors.New("store full")
	// ErrOutcomeUnknown says that a transaction failed while it was being made durable: it
	// may be found applied or not. The store refuses every later call with ErrClosed. The
	// caller must forget what it holds in memory and read from a store that it opens again.
	ErrOutcomeUnknown = errors.New("outcome of the store transaction unknown")
	// ErrClosed says that the store was closed, or closed itself after ErrOutcomeUnknown.
	ErrClosed = errors.New("store closed")
	// ErrNotStore says that the file is no Keyferry store.
	ErrNotStore = errors.New("not a keyferry store")
	// ErrNewerSchema says that a newer release wrote the store; this one would damage it.
	ErrNewerSchema = errors.New("store written by a newer release")
)

// Kind is what a row is about. The set is open; the kinds below are those that several
// packages must agree on.
type Kind string

const (
	KindMeta   Kind = "meta"   // the store about itself, see Meta
	KindHead   Kind = "head"   // the seal over all sealed rows, written by package seal
	KindBucket Kind = "bucket" // what the head covers, written by package seal
	KindMark   Kind = "mark"   // (key, peer) pairs of which the peer has not confirmed the newest facts
)

// Sealed reports whether rows of this kind carry a seal of their own. The seal's own rows
// need none; the meta row is stamped by tools that have no token; losing a mark only
// delays what the exchange of digests repairs anyway. Everything else is sealed: an intent
// that anybody could add would make the daemon destroy objects at its next start.
func (k Kind) Sealed() bool {
	switch k {
	case KindMeta, KindHead, KindBucket, KindMark:
		return false
	}
	return true
}

// MaxBody is the largest body of a row, in bytes.
const MaxBody = 16 << 20

// maxSeal bounds a seal: an HMAC by any hash has at most 64 bytes.
const maxSeal = 64

// Bounds of names. Printable ASCII sorts in one way in every database.
const (
	maxKind = 32
	maxID   = 512
)

// Row is one stored value.
type Row struct {
	Kind    Kind   // ^[a-z][a-z0-9-]{0,31}$
	ID      string // 1 to 512 printable ASCII characters without spaces
	Version uint64 // 1 when new, one more with every change
	Body    []byte // at most MaxBody bytes, encoded by package wire
	Seal    []byte // made by package seal; empty where the kind is not sealed
}

// CheckName refuses a kind or an ID outside its pattern.
func CheckName(kind Kind, id string) error {
	if !kind.valid() {
		return fmt.Errorf("%w: kind %.40q", ErrInvalid, kind)
	}
	if len(id) == 0 || len(id) > maxID || strings.ContainsFunc(id, func(c rune) bool { return c < '!' || c > '~' }) {
		return fmt.Errorf("%w: ID %.40q of kind %s", ErrInvalid, id, kind)
	}
	return nil
}

func (k Kind) valid() bool {
	for i, c := range []byte(k) {
		if (c < 'a' || c > 'z') && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return len(k) > 0 && len(k) <= maxKind
}

// Check refuses a row outside its bounds. Stores call it before every Put.
func (r Row) Check() error {
	if err := CheckName(r.Kind, r.ID); err != nil {
		return err
	}
	if r.Version == 0 || r.Version > math.MaxInt64 {
		return fmt.Errorf("%w: version %d of %s %s", ErrInvalid, r.Version, r.Kind, r.ID)
	}
	if len(r.Body) > MaxBody {
		return fmt.Errorf("%w: body of %d bytes in %s %s, at most %d allowed", ErrInvalid, len(r.Body), r.Kind, r.ID, MaxBody)
	}
	if len(r.Seal) > maxSeal {
		return fmt.Errorf("%w: seal of %d bytes in %s %s, at most %d allowed", ErrInvalid, len(r.Seal), r.Kind, r.ID, maxSeal)
	}
	return nil
}

// Store is a Region's durable state. All methods may be called at once.
type Store interface {
	// Update runs fn in one serialisable write transaction, alone among all writers, and
	// makes the outcome durable before it returns. fn runs at most once; it must not keep
	// the Tx, nor call the Store. An error, fn's own included, means that nothing was
	// applied, unless it wraps ErrOutcomeUnknown. An Update is refused with ErrLeaseLost
	// unless this Store holds the writer lease, unexpired, as seen inside the transaction.
	// Update waits for its turn as long as ctx allows; once fn has begun, the end of ctx
	// no longer interrupts it.
	Update(ctx context.Context, fn func(Tx) error) error

	// View runs fn on one consistent state, without the lease and beside any Update.
	View(ctx context.Context, fn func(Tx) error) error

	// AcquireLease makes this Store the writer until the lease is released or expires, or
	// fails with an error that wraps ErrLeaseHeld. A Store that holds the lease and asks
	// again gets the next term, and the Lease that it had before is lost.
	AcquireLease(ctx context.Context, owner string, ttl time.Duration) (Lease, error)

	// Close waits for running transactions, gives up the lease if this Store holds it, and
	// frees the file. Closing twice is no error.
	Close() error
}

// Tx is one transaction. It is used by the goroutine that runs fn, and by no other.
// After any error but ErrNotFound and ErrConflict the transaction should be given up.
type Tx interface {
	// Get returns the row, or ErrNotFound. The caller owns the bytes.
	Get(kind Kind, id string) (Row, error)
	// Put writes the row whole. Its Version must be the stored version plus one, or 1 if
	// there is no such row; else the error is ErrConflict and nothing is written.
	Put(row Row) error
	// Delete removes the row if it has this version; else ErrConflict, or ErrNotFound.
	Delete(kind Kind, id string, version uint64) error
	// Scan calls fn for every row of the kind, in the byte order of IDs, and ends at fn's
	// first error. fn may not change rows of this kind.
	Scan(kind Kind, fn func(Row) error) error
	// Kinds lists the kinds that have rows, in order.
	Kinds() ([]Kind, error)
}
