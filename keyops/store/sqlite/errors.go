package sqlite

import (
	"errors"
	"fmt"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/keyferry/keyferry/keyops/store"
)

// code returns SQLite's primary result code, or 0 for an error of another origin.
func code(err error) int {
	var e *driver.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

func notDatabase(err error) bool { return code(err) == lib.SQLITE_NOTADB }

// wrap says what was being done. The driver's own error types end here.
func wrap(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case code(err) == lib.SQLITE_FULL:
		return fmt.Errorf("%s: %w", doing, store.ErrFull)
	case notDatabase(err), code(err) == lib.SQLITE_CORRUPT:
		return fmt.Errorf("%s: %w: %v", doing, store.ErrNotStore, err)
	}
	return fmt.Errorf("%s: %v", doing, err)
}

// wrapCommit tells a commit that did not happen from one whose outcome nobody knows. A
// full disk stops SQLite before it has written the frame that commits, and so does a lock;
// after any other failure the frame may be in the log, and be found at the next start.
func wrapCommit(err error) error {
	switch code(err) {
	case lib.SQLITE_FULL, lib.SQLITE_BUSY, lib.SQLITE_CONSTRAINT:
		return wrap("committing", err)
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: committing: %v", store.ErrOutcomeUnknown, err)
}
