package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// faultyFile is a file in memory that fails where the test says so, and remembers what a
// loss of power would leave. It asserts that nothing on disk is ever changed.
type faultyFile struct {
	mu     sync.Mutex
	now    []byte // what the kernel has
	disk   []byte // what survives
	calls  map[string]int
	fault  func(op string) error
	closed bool
}

// faultyDir is a directory of such files. Its names are durable once create has returned;
// a create that fails may leave its file or not.
type faultyDir struct {
	mu     sync.Mutex
	files  map[int]*faultyFile
	fault  func(op string) error // "create" before the file is there, "created" after
	opened func(*faultyFile)     // sees each new file
	closed bool
}

func oneFile(f *faultyFile) *faultyDir { return &faultyDir{files: map[int]*faultyFile{1: f}} }

func (d *faultyDir) fail(op string) error {
	if d.fault == nil {
		return nil
	}
	return d.fault(op)
}

func (d *faultyDir) list() ([]int, error) {
	return listFiles(d.fs(func(f *faultyFile) []byte { return f.now }))
}

// fs shows the files as they are now, or as they survive.
func (d *faultyDir) fs(view func(*faultyFile) []byte) fstest.MapFS {
	d.mu.Lock()
	defer d.mu.Unlock()
	fsys := fstest.MapFS{}
	for n, f := range d.files {
		f.mu.Lock()
		fsys[fileName(n)] = &fstest.MapFile{Data: bytes.Clone(view(f))}
		f.mu.Unlock()
	}
	return fsys
}

func onDisk(f *faultyFile) []byte { return f.disk }

func (d *faultyDir) open(n int) (file, int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[n]
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = false
	return f, int64(len(f.now)), nil
}

func (d *faultyDir) create(n int) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fail("create"); err != nil {
		return nil, err
	}
	if f := d.files[n]; f != nil && len(f.now) > 0 {
		panic("audit: a file that has lines was begun again")
	}
	if n > 1 && len(d.files[n-1].disk) == 0 {
		panic("audit: a file was begun after an empty one")
	}
	f := &faultyFile{}
	if d.opened != nil {
		d.opened(f)
	}
	d.files[n] = f
	if err := d.fail("created"); err != nil {
		return nil, err
	}
	return f, nil
}

func (d *faultyDir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

func (f *faultyFile) call(op string) error {
	if f.closed {
		panic("audit: file used after Close")
	}
	if f.calls == nil {
		f.calls = map[string]int{}
	}
	f.calls[op]++
	if f.fault != nil {
		return f.fault(op)
	}
	return nil
}

func (f *faultyFile) durable() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bytes.Clone(f.disk)
}

