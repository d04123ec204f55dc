package seal

import (
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/keyops/store"
)

// ErrTampered says that the store does not hold what this instance wrote. It comes as a
// *Finding, which names the row.
var ErrTampered = errors.New("store tampered with")

// Problem is what is wrong with a row.
type Problem string

const (
	SealWrong    Problem = "SEAL_WRONG"    // the row's contents are not what was sealed
	RowReplaced  Problem = "ROW_REPLACED"  // sealed, but in another version than the head covers: an older row put back
	RowUnknown   Problem = "ROW_UNKNOWN"   // the head covers no such row: added, or a deleted row put back
	RowMissing   Problem = "ROW_MISSING"   // the head covers a row that is not there: deleted
	RowUnproven  Problem = "ROW_UNPROVEN"  // sealed, but its bucket was changed, so its version cannot be told
	BucketWrong  Problem = "BUCKET_WRONG"  // a bucket is not the one that the head covers: its rows cannot change
	HeadWrong    Problem = "HEAD_WRONG"    // the head's seal does not match: no row can be believed
	HeadMissing  Problem = "HEAD_MISSING"  // there are sealed rows and no head: no row can be believed
	RowMalformed Problem = "ROW_MALFORMED" // a name or a version outside its bounds
)

// Finding is one row that does not hold. As an error it wraps ErrTampered.
type Finding struct {
	Kind    store.Kind
	ID      string
	Version uint64 // as stored; 0 if there is no row
	Problem Problem
}

// Error names the row and what is wrong with it.
func (f *Finding) Error() string {
	return fmt.Sprintf("%v: %s of %s %s, version %d", ErrTampered, f.Problem, f.Kind, f.ID, f.Version)
}

// Unwrap returns ErrTampered.
func (f *Finding) Unwrap() error { return ErrTampered }

// Findings lists what does not hold, in the order of kind and ID.
type Findings []Finding

// Head returns the finding that condemns the whole store, or nil if single rows can be
// believed.
func (fs Findings) Head() *Finding {
	for i := range fs {
		if fs[i].Kind == store.KindHead {
			return &fs[i]
		}
	}
	return nil
}
