package audit

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Newest returns the last checkpoint of the log in a directory, which another process may
// be writing, or one with Number 0 if there is none. It must be signed by one of the keys.
// What comes before it is not looked at: that is for Verify.
func Newest(dir string, keys []crypto.PublicKey) (SignedCheckpoint, error) {
	c, err := newest(dir, keys)
	if err != nil {
		return SignedCheckpoint{}, fmt.Errorf("reading the audit log in %s: %w", dir, err)
	}
	return c, nil
}

// End is Newest, and also returns the sequence number of the last line, which that
// checkpoint may not cover; 0 if there is none.
func End(dir string, keys []crypto.PublicKey) (c SignedCheckpoint, seq uint64, err error) {
	if c, seq, err = end(dir, keys); err != nil {
		return SignedCheckpoint{}, 0, fmt.Errorf("reading the audit log in %s: %w", dir, err)
	}
	return c, seq, nil
}

func newest(dir string, keys []crypto.PublicKey) (SignedCheckpoint, error) {
	c, _, err := end(dir, keys)
	return c, err
}

func end(dir string, keys []crypto.PublicKey) (SignedCheckpoint, uint64, error) {
	e, err := findEnd(readDir(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return SignedCheckpoint{}, 0, nil
	}
	if err != nil {
		return SignedCheckpoint{}, 0, err
	}
	if err := e.file.Close(); err != nil {
		return SignedCheckpoint{}, 0, err
	}
	if e.checkpoint.Number == 0 {
		return SignedCheckpoint{}, e.seq, nil
	}
	if err := e.checkpoint.verifyAny(keys); err != nil {
		return SignedCheckpoint{}, 0, fmt.Errorf("%w: checkpoint %d: %w", ErrDamaged, e.checkpoint.Number, err)
	}
	return e.checkpoint, e.seq, nil
}

// readDir is a directory of files that are read and nothing else.
type readDir string

func (d readDir) list() ([]int, error) { return listFiles(os.DirFS(string(d))) }

func (d readDir) open(number int) (file, int64, error) {
	f, err := os.Open(filepath.Join(string(d), fileName(number)))
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

func (d readDir) create(int) (file, error) { return nil, fs.ErrNotExist }

func (d readDir) Close() error { return nil }
