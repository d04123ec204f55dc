package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fileEvents are the events of each file in order.
func fileEvents(t *testing.T, fsys fs.FS) (all [][]string) {
	t.Helper()
	numbers, err := listFiles(fsys)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range numbers {
		b, err := fs.ReadFile(fsys, fileName(n))
		if err != nil {
			t.Fatal(err)
		}
		var lines []line
		for text := range bytes.Lines(b) {
			l, err := newEncoder().parseLine(bytes.TrimSuffix(text, []byte("\n")))
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, l)
		}
		all = append(all, events(lines))
	}
	return all
}

func wantFiles(t *testing.T, fsys fs.FS, want ...[]string) Report {
	t.Helper()
	if diff := cmp.Diff(want, fileEvents(t, fsys)); diff != "" {
		t.Errorf("events of the files (-want +got):\n%s", diff)
	}
	r, err := Verify(fsys, keys())
	if err != nil {
		t.Error(err)
	}
	if r.Files != len(want) {
		t.Errorf("got %d files, want %d", r.Files, len(want))
	}
	return r
}

func TestRotationBySize(t *testing.T) {
	f := newFixture(t)
	f.cfg.MaxFileBytes = 700 // start, and one record
	l := f.open()
	f.cover(l)
	f.small(l, "One")
	f.checkpoint(l)
	f.small(l, "Two", "Three", "Four")
	f.close(l)
	dir := os.DirFS(f.cfg.Dir)
	wantFiles(t, dir,
		[]string{AuditStart, "One"},
		[]string{"checkpoint 1 of 2", "Two"},
		[]string{"Three", "Four", AuditStop},
		[]string{"checkpoint 2 of 7"})

	// The numbers of lines, checkpoints and files go on after a restart, and the last
	// checkpoint is found though it is the first line of its file, or in the file before.
	l = f.open()
	f.cover(l)
	if c, ok := l.Last(); !ok || c.Number != 2 {
		t.Errorf("got last checkpoint %d (%t), want 2", c.Number, ok)
	}
	f.small(l, "Five", "Six")
	crashed := filepath.Join(f.cfg.Dir, fileName(6))
	f.close(l)
	r := wantFiles(t, dir,
		[]string{AuditStart, "One"}, []string{"checkpoint 1 of 2", "Two"}, []string{"Three", "Four", AuditStop},
		[]string{"checkpoint 2 of 7", AuditStart}, []string{"Five", "Six", AuditStop}, []string{"checkpoint 3 of 12"})
	if r.Covered != 12 || r.Checkpoints != 3 {
		t.Errorf("got %+v, want 3 checkpoints that cover line 12", r)
	}

	info, err := os.Stat(crashed)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, error %v, want 0600", info.Mode(), err)
	}
	for _, s := range f.starts(dir)[1:] {
		if s["clean"] != "true" {
			t.Errorf("a start after an orderly end says %v", s)
		}
	}
}

// starts are the details of each AuditStart.
func (f *fixture) starts(fsys fs.FS) (details []map[string]string) {
	f.Helper()
	numbers, err := listFiles(fsys)
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range numbers {
		b, err := fs.ReadFile(fsys, fileName(n))
		if err != nil {
			f.Fatal(err)
		}
		for text := range bytes.Lines(b) {
			l, err := newEncoder().parseLine(bytes.TrimSuffix(text, []byte("\n")))
			if err != nil {
				f.Fatal(err)
			}
			if l.Event == AuditStart {
				details = append(details, l.Details)
			}
		}
	}
	return details
}

// TestRotationByAge needs no signal and no timer: the next line begins the new file.
func TestRotationByAge(t *testing.T) {
	f := newFixture(t)
	now := time.Unix(1_800_000_000, 0)
	f.cfg.MaxFileAge = time.Hour
	f.cfg.Now = func() time.Time { return now }
	l := f.open()
	f.cover(l)
	f.small(l, "One")
	now = now.Add(30 * time.Minute)
	f.small(l, "Two")
	f.checkpoint(l)
	f.close(l)
	// The age of a file outlives a restart.
	now = now.Add(20 * time.Minute)
	l = f.open()
	now = now.Add(10 * time.Minute)
	f.small(l, "Three")
	now = now.Add(-48 * time.Hour) // a clock that goes back rotates nothing
	f.small(l, "Four")
	now = now.Add(48*time.Hour + 59*time.Minute)
	f.small(l, "Five")
	f.close(l)
	wantFiles(t, os.DirFS(f.cfg.Dir),
		[]string{AuditStart, "One", "Two", "checkpoint 1 of 3", AuditStop, "checkpoint 2 of 5", AuditStart},
		[]string{"Three", "Four", "Five", AuditStop})
}

