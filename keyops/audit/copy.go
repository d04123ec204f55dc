package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Copy copies the log in a directory, which another process may be writing, to another,
// which is made: all that was written when Copy began, in whole lines. A directory that is
// not there, or has no log, gives an empty one.
func Copy(to, from string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	numbers, err := listFiles(os.DirFS(from))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for i, n := range numbers {
		if err := copyFile(filepath.Join(to, fileName(n)), filepath.Join(from, fileName(n)), i == len(numbers)-1); err != nil {
			return fmt.Errorf("copying %s: %w", fileName(n), err)
		}
	}
	return nil
}

// copyFile copies a file of a log, and of the newest the whole lines.
func copyFile(to, from string, newest bool) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	size, err := io.Copy(out, in)
	if err != nil || !newest {
		return err
	}
	end, err := lastLineEnd(out, size)
	if err != nil {
		return err
	}
	return out.Truncate(end)
}

// lastLineEnd returns where the last whole line ends.
func lastLineEnd(r io.ReaderAt, size int64) (int64, error) {
	from := max(0, size-maxLine)
	b := make([]byte, size-from)
	if _, err := r.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	i := bytes.LastIndexByte(b, '\n')
	if i < 0 && from > 0 {
		return 0, fmt.Errorf("%w: its last line has no end", ErrDamaged)
	}
	return from + int64(i) + 1, nil
}