func (f *faultyFile) count(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

func (f *faultyFile) set(fault func(op string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

func (f *faultyFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := copy(p, f.now[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off != int64(len(f.now)) {
		panic(fmt.Sprintf("audit: written at %d in a file of %d bytes", off, len(f.now)))
	}
	if err := f.call("write"); err != nil {
		half := p[:rand.IntN(len(p)+1)]
		f.now = append(f.now, half...)
		return len(half), err
	}
	f.now = append(f.now, p...)
	return len(p), nil
}

func (f *faultyFile) Truncate(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call("truncate"); err != nil {
		return err
	}
	f.now = f.now[:size]
	return nil
}

func (f *faultyFile) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call("sync"); err != nil {
		return err
	}
	if !bytes.HasPrefix(f.now, f.disk) {
		panic("audit: what was on disk has been changed")
	}
	f.disk = bytes.Clone(f.now)
	return nil
}

func (f *faultyFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.call("close")
	f.closed = true
	return err
}

// recovers waits until the log takes records again.
func (f *fixture) recovers(l *Log) {
	f.Helper()
	deadline := time.Now().Add(time.Minute)
	for l.Ready() != nil {
		if time.Now().After(deadline) {
			f.Fatalf("the log does not recover: %v", l.Ready())
		}
		time.Sleep(time.Millisecond)
	}
}

// TestDiskFails makes each operation of the file fail, and then work again.
func TestDiskFails(t *testing.T) {
	full := errors.New("no space left on device")
	for _, ops := range [][]string{{"write"}, {"sync"}, {"write", "truncate"}, {"sync", "truncate"}} {
		t.Run(strings.Join(ops, " and "), func(t *testing.T) {
			f := newFixture(t)
			disk := &faultyFile{}
			l := f.start(disk)
			f.append(l, "Before")
			disk.set(func(op string) error {
				for _, o := range ops {
					if o == op {
						return full
					}
				}
				return nil
			})
			ctx := context.Background()
			if err := l.Append(ctx, record("Failed")); !errors.Is(err, ErrUnavailable) || !errors.Is(err, full) {
				t.Fatalf("the call that meets the failure: got %v, want %v and its cause", err, ErrUnavailable)
			}
			for name, give := range map[string]func() error{
				"Append": func() error { return l.Append(ctx, record("Refused")) },
				"Queue":  func() error { return l.Queue(ctx, record("Refused")) },
				"Ready":  l.Ready,
			} {
				if err := give(); !errors.Is(err, ErrUnavailable) || !errors.Is(err, full) {
					t.Errorf("%s while the disk fails: got %v, want %v and its cause", name, err, ErrUnavailable)
				}
			}
			// What a crash would leave now is a sound log.
			f.verifyBytes(disk.durable())

			disk.set(nil)
			f.recovers(l)
			f.append(l, "After")
			f.close(l)
			f.verifyBytes(disk.durable())
			var got []string
			for text := range bytes.Lines(disk.durable()) {
				line, err := newEncoder().parseLine(bytes.TrimSuffix(text, []byte("\n")))
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, line.Event)
			}
			want := []string{AuditStart, "Before", "Failed", "Refused", "Refused", "After", AuditStop}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// TestStartOnAFullDisk shows that a start without a first record is no start, and that it
// closes the file.
func TestStartOnAFullDisk(t *testing.T) {
	full := errors.New("no space left on device")
	for _, op := range []string{"write", "sync", "truncate"} {
		f := newFixture(t)
		disk := &faultyFile{now: []byte("torn")}
		disk.set(func(o string) error {
			if o == op {
				return full
			}
			return nil
		})
		if l, err := f.tryStart(oneFile(disk)); !errors.Is(err, full) || !disk.closed {
			t.Errorf("%s fails: got log %v, error %v, closed %t; want %v", op, l, err, disk.closed, full)
		}
	}
}

// TestFailedFlushFailsTheNextCall is about records that were answered before the disk was asked.
func TestFailedFlushFailsTheNextCall(t *testing.T) {
	f := newFixture(t)
	f.cfg.Flush = time.Millisecond
	disk := &faultyFile{}
	l := f.start(disk)
	full := errors.New("no space left on device")
	disk.set(func(string) error { return full })
	if err := l.Queue(context.Background(), record("Answered")); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for l.Queue(context.Background(), record("Next")) == nil {
		if time.Now().After(deadline) {
			t.Fatal("calls go on though the flush failed")
		}
		time.Sleep(time.Millisecond)
	}
	// An end while the disk fails says so, and does not hang.
	if err := l.Close(); !errors.Is(err, full) {
		t.Errorf("closing: got %v, want %v", err, full)
	}
	f.verifyBytes(disk.durable())
}

func TestFullQueue(t *testing.T) {
	f := newFixture(t)
	f.cfg.QueueLength = 10
	disk := &faultyFile{}
	l := f.start(disk)
	blocked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	disk.set(func(op string) error {
		if op == "sync" {
			once.Do(func() { close(blocked) })
			<-release
		}
		return nil
	})
	var group sync.WaitGroup
	group.Go(func() {
		if err := l.Append(context.Background(), record("Slow")); err != nil {
			t.Error(err)
		}
	})
	<-blocked
	// The disk is busy: queueing goes on until there is no more room.
	for i := range 10 {
		if err := l.Queue(context.Background(), record("Queued")); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
	}
	if err := l.Queue(context.Background(), record("TooMany")); !errors.Is(err, ErrQueueFull) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want %v", err, ErrQueueFull)
	}
	if err := l.Append(context.Background(), record("TooMany")); !errors.Is(err, ErrQueueFull) {
		t.Errorf("got %v, want %v", err, ErrQueueFull)
	}
	close(release)
	group.Wait()
	f.recovers(l)
	f.append(l, "After")
	f.close(l)
	if r := f.verifyBytes(disk.durable()); r.Records != 1+1+10+1+1 {
		t.Errorf("got %d records, want every one that was accepted", r.Records)
	}
}

func TestAppendContext(t *testing.T) {
	f := newFixture(t)
	disk := &faultyFile{}
	l := f.start(disk)
	release := make(chan struct{})
	disk.set(func(op string) error {
		if op == "sync" {
			<-release
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := l.Append(ctx, record("Abandoned")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
	close(release)
	f.append(l, "After")
	if !bytes.Contains(disk.durable(), []byte("Abandoned")) {
		t.Error("a record whose caller went away is not in the log")
	}
}

// TestFileSizeLimit lets the kernel cut a real write short.
func TestFileSizeLimit(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	f := newFixture(t)
	l := f.open()
	f.append(l, "Before")
	size := len(f.read())

	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	limit := old
	limit.Cur = uint64(size) + 100
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	err := l.Append(context.Background(), record("Failed"))
	during := f.read()
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.EFBIG) {
		t.Errorf("got %v, want %v and its cause", err, ErrUnavailable)
	}
	if len(during) != size {
		t.Errorf("%d bytes were left behind", len(during)-size)
	}
	f.recovers(l)
	f.append(l, "After")
	f.close(l)
	f.wantEvents(AuditStart, "Before", "Failed", "After", AuditStop)
	f.verify()
	if info, err := os.Stat(f.path()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, error %v, want 0600", info.Mode(), err)
	}
}

// TestPowerLoss crashes at random operations of the file; what was answered is there.
func TestPowerLoss(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		f := newFixture(t)
		f.cfg.Flush = time.Duration(random.IntN(2)) * time.Millisecond
		disk := &faultyFile{}
		l := f.start(disk)
		f.cover(l)
		left := random.IntN(12)
		dead := errors.New("power lost")
		disk.set(func(op string) error {
			if left--; left < 0 {
				return dead
			}
			return nil
		})
		var answered []string
		for i := range 8 {
			event := fmt.Sprintf("E%d", i)
			if l.Append(context.Background(), record(event)) == nil {
				answered = append(answered, event)
			}
			if random.IntN(3) == 0 {
				_, _ = l.Checkpoint(context.Background())
			}
		}
		last, ok := l.Last()
		// Some of what was never synced may have reached the disk, torn anywhere.
		disk.mu.Lock()
		survived := bytes.Clone(disk.disk)
		if extra := len(disk.now) - len(disk.disk); extra > 0 {
			survived = append(survived, disk.now[len(disk.disk):len(disk.disk)+random.IntN(extra+1)]...)
		}
		disk.mu.Unlock()
		go l.Close()

		after := &faultyFile{now: survived}
		l2 := f.start(after)
		f.close(l2)
		b := after.durable()
		for _, event := range answered {
			if !bytes.Contains(b, []byte(`"`+event+`"`)) {
				t.Fatalf("seed %d: %s was answered and is lost", seed, event)
			}
		}
		r := f.verifyBytes(b)
		if ok && r.Last.Number < last.Number {
			t.Fatalf("seed %d: checkpoint %d was shown and is lost", seed, last.Number)
		}
	}
}
