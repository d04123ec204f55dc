//go:build !linux

package sqlite

// termLocks knows nothing here: the next writer waits for the expiry.
type termLocks struct{}

func newTermLocks(string) *termLocks          { return &termLocks{} }
func (*termLocks) lock(uint64) error          { return nil }
func (*termLocks) unlock(uint64)              {}
func (*termLocks) abandoned(term uint64) bool { return false }
func (*termLocks) close() error               { return nil }
