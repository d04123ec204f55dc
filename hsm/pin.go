package hsm

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"
)

const maxPIN = 256

// pin is a PIN in memory that Go's garbage collector does not copy. Its String and
// GoString hide it.
type pin []byte

func (pin) String() string   { return "[PIN]" }
func (pin) GoString() string { return "[PIN]" }

// wipe overwrites the PIN.
func (p pin) wipe() { clear(p) }

// readPIN reads a PIN file: a regular file of at most 256 bytes that belongs to this user
// or root and is closed to others, and to the group unless that is allowed. One newline at
// the end is not part of the PIN. All refusals are [ErrPIN] and name the file only.
func readPIN(path string, groupReadable bool) (pin, error) {
	// O_NONBLOCK: opening a FIFO for reading would wait for a writer before we can refuse it.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening PIN file: %w: %w", ErrPIN, err)
	}
	defer f.Close()
	info, err := f.Stat() // of what was opened, not of what the path names by now
	if err != nil {
		return nil, fmt.Errorf("examining PIN file: %w: %w", ErrPIN, err)
	}
	if err := checkPINFile(info, groupReadable); err != nil {
		return nil, fmt.Errorf("PIN file %q: %w: %w", path, ErrPIN, err)
	}
	p := make(pin, maxPIN+1)
	n, err := io.ReadFull(f, p)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		p.wipe()
		return nil, fmt.Errorf("reading PIN file: %w: %w", ErrPIN, err)
	}
	rest := bytes.TrimSuffix(p[:n], []byte("\n"))
	switch {
	case n > maxPIN:
		err = fmt.Errorf("more than %d bytes", maxPIN)
	case len(rest) == 0:
		err = fmt.Errorf("empty")
	case bytes.ContainsAny(rest, "\x00\r\n"):
		// A C string ends at NUL, and a PIN with a stray line end would be spent as a wrong one.
		err = fmt.Errorf("NUL or line end inside the PIN")
	default:
		return pin(rest), nil
	}
	p.wipe()
	return nil, fmt.Errorf("PIN file %q: %w: %w", path, ErrPIN, err)
}

func checkPINFile(info os.FileInfo, groupReadable bool) error {
	allowed := os.FileMode(0o600)
	if groupReadable {
		allowed |= 0o040
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return fmt.Errorf("not a regular file")
	case mode.Perm()&^allowed != 0:
		return fmt.Errorf("mode %04o, want at most %04o", mode.Perm(), allowed)
	case owner != 0 && int(owner) != os.Geteuid():
		return fmt.Errorf("owned by user %d, want root or %d", owner, os.Geteuid())
	}
	return nil
}
