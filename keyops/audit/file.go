package audit

import (
	"bytes"
	"crypto/sha256"
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
// goes on from one to the next.
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

// listFiles returns the numbers of the log's files in order.
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
	return numbers, nil
}

// openNewest opens the newest file of the log, or makes the first, and locks it.
func openNewest(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	numbers, err := listFiles(os.DirFS(dir))
	if err != nil {
		return nil, err
	}
	number, flags := 1, os.O_RDWR|os.O_CREATE|os.O_EXCL
	if len(numbers) > 0 {
		number, flags = numbers[len(numbers)-1], os.O_RDWR
	}
	f, err := os.OpenFile(filepath.Join(dir, fileName(number)), flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := secure(f, dir); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return f, nil
}

// secure refuses a file that others can read or that another process writes, and makes a
// new one's name durable.
func secure(f *os.File, dir string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&0o077 != 0 {
		return fmt.Errorf("mode %v, want a file with 0600", mode)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("another process writes this log: %w", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ErrDamaged says that a log cannot be continued: its newest file does not begin as a log,
// or its last checkpoint is not this Region's. It is left as it is, being evidence.
var ErrDamaged = errors.New("audit log damaged")

// tail is the end of a log as a start finds it.
type tail struct {
	size       int64 // of the file up to its last good line
	seq        uint64
	hash       hash
	checkpoint SignedCheckpoint // the last one, with Number 0 if there is none
	newRecords uint64           // records after it
	clean      bool             // the log was closed in order
	torn       int64            // bytes after the last good line
	tornHash   hash
}

// firstWindow is how much is read from the end at first: with a checkpoint each second and
// every thousand records, one is nearly always in it.
const firstWindow = 1 << 20

// readTail follows the chain from the last checkpoint to the end of the file. What comes
// before a checkpoint is signed for; checking it is the work of Verify, not of a start.
func readTail(r io.ReaderAt, size int64) (tail, error) {
	for window := int64(firstWindow); ; window *= 4 {
		from := max(0, size-window)
		b := make([]byte, size-from)
		if _, err := r.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
			return tail{}, err
		}
		start, found := lastCheckpoint(b)
		if !found && from > 0 {
			continue
		}
		// An orderly end is AuditStop and a checkpoint.
		clean := stops(b[:start])
		t, err := follow(b[start:], from == 0 && start == 0, clean)
		t.size += from + int64(start)
		return t, err
	}
}

// lastCheckpoint returns where the last line that is a checkpoint begins.
func lastCheckpoint(b []byte) (start int, found bool) {
	enc := newEncoder()
	end := bytes.LastIndexByte(b, '\n')
	for end > 0 {
		start = bytes.LastIndexByte(b[:end], '\n') + 1
		if bytes.Contains(b[start:end], []byte(`"type":"Checkpoint"`)) {
			if l, err := enc.parseLine(b[start:end]); err == nil && l.Checkpoint != nil {
				return start, true
			}
		}
		end = start - 1
	}
	return 0, false
}

// stops reports whether the last line is AuditStop.
func stops(b []byte) bool {
	b = bytes.TrimSuffix(b, []byte{'\n'})
	l, err := newEncoder().parseLine(b[bytes.LastIndexByte(b, '\n')+1:])
	return err == nil && l.Event == AuditStop
}

// follow checks lines that begin with a checkpoint, or with the file.
// clean is what the line before the first says.
func follow(b []byte, fileStart, clean bool) (tail, error) {
	enc := newEncoder()
	t := tail{clean: clean}
	for first := true; ; first = false {
		i := bytes.IndexByte(b[t.size:], '\n')
		if i < 0 {
			break
		}
		text := b[t.size : t.size+int64(i)]
		l, err := enc.parseLine(text)
		if err == nil && !first {
			err = l.follows(t.seq, t.hash)
		}
		if err != nil && first && fileStart {
			return tail{}, fmt.Errorf("%w: first line: %w", ErrDamaged, err)
		}
		if err != nil {
			break
		}
		if c, ok := l.checkpoint(); ok {
			t.checkpoint, t.newRecords = c, 0
		} else {
			t.newRecords++
			t.clean = l.Event == AuditStop
		}
		t.seq, t.hash = l.Seq, sha256.Sum256(text)
		t.size += int64(i) + 1
	}
	rest := b[t.size:]
	t.torn, t.tornHash = int64(len(rest)), sha256.Sum256(rest)
	t.clean = t.clean && t.torn == 0
	return t, nil
}