// TestOldFilesMoved shows that a log goes on, and verifies, without its older files, as
// long as a checkpoint is left.
func TestOldFilesMoved(t *testing.T) {
	f := newFixture(t)
	f.cfg.MaxFileBytes = 700
	l := f.open()
	f.cover(l)
	for i := range 5 {
		f.small(l, fmt.Sprintf("A%d", i), fmt.Sprintf("B%d", i))
		f.checkpoint(l)
	}
	f.close(l)
	dir := os.DirFS(f.cfg.Dir)
	numbers, err := listFiles(dir)
	if err != nil || len(numbers) < 4 {
		t.Fatalf("got files %v, error %v, want at least 4", numbers, err)
	}
	whole := f.verify()
	for _, n := range numbers[:len(numbers)-1] {
		if err := os.Remove(filepath.Join(f.cfg.Dir, fileName(n))); err != nil {
			t.Fatal(err)
		}
		l := f.open()
		f.cover(l)
		f.small(l, "Later")
		f.close(l)
		r := f.verify()
		if r.FirstSeq == 1 || r.LastSeq <= whole.LastSeq || r.Last.Number <= whole.Last.Number {
			t.Fatalf("without %s: got %+v, want a log that goes on from %+v", fileName(n), r, whole)
		}
		whole = r
	}
}

func TestRotatedLogRefuses(t *testing.T) {
	make := func(t *testing.T) (*fixture, fstest.MapFS) {
		f := newFixture(t)
		f.cfg.MaxFileBytes = 500
		d := oneFile(&faultyFile{})
		l := f.startIn(d)
		f.cover(l)
		f.checkpoint(l)
		f.small(l, "One", "Two", "Three", "Four")
		fsys := d.fs(onDisk)
		f.close(l)
		return f, fsys
	}
	for _, tc := range []struct {
		name   string
		change func(fstest.MapFS)
		want   string
	}{
		{"without a checkpoint", func(fsys fstest.MapFS) { delete(fsys, fileName(1)); delete(fsys, fileName(2)) }, "no checkpoint from audit-000003.jsonl on"},
		{"with a gap", func(fsys fstest.MapFS) { delete(fsys, fileName(2)) }, "file audit-000002.jsonl is missing"},
		{"with another file", func(fsys fstest.MapFS) { fsys[fileName(3)].Data = []byte("listen: here\n") }, "first line"},
		{"with a file twice", func(fsys fstest.MapFS) { fsys[fileName(3)] = fsys[fileName(2)] }, "does not go on"},
		{"torn in the middle", func(fsys fstest.MapFS) { b := fsys[fileName(2)]; b.Data = b.Data[:len(b.Data)-2] }, "does not go on"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, fsys := make(t)
			if got := len(fileEvents(t, fsys)); got != 3 {
				t.Fatalf("got %d files, want 3", got)
			}
			tc.change(fsys)
			d := &faultyDir{files: map[int]*faultyFile{}}
			for name, file := range fsys {
				d.files[fileNumber(name)] = &faultyFile{now: bytes.Clone(file.Data), disk: bytes.Clone(file.Data)}
			}
			l, err := f.tryStart(d)
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got log %v, error %v, want %v with %q", l, err, ErrDamaged, tc.want)
			}
			for name, file := range fsys {
				if got := d.files[fileNumber(name)].now; !bytes.Equal(got, file.Data) {
					t.Errorf("%s was changed", name)
				}
			}
			if !d.closed {
				t.Error("the directory stays locked")
			}
		})
	}
}

