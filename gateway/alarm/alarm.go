// Package alarm counts what an operator must see to although the daemon goes on serving: a
// file that is refused while the old one stays in force, a revocation list that is out of
// date, keys of an issuer that cannot be fetched.
//
// An alarm is raised with its cause and cleared when the cause is gone. Each new cause is
// logged once and counted once, however often it is found again. Causes are errors of this
// program's own and hold no secret. A Set may be used by several goroutines at once; nothing
// in it is durable.
package alarm

import (
	"cmp"
	"slices"
	"sync"

	"github.com/sirupsen/logrus"
)

// Keys of the fields of a log entry.
const (
	fieldAlarm = "alarm"
	fieldCount = "count"
)

// Alarm is how one alarm stands.
type Alarm struct {
	Name  string // constant, such as "client authorities"
	Count uint64 // how often it has been raised since the start; only grows
	Cause error  // why it stands; nil if it does not
}

// Set holds the alarms of one process. A nil Set takes alarms and forgets them.
type Set struct {
	log logrus.FieldLogger

	mu  sync.Mutex
	all map[string]*Alarm // guarded by mu
}

// New returns a Set that reports to log.
func New(log logrus.FieldLogger) *Set { return &Set{log: log, all: map[string]*Alarm{}} }

// Raise says that the alarm stands, and why. The same cause again is no news.
func (s *Set) Raise(name string, cause error) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.all[name]
	if a == nil {
		a = &Alarm{Name: name}
		s.all[name] = a
	}
	if a.Cause != nil && a.Cause.Error() == cause.Error() {
		return
	}
	a.Cause = cause
	a.Count++
	s.log.WithFields(logrus.Fields{fieldAlarm: name, fieldCount: a.Count}).WithError(cause).Error("alarm raised")
}

// Clear says that the alarm does not stand, or no longer. From then on it is known, so that
// it can be seen not to stand.
func (s *Set) Clear(name string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.all[name]
	if a == nil {
		s.all[name] = &Alarm{Name: name}
		return
	}
	if a.Cause == nil {
		return
	}
	a.Cause = nil
	s.log.WithFields(logrus.Fields{fieldAlarm: name, fieldCount: a.Count}).Info("alarm cleared")
}

// All returns every alarm that was ever raised or cleared, by name.
func (s *Set) All() []Alarm {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Alarm, 0, len(s.all))
	for _, a := range s.all {
		out = append(out, *a)
	}
	slices.SortFunc(out, func(a, b Alarm) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
