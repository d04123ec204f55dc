package keyops

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keyferry/keyferry/keyops/arn"
)

// dueWork is one thing that the worker does to keys when its time comes.
type dueWork struct {
	name     string
	destroys bool                                             // waits while the clock is in doubt
	due      func(*Key) time.Time                             // when; zero if not at all
	do       func(*Service, context.Context, arn.KeyID) error // looks again: much may have happened meanwhile
}

// dueWorks is the table of all of them.
func dueWorks() []dueWork {
	return []dueWork{
		{"deletion", true, (*Key).deletionDue, (*Service).deleteDue},
		{"expiry", true, (*Key).expiryDue, (*Service).expireDue},
		{"burial", false, (*Key).burialDue, (*Service).buryShared},
		{"unlisting", false, (*Key).unlistedDue, (*Service).dropUnlisted},
		{"rotation", false, (*Key).nextRotation, (*Service).rotateDue},
	}
}

// nextDue returns when the worker has to look at the key again, or the zero time.
func (k *Key) nextDue() time.Time {
	var next time.Time
	for _, w := range dueWorks() {
		if d := w.due(k); !d.IsZero() && (next.IsZero() || d.Before(next)) {
			next = d
		}
	}
	return next
}

const (
	// workEvery is how often the worker looks for what is due, so how late anything may be.
	workEvery = time.Minute
	// leftoverAge is how long an unfinished write is left alone before it is undone.
	leftoverAge = time.Minute
	// retryMost bounds the growing time between attempts at what fails.
	retryMost = time.Hour
)

// worker is the state of what the service does by itself. Work takes its lock, so that two
// never do the same.
type worker struct {
	mu    sync.Mutex
	retry map[string]retry // by what failed
}

// retry spaces out attempts at what fails.
type retry struct {
	wait time.Duration
	next time.Duration // by the monotonic clock
}

// Run does what is due, until ctx ends: it deletes and rotates keys, resolves writes that
// were left unfinished, and writes down when keys were used. The clock of Config says when
// something is due; how often Run looks follows real time.
func (s *Service) Run(ctx context.Context) {
	tick := time.NewTicker(workEvery)
	defer tick.Stop()
	for work := true; ; {
		if work {
			if err := s.Work(ctx); err != nil && ctx.Err() == nil {
				s.log.WithError(err).Warn("work that is due failed, and will be tried again")
			}
		}
		work = true
		select {
		case <-ctx.Done():
			// The last chance to write down when keys were used.
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
			defer cancel()
			if err := s.saveUsage(last, true); err != nil {
				s.log.WithError(err).Warn("when keys were used last was not written down")
			}
			return
		case <-s.syncs.wake:
			if err := s.Synchronize(ctx); err != nil && ctx.Err() == nil {
				s.log.WithError(err).Warn("a synchronization failed, and will be tried again")
			}
			work = false
		case <-tick.C:
		}
	}
}

// Work does once what is due now. Its errors are for the log: what failed is tried again,
// after a growing time, and keeps nothing else from being done.
func (s *Service) Work(ctx context.Context) error {
	s.worker.mu.Lock()
	defer s.worker.mu.Unlock()
	if err := s.Failure(); err != nil {
		return nil // said before; nothing can be written any more
	}
	errs := []error{s.try(ctx, "clock", s.lookAtClock)}
	errs = append(errs, s.try(ctx, "leftovers", s.resolveLeftovers))
	errs = append(errs, s.try(ctx, "imports", s.tidyImports))
	errs = append(errs, s.try(ctx, "operators", s.lookAtOperators))
	now := s.now()
	apart := s.clocksAgree()
	if apart != nil {
		s.log.WithError(apart).Error("ALARM: no key is destroyed while the clocks of two Regions differ so much")
	}
	for _, id := range s.view.dueAt(now) {
		for _, w := range dueWorks() {
			k := s.view.fact(id)
			if k == nil || w.destroys && (s.guard.hold > 0 || apart != nil) {
				continue
			}
			if d := w.due(k); d.IsZero() || now.Before(d) {
				continue
			}
			errs = append(errs, s.try(ctx, w.name+" "+string(id), func(ctx context.Context) error { return w.do(s, ctx, id) }))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.grave.open)) {
		errs = append(errs, s.try(ctx, "bury "+string(id), func(ctx context.Context) error { return s.bury(ctx, id) }))
	}
	errs = append(errs, s.try(ctx, "synchronization", s.synchronize))
	errs = append(errs, s.try(ctx, "usage", func(ctx context.Context) error { return s.saveUsage(ctx, false) }))
	return errors.Join(errs...)
}

// Synchronize does once what the synchronization of this instance asks for now.
func (s *Service) Synchronize(ctx context.Context) error {
	s.worker.mu.Lock()
	defer s.worker.mu.Unlock()
	if err := s.Failure(); err != nil {
		return nil
	}
	return s.synchronize(ctx)
}

// try does one thing, unless it failed a short while ago.
func (s *Service) try(ctx context.Context, what string, do func(context.Context) error) error {
	r := s.worker.retry[what]
	if ctx.Err() != nil || r.wait > 0 && s.elapsed() < r.next {
		return nil
	}
	err := do(ctx)
	if err == nil {
		delete(s.worker.retry, what)
		return nil
	}
	if s.worker.retry == nil {
		s.worker.retry = map[string]retry{}
	}
	r.wait = min(max(2*r.wait, workEvery), retryMost)
	r.next = s.elapsed() + r.wait
	s.worker.retry[what] = r
	return fmt.Errorf("%s: %w", what, err)
}

// leftovers are writes to the token that this process could neither finish nor undo.
type leftovers struct {
	mu   sync.Mutex
	list []*write
}

func (l *leftovers) add(w *write) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, w)
}

// take returns the writes that began before a time.
func (l *leftovers) take(before time.Time) (old []*write) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var rest []*write
	for _, w := range l.list {
		if w.begun.Before(before) {
			old = append(old, w)
		} else {
			rest = append(rest, w)
		}
	}
	l.list = rest
	return old
}

// resolveLeftovers undoes writes whose caller has gone: the object would stay in the token,
// and nobody would ever hear of it. A token does one write after the other, so whatever it
// still owed to the old call is done, or never will be, once it has answered the new one.
func (s *Service) resolveLeftovers(ctx context.Context) error {
	var errs []error
	for _, w := range s.leftovers.take(s.clock().Add(-leftoverAge)) {
		if s.listed(w.object) {
			continue // it came to its outcome after all; an object in use is never destroyed
		}
		w.unknown = false
		if s.undo(ctx, w, nil) {
			s.log.WithField("object", w.object).WithField("key", w.key).Info("unfinished token write undone")
			continue
		}
		errs = append(errs, fmt.Errorf("undoing the write of object %s: %w", w.object, errLeftover))
	}
	return errors.Join(errs...)
}

var errLeftover = errors.New("the token or the store refused; it is tried again")
