// Package reload keeps what was made of files current while a daemon runs.
//
// A [Watcher] looks at its files every few seconds, and when it is told to, and reads those
// that have changed. A file that cannot be read or makes no sense changes nothing: what was
// read before stays in force as a whole, and an alarm says so until the file is mended. Files
// are the operator's own and trusted; that one may be half written is why it is read again.
// Values may be used by any number of goroutines while they change.
package reload

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/keyferry/keyferry/gateway/alarm"
)

// fieldWhat is the key of the log field with an item's name.
const fieldWhat = "what"

// Watcher keeps any number of things current.
type Watcher struct {
	log    logrus.FieldLogger
	alarms *alarm.Set

	mu    sync.Mutex // held while checking, so that nothing is read twice at once
	items []item     // guarded by mu
}

type item struct {
	name  string
	check func(ctx context.Context, always bool) (changed bool, err error)
}

// NewWatcher returns a Watcher that raises the alarm of an item's name when the item is refused.
func NewWatcher(log logrus.FieldLogger, alarms *alarm.Set) *Watcher {
	return &Watcher{log: log, alarms: alarms}
}

// Add has the watcher call check at every look. It returns whether something is new and why
// it could not be taken; always asks it to look even if there is no sign of a change.
func (w *Watcher) Add(name string, check func(ctx context.Context, always bool) (changed bool, err error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.items = append(w.items, item{name, check})
}

// Check looks at everything once.
func (w *Watcher) Check(ctx context.Context, always bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range w.items {
		changed, err := i.check(ctx, always)
		switch {
		case err != nil:
			w.alarms.Raise(i.name, err)
			continue
		case changed:
			w.log.WithField(fieldWhat, i.name).Info("reloaded")
		}
		w.alarms.Clear(i.name)
	}
}

// Run checks at every interval, and always when now receives, until ctx ends.
func (w *Watcher) Run(ctx context.Context, interval time.Duration, now <-chan os.Signal) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.Check(ctx, false)
		case <-now:
			w.Check(ctx, true)
		}
	}
}

// Value is what was last made of files that made sense.
type Value[T any] struct {
	paths   []string
	read    func() (T, error)
	current atomic.Pointer[T]

	seen    string // the files as current was made of them; used under the watcher's lock
	refused bool   // the last attempt was; used under the watcher's lock
}

// Load reads a value for the first time and has the watcher keep it current.
func Load[T any](w *Watcher, name string, read func() (T, error), paths ...string) (*Value[T], error) {
	v := &Value[T]{paths: paths, read: read}
	if _, err := v.check(context.Background(), true); err != nil {
		return nil, err
	}
	w.Add(name, v.check)
	return v, nil
}

// Get returns the value in force.
func (v *Value[T]) Get() T { return *v.current.Load() }

// check reads the files if they have changed, or if they were refused: what was wrong with
// them need not show in their dates.
func (v *Value[T]) check(_ context.Context, always bool) (bool, error) {
	seen := look(v.paths) // before reading, so that a change meanwhile is seen the next time
	if seen == v.seen && !v.refused && !always {
		return false, nil
	}
	next, err := v.read()
	v.refused = err != nil
	if err != nil {
		return false, err
	}
	changed := seen != v.seen
	v.seen = seen
	v.current.Store(&next)
	return changed, nil
}

// look says what can be seen of files without reading them. The inode is part of it, because
// a file that is put in another's place may have its date and size.
func look(paths []string) string {
	var out strings.Builder
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			out.WriteString("?\n")
			continue
		}
		var inode uint64
		if sys, ok := info.Sys().(*syscall.Stat_t); ok {
			inode = sys.Ino
		}
		fmt.Fprintln(&out, inode, info.Size(), info.ModTime().UnixNano(), info.Mode())
	}
	return out.String()
}