// TestFullDiskDuringRotation fails each step of it. No record is lost, and while only the
// new file cannot be made, none is refused.
func TestFullDiskDuringRotation(t *testing.T) {
	full := errors.New("no space left on device")
	for _, tc := range []struct {
		op      string
		refuses bool // calls are refused until the disk recovers
	}{
		{"create", false}, {"created", false}, {"write", true}, {"sync", true},
	} {
		t.Run(tc.op, func(t *testing.T) {
			f := newFixture(t)
			f.cfg.MaxFileBytes = 1
			fails := false
			fault := func(op string) error {
				if fails && op == tc.op {
					return full
				}
				return nil
			}
			first := &faultyFile{}
			d := oneFile(first)
			l := f.startIn(d)
			d.mu.Lock()
			d.fault, d.opened = fault, func(f *faultyFile) { f.fault = fault }
			fails = true
			d.mu.Unlock()
			first.set(fault)

			err := l.Append(context.Background(), record("During"))
			if tc.refuses != errors.Is(err, full) || !tc.refuses && err != nil {
				t.Fatalf("got %v", err)
			}
			if _, err := Verify(d.fs(onDisk), keys()); err != nil {
				t.Errorf("what a crash would leave: %v", err)
			}
			first.mu.Lock()
			d.mu.Lock()
			fails = false
			d.mu.Unlock()
			first.mu.Unlock()
			f.recovers(l)
			f.append(l, "After")
			f.close(l)
			got := slices.Concat(fileEvents(t, d.fs(onDisk))...)
			if diff := cmp.Diff([]string{AuditStart, "During", "After", AuditStop}, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if r, err := Verify(d.fs(onDisk), keys()); err != nil || r.Files < 3 {
				t.Errorf("got %+v, error %v, want a whole log in at least 3 files", r, err)
			}
			if !d.closed {
				t.Error("the directory stays locked")
			}
		})
	}
}

// TestCrashDuringRotation loses power at each operation on files and directory in turn,
// with every line in a file of its own. What was answered is there, and the log goes on.
func TestCrashDuringRotation(t *testing.T) {
	dead := errors.New("power lost")
	for at := range 60 {
		random := rand.New(rand.NewPCG(uint64(at), 2))
		f := newFixture(t)
		f.cfg.MaxFileBytes = 1 + int64(random.IntN(2))*600
		left := at
		var mu sync.Mutex
		fault := func(string) error {
			mu.Lock()
			defer mu.Unlock()
			if left--; left < 0 {
				return dead
			}
			return nil
		}
		first := &faultyFile{}
		d := oneFile(first)
		l := f.startIn(d)
		f.cover(l)
		d.mu.Lock()
		d.fault, d.opened = fault, func(f *faultyFile) { f.fault = fault }
		d.mu.Unlock()
		first.set(fault)
		var answered []string
		for i := range 6 {
			event := fmt.Sprintf("E%d", i)
			if l.Append(context.Background(), record(event)) == nil {
				answered = append(answered, event)
			}
			if i == 2 {
				_, _ = l.Checkpoint(context.Background())
			}
		}
		last, shown := l.Last()

		// What was never synced may be on disk up to any byte, in the newest file.
		after := &faultyDir{files: map[int]*faultyFile{}}
		survived := d.fs(onDisk)
		for name, now := range d.fs(func(f *faultyFile) []byte { return f.now }) {
			b := survived[name].Data
			if extra := len(now.Data) - len(b); extra > 0 {
				b = append(b, now.Data[len(b):len(b)+random.IntN(extra+1)]...)
			}
			after.files[fileNumber(name)] = &faultyFile{now: b, disk: bytes.Clone(survived[name].Data)}
		}
		go l.Close()

		f.cfg.MaxFileBytes = 1 << 20
		l2, err := f.tryStart(after)
		if err != nil {
			t.Fatalf("crash at operation %d: %v", at, err)
		}
		f.close(l2)
		b := bytes.Join(slices.Collect(func(yield func([]byte) bool) {
			for _, file := range after.fs(onDisk) {
				if !yield(file.Data) {
					return
				}
			}
		}), nil)
		for _, event := range answered {
			if !bytes.Contains(b, []byte(`"`+event+`"`)) {
				t.Fatalf("crash at operation %d: %s was answered and is lost", at, event)
			}
		}
		r, err := Verify(after.fs(onDisk), keys())
		if err != nil || shown && r.Last.Number < last.Number {
			t.Fatalf("crash at operation %d: got %+v, error %v, want checkpoint %d at least", at, r, err, last.Number)
		}
	}
}

// TestLockCoversRotation shows that a second writer is refused whatever file is the newest.
func TestLockCoversRotation(t *testing.T) {
	f := newFixture(t)
	f.cfg.MaxFileBytes = 1
	l := f.open()
	f.append(l, "One", "Two")
	if other, err := Open(context.Background(), f.cfg); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("got log %v, error %v, want a refusal", other, err)
	}
	f.close(l)
	f.close(f.open())
}

// TestNewFileIsNoOther shows that rotation takes no file that somebody else has put there.
func TestNewFileIsNoOther(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a link":            func(path string) error { return os.Symlink("/dev/null", path) },
		"a readable file":   func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o644)) },
		"a file with lines": func(path string) error { return os.WriteFile(path, []byte("x\n"), 0o600) },
		"a directory":       func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.cfg.MaxFileBytes = 1
			l := f.open()
			path := filepath.Join(f.cfg.Dir, fileName(2))
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			f.append(l, "One")
			f.wantEvents(AuditStart, "One") // goes on in the first file
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			f.append(l, "Two")
			f.close(l)
			if r := f.verify(); r.Files != 3 {
				t.Errorf("got %d files, want 3", r.Files)
			}
		})
	}
}

// TestSeries reads files as one, at every offset and length.
func TestSeries(t *testing.T) {
	var s series
	whole := []byte("0123456789")
	for _, part := range []string{"789", "", "3456", "012"} {
		s.prepend(&faultyFile{now: []byte(part)}, int64(len(part)))
	}
	for off := range whole {
		for n := 1; n <= len(whole)+1; n++ {
			b := make([]byte, n)
			got, err := s.ReadAt(b, int64(off))
			if want := whole[off:min(len(whole), off+n)]; !bytes.Equal(b[:got], want) || (err != nil) != (got < n) {
				t.Errorf("%d bytes at %d: got %q, error %v, want %q", n, off, b[:got], err, want)
			}
		}
	}
	if s.size() != int64(len(whole)) {
		t.Errorf("got size %d, want %d", s.size(), len(whole))
	}
}
