package sqlite

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// termLocks holds one advisory lock per term on a file beside the database: byte number
// TERM is locked by the writer of that term until its process ends. A lock per term, and
// not one for all, keeps the end of an old writer from looking like that of the present one.
//
// The locks belong to the open file (F_OFD_SETLK), not to the process, so that two stores
// in one process exclude each other too. Losing the file costs nothing but an early
// takeover, which the term fences.
type termLocks struct {
	path string
	mu   sync.Mutex
	file *os.File // guarded by mu; nil until the first use
}

func newTermLocks(path string) *termLocks { return &termLocks{path: path} }

func (l *termLocks) fcntl(cmd int, kind int16, term uint64) (int16, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		file, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return 0, err
		}
		l.file = file
	}
	lock := unix.Flock_t{Type: kind, Start: int64(term), Len: 1}
	if err := unix.FcntlFlock(l.file.Fd(), cmd, &lock); err != nil {
		return 0, fmt.Errorf("locking term %d in %s: %w", term, l.path, err)
	}
	return lock.Type, nil
}

// lock marks the term as that of a living process.
func (l *termLocks) lock(term uint64) error {
	_, err := l.fcntl(unix.F_OFD_SETLK, unix.F_WRLCK, term)
	return err
}

func (l *termLocks) unlock(term uint64) {
	// Cannot fail in a way that matters: close does the same.
	_, _ = l.fcntl(unix.F_OFD_SETLK, unix.F_UNLCK, term)
}

// abandoned reports whether the writer of the term is known to be gone.
func (l *termLocks) abandoned(term uint64) bool {
	state, err := l.fcntl(unix.F_OFD_GETLK, unix.F_WRLCK, term)
	return err == nil && state == unix.F_UNLCK
}

func (l *termLocks) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
