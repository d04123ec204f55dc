package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The files of a log are audit-000001.jsonl and so on, without a gap; the chain of lines
// goes on from one to the next. A file that is empty has not begun yet: a crash, or a disk
// that refused, came between its name and its first line.
const (
	filePrefix = "audit-"
	fileSuffix = ".jsonl"
)

func fileName(number int) string { return fmt.Sprintf("%s%06d%s", filePrefix, number, fileSuffix) }

// fileNumber returns the number in a file's name, or 0 if it is no file of a log.
func fileNumber(name string) int {
	digits, ok := strings.CutPrefix(name, filePrefix)
	digits, ok2 := strings.CutSuffix(digits, fileSuffix)
	n, err := strconv.Atoi(digits)
	if !ok || !ok2 || err != nil || n < 1 || name != fileName(n) {
		return 0
	}
	return n
}

// listFiles returns the numbers of the log's files in order, without empty ones at the end.
func listFiles(fsys fs.FS) ([]int, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, e := range entries {
		if n := fileNumber(e.Name()); n != 0 {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	for len(numbers) > 1 {
		info, err := fs.Stat(fsys, fileName(numbers[len(numbers)-1]))
		if err != nil {
			return nil, err
		}
		if info.Size() > 0 {
			break
		}
		numbers = numbers[:len(numbers)-1]
	}
	return numbers, nil
}

// file is what the log needs of *os.File; tests make one that fails.
type file interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

// directory is what the log needs of the directory of its files; tests make one that fails.
type directory interface {
	// list is listFiles.
	list() ([]int, error)
	// open opens a file that is there, and returns its size.
	open(number int) (file, int64, error)
	// create returns a new, empty file whose name is durable. One that is there already is
	// taken if it is empty.
	create(number int) (file, error)
	Close() error
}

// lockedDir is the directory, and this process's lock on it: there is one writer.
type lockedDir struct {
	path string
	lock *os.File
}

func openDirectory(path string) (*lockedDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("another process writes this log: %w", err)
	}
	return &lockedDir{path, lock}, nil
}

func (d *lockedDir) Close() error { return d.lock.Close() }

func (d *lockedDir) list() ([]int, error) { return listFiles(os.DirFS(d.path)) }

func (d *lockedDir) open(number int) (file, int64, error) { return d.take(number, 0) }

func (d *lockedDir) create(number int) (file, error) {
	f, size, err := d.take(number, os.O_CREATE)
	if err != nil {
		return nil, err
	}
	if size > 0 {
		err = fmt.Errorf("%s: %w", fileName(number), fs.ErrExist)
	}
	if err = errors.Join(err, d.lock.Sync()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// take refuses a file that others can read, and one that is somewhere else.
func (d *lockedDir) take(number, flags int) (file, int64, error) {
	f, err := os.OpenFile(filepath.Join(d.path, fileName(number)), os.O_RDWR|unix.O_NOFOLLOW|flags, 0o600)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&0o077 != 0 {
		f.Close()
		return nil, 0, fmt.Errorf("%s: mode %v, want a file with 0600", f.Name(), mode)
	}
	return f, info.Size(), nil
}
