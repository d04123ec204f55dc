package reload_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/keyferry/keyferry/gateway/alarm"
	"github.com/keyferry/keyferry/gateway/reload"
)

type fixture struct {
	t       *testing.T
	path    string
	alarms  *alarm.Set
	watcher *reload.Watcher
	value   *reload.Value[string]
	reads   int
}

// newFixture watches a file whose contents are the value, and must not begin with "bad".
func newFixture(t *testing.T) *fixture {
	log, _ := logtest.NewNullLogger()
	f := &fixture{t: t, path: filepath.Join(t.TempDir(), "file"), alarms: alarm.New(log)}
	f.watcher = reload.NewWatcher(log, f.alarms)
	f.write("one")
	var err error
	f.value, err = reload.Load(f.watcher, "file", func() (string, error) {
		f.reads++
		data, err := reload.ReadFile(f.path, 100)
		if err == nil && len(data) > 2 && string(data[:3]) == "bad" {
			err = errors.New("it is bad")
		}
		return string(data), err
	}, f.path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) write(text string) {
	f.t.Helper()
	next := f.path + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(next, f.path); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) look(always bool, want string, alarms uint64, stands bool) {
	f.t.Helper()
	f.watcher.Check(context.Background(), always)
	if got := f.value.Get(); got != want {
		f.t.Errorf("value is %q, want %q", got, want)
	}
	var a alarm.Alarm
	if all := f.alarms.All(); len(all) > 0 {
		a = all[0]
	}
	if a.Count != alarms || (a.Cause != nil) != stands {
		f.t.Errorf("alarm was raised %d times and stands because of %v, want %d, %v", a.Count, a.Cause, alarms, stands)
	}
}

func TestABrokenFileChangesNothing(t *testing.T) {
	f := newFixture(t)
	f.look(false, "one", 0, false)
	f.write("two")
	f.look(false, "two", 0, false)
	f.write("bad")
	f.look(false, "two", 1, true)
	f.look(false, "two", 1, true) // still broken is no news
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	f.look(false, "two", 2, true)
	f.write("three")
	f.look(false, "three", 2, false)
}

func TestFilesAreReadOnlyWhenTheyChange(t *testing.T) {
	f := newFixture(t)
	for range 3 {
		f.look(false, "one", 0, false)
	}
	if f.reads != 1 {
		t.Errorf("read %d times without a change", f.reads)
	}
	f.look(true, "one", 0, false)
	if f.reads != 2 {
		t.Errorf("not read although told to")
	}
}

// TestAFileInAnothersPlace puts in a file of the same size and date.
func TestAFileInAnothersPlace(t *testing.T) {
	f := newFixture(t)
	info, err := os.Stat(f.path)
	if err != nil {
		t.Fatal(err)
	}
	f.write("two")
	if err := os.Chtimes(f.path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	f.look(false, "two", 0, false)
}

func TestAFileThatIsTooLargeIsNotRead(t *testing.T) {
	f := newFixture(t)
	f.write(string(make([]byte, 101)))
	f.look(false, "one", 1, true)
}

func TestRunLooksAtIntervalsAndWhenTold(t *testing.T) {
	f := newFixture(t)
	for name, test := range map[string]struct {
		interval time.Duration
		told     bool
	}{
		"interval": {time.Millisecond, false},
		"told":     {time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			f.write(name)
			ctx, stop := context.WithCancel(context.Background())
			now, done := make(chan os.Signal, 1), make(chan struct{})
			go func() {
				defer close(done)
				f.watcher.Run(ctx, test.interval, now)
			}()
			if test.told {
				now <- syscall.SIGHUP
			}
			for range 12_000 {
				if f.value.Get() == name {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
			stop()
			<-done
			if got := f.value.Get(); got != name {
				t.Errorf("value is %q", got)
			}
		})
	}
}
