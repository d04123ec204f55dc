package keyops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/wire"
)

const (
	// maxDrift is how far the clock may move beside the time that has passed before it is
	// taken for set, and how long the Region may have been down before nobody can say so.
	maxDrift = time.Hour
	// holdFor is how long nothing is destroyed then, so that somebody can put the clock right.
	holdFor = 24 * time.Hour
	// clockEvery is how often the clock is written down.
	clockEvery = 10 * time.Minute
)

// clockGuard watches the clock, because a wrong one must not destroy keys. Due dates are
// dates of the clock, but time that passes is measured by the monotonic clock as well, and
// where the two part nothing is destroyed for a day. It belongs to the worker.
type clockGuard struct {
	wall  time.Time     // by the clock, when last looked at
	mono  time.Duration // by the monotonic clock, at the same moment
	hold  time.Duration // for which nothing is destroyed yet, in time that passes while the Region runs
	saved time.Duration // by the monotonic clock, when last written down
}

const (
	clockID     = "clock"
	clockSchema = 1
)

// clockRow is what the next start has to know of the clock.
type clockRow struct {
	seen time.Time
	hold time.Duration
}

func (r clockRow) encode() []byte {
	var w wire.Writer
	w.Uint(clockSchema)
	w.Time(r.seen)
	w.Uint(uint64(r.hold))
	return w.Out()
}

func decodeClock(body []byte) (clockRow, error) {
	r := wire.NewReader(body)
	if v := r.Uint(); v != clockSchema {
		r.Fail("clock of schema %d", v)
	}
	row := clockRow{seen: r.Time()}
	hold := r.Uint()
	if hold > uint64(holdFor) {
		r.Fail("a hold of %d", hold)
	}
	row.hold = time.Duration(hold)
	if err := r.Done(); err != nil {
		return clockRow{}, fmt.Errorf("decoding the clock: %w", err)
	}
	return row, nil
}

// resume compares the clock with what the row says of the time before this start. What
// passed meanwhile no monotonic clock has measured: a short time is believed. A new Region,
// which has nothing to destroy, has seen no clock.
func (g *clockGuard) resume(row clockRow, known bool, wall time.Time, mono time.Duration) (held bool) {
	g.wall, g.mono, g.hold, g.saved = wall, mono, row.hold, mono-clockEvery
	if passed := wall.Sub(row.seen); !known || passed < 0 || passed > maxDrift {
		g.hold = holdFor
	}
	return known && g.hold > row.hold
}

// look moves the guard to the present moment, and reports whether the clock was set.
func (g *clockGuard) look(wall time.Time, mono time.Duration) (jumped bool) {
	passed := mono - g.mono
	drift := wall.Sub(g.wall) - passed
	g.wall, g.mono = wall, mono
	g.hold = max(0, g.hold-passed)
	if drift > maxDrift || drift < -maxDrift {
		g.hold = holdFor
		return true
	}
	return false
}

// now returns the time by the clock, without its monotonic reading.
func (s *Service) now() time.Time { return s.clock().Round(0).UTC() }

// openClock reads what the last run has written down of the clock.
func (s *Service) openClock(ctx context.Context) error {
	var row clockRow
	known := true
	err := s.book.View(ctx, func(tx *seal.Tx) error {
		r, err := tx.Get(kindClock, clockID)
		if err == nil {
			row, err = decodeClock(r.Body)
		}
		return err
	})
	var bad *seal.Finding
	switch {
	case errors.As(err, &bad):
		// It was edited behind our back, and so was the time that it says.
		s.log.WithError(err).Error("ALARM: what the store says of the clock cannot be believed; no key is destroyed for a day")
	case errors.Is(err, store.ErrNotFound):
		known = false
	case err != nil:
		return fmt.Errorf("reading the clock: %w", err)
	}
	held := s.guard.resume(row, known, s.now(), s.elapsed())
	if s.found.Restored {
		// Deletions that were cancelled since the backup was made are scheduled again.
		held = held || s.guard.hold < holdFor
		s.guard.hold = holdFor
	}
	if held {
		s.log.WithField("lastSeen", row.seen).WithField("hold", s.guard.hold.String()).
			Warn("the Region was down for long, its clock was set, or its store comes from a backup: no key is destroyed for a day; \"keyferryd clock confirm\" ends that")
	}
	if s.found.Restored {
		return s.saveClock(ctx) // the next start will not know that there was a backup
	}
	return nil
}

// lookAtClock is the first thing that the worker does, each time.
func (s *Service) lookAtClock(ctx context.Context) error {
	before := s.guard.wall
	jumped := s.guard.look(s.now(), s.elapsed())
	if jumped {
		s.log.WithField("from", before).WithField("to", s.guard.wall).
			Error("ALARM: the clock was set by more than an hour; no key is destroyed for a day")
	}
	if !jumped && s.guard.mono-s.guard.saved < clockEvery {
		return nil
	}
	s.guard.saved = s.guard.mono
	if jumped {
		if err := s.retime(ctx); err != nil {
			return err
		}
	}
	return s.saveClock(ctx)
}

func (s *Service) saveClock(ctx context.Context) error {
	row := clockRow{seen: s.guard.wall, hold: s.guard.hold}
	if err := s.update(ctx, func(tx *seal.Tx) error { return tx.Put(kindClock, clockID, row.encode()) }); err != nil {
		return fmt.Errorf("writing down the clock: %w", err)
	}
	return nil
}
