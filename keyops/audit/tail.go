package audit

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"
)

// ErrDamaged says that a log cannot be continued: its newest file does not begin as a log,
// or its last checkpoint is not this Region's. It is left as it is, being evidence.
var ErrDamaged = errors.New("audit log damaged")

// tail is the end of a log as a start finds it.
type tail struct {
	size       int64 // of what was read up to its last good line
	seq        uint64
	hash       hash
	checkpoint SignedCheckpoint // the last one, with Number 0 if there is none
	newRecords uint64           // records after it
	leap       uint64           // the number of the next checkpoint, if the log was restored since the last; else 0
	clean      bool             // the log was closed in order
	torn       int64            // bytes after the last good line
	tornHash   hash
	whole      bool // what comes before cannot change the above
}

// ending is the newest file of a log, open, and the tail that ends in it.
type ending struct {
	tail
	file   file
	number int
	end    int64     // of the file's last good line
	begun  time.Time // when its first line was written; zero if it has none
}

// findEnd opens the newest file and reads back, through older files if it must, to the last
// checkpoint.
func findEnd(d directory) (ending, error) {
	numbers, err := d.list()
	if err != nil {
		return ending{}, err
	}
	if len(numbers) == 0 {
		f, err := d.create(1)
		return ending{tail: tail{tornHash: sha256.Sum256(nil)}, file: f, number: 1}, err
	}
	var s series
	defer func() { s.closeOlder() }()
	for i := len(numbers) - 1; ; i-- {
		f, size, err := d.open(numbers[i])
		if err != nil {
			return ending{}, errors.Join(err, s.closeNewest())
		}
		s.prepend(f, size)
		t, err := readTail(s, s.size())
		if err == nil && !t.whole && i > 0 {
			if numbers[i-1] == numbers[i]-1 {
				continue
			}
			err = fmt.Errorf("%w: file %s is missing", ErrDamaged, fileName(numbers[i]-1))
		}
		// Without a checkpoint nobody knows the number of the next.
		if err == nil && i == 0 && numbers[0] > 1 && t.checkpoint.Number == 0 {
			err = fmt.Errorf("%w: no checkpoint from %s on; bring back the file before", ErrDamaged, fileName(numbers[0]))
		}
		if err != nil {
			return ending{}, errors.Join(err, s.closeNewest())
		}
		e, err := s.ending(t)
		e.number = numbers[len(numbers)-1]
		if err != nil {
			return ending{}, errors.Join(err, s.closeNewest())
		}
		return e, nil
	}
}

// series is consecutive files, read as one.
type series struct {
	files []file
	sizes []int64
}

func (s *series) prepend(f file, size int64) {
	s.files = append([]file{f}, s.files...)
	s.sizes = append([]int64{size}, s.sizes...)
}

func (s series) size() (n int64) {
	for _, size := range s.sizes {
		n += size
	}
	return n
}

// ReadAt implements io.ReaderAt.
func (s series) ReadAt(p []byte, off int64) (n int, err error) {
	for i, f := range s.files {
		if off >= s.sizes[i] {
			off -= s.sizes[i]
			continue
		}
		m, err := f.ReadAt(p[n:min(len(p), n+int(min(s.sizes[i]-off, int64(len(p)))))], off)
		n += m
		if err != nil && !errors.Is(err, io.EOF) || n == len(p) {
			return n, err
		}
		off = 0
	}
	return n, io.EOF
}

func (s *series) closeOlder() {
	for _, f := range s.files[:max(0, len(s.files)-1)] {
		f.Close() // was only read
	}
}

func (s *series) closeNewest() error {
	if len(s.files) == 0 {
		return nil
	}
	return s.files[len(s.files)-1].Close()
}

// ending says where in the newest file the tail ends.
func (s *series) ending(t tail) (ending, error) {
	newest := len(s.files) - 1
	f, size := s.files[newest], s.sizes[newest]
	e := ending{tail: t, file: f, end: t.size - (s.size() - size)}
	first := make([]byte, min(size, maxLine))
	if _, err := f.ReadAt(first, 0); err != nil && !errors.Is(err, io.EOF) {
		return ending{}, err
	}
	text, _, whole := bytes.Cut(first, []byte{'\n'})
	// A crash leaves the newest file torn, and never one before it.
	if newest > 0 && (e.end < 0 || e.end == 0 && whole) {
		return ending{}, fmt.Errorf("%w: the newest file does not go on where the one before ends", ErrDamaged)
	}
	if l, err := newEncoder().parseLine(text); err == nil && whole {
		e.begun, err = time.Parse(timeFormat, l.Time)
		return e, err
	}
	return e, nil
}

// firstWindow is how much is read from the end at first: with a checkpoint each second and
// every thousand records, one is nearly always in it.
const firstWindow = 1 << 20

// readTail follows the chain from the last checkpoint to the end of what is read. What comes
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
		t.whole = found && from+int64(start) > 0
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
			t.checkpoint, t.newRecords, t.leap = c, 0, 0
		} else {
			t.newRecords++
			if n, ok := l.restored(); ok {
				t.leap = n
			}
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
