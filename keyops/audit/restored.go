package audit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// A log that is put back from a backup ends before checkpoints that peers have seen. Were the
// next one numbered after the last that is left, two checkpoints of one number would be
// signed, which is what a forger leaves. So the number leaps ahead of any that can have been
// used, and a record says why.

// ErrRestored says that a log was put back from a backup, and that witnesses saw what was
// written after the backup and is lost with it. Nothing else is wrong.
var ErrRestored = errors.New("the log was restored from a backup")

// detailNext is the detail of AuditRestored with the number of the next checkpoint.
const detailNext = "nextCheckpoint"

// leapBits leaves room for so many checkpoints in a millisecond that no token signs them. The
// numbers stay below 2^53, which JSON programs can bear.
const leapBits = 10

// leapAfter returns the number of the next checkpoint of a log that is restored now. It grows
// with time, so that a second restore of the same backup does not get the same numbers.
func leapAfter(last uint64, now time.Time) uint64 {
	return max(last, uint64(max(now.UnixMilli(), 0))<<leapBits) + 1
}

// restoredRecord says that the log with this end was put back from a backup.
func restoredRecord(last Checkpoint, now time.Time, details map[string]string) Record {
	r := Record{Type: ServiceEvent, Event: AuditRestored, Outcome: Success, Details: map[string]string{
		"lastCheckpoint": strconv.FormatUint(last.Number, 10),
		detailNext:       strconv.FormatUint(leapAfter(last.Number, now), 10),
	}}
	for k, v := range details {
		r.Details[k] = v
	}
	return r
}

// Restored writes into a log that was copied from a backup, and that nobody has continued yet,
// that it was: the next checkpoint leaps.
func Restored(ctx context.Context, cfg Config, details map[string]string) (err error) {
	l, err := Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	last, _ := l.Last()
	return l.Append(ctx, restoredRecord(last.Checkpoint, l.cfg.Now(), details))
}

// restored returns the number of the next checkpoint, if the line says that the log was
// restored.
func (l *line) restored() (next uint64, ok bool) {
	if l.Type != ServiceEvent || l.Event != AuditRestored {
		return 0, false
	}
	next, err := strconv.ParseUint(l.Details[detailNext], 10, 64)
	return next, err == nil && next > 0
}

// Restore is a place at which a log was put back from a backup.
type Restore struct {
	Seq   uint64    // of the line that says so
	Time  time.Time // as it says
	After uint64    // the last checkpoint of the backup
	Next  uint64    // the first after it; the numbers in between are not used again
	// LostCheckpoint and LostSeq are the newest of what witnesses saw after the backup; 0 if
	// they saw nothing.
	LostCheckpoint, LostSeq uint64
}

// restored takes a line that says that the log was restored.
func (v *verifier) restored(l *line) error {
	next, ok := l.restored()
	if !ok {
		return nil
	}
	at, err := time.Parse(timeFormat, l.Time)
	if err != nil {
		return err
	}
	if next <= v.report.Last.Number {
		return fmt.Errorf("it says that checkpoint %d follows a restore, after checkpoint %d", next, v.report.Last.Number)
	}
	v.next = next
	r := Restore{Seq: l.Seq, Time: at, After: v.report.Last.Number, Next: next}
	for number, w := range v.witnesses.byNumber {
		if number > r.After && number < r.Next && number > r.LostCheckpoint {
			r.LostCheckpoint, r.LostSeq = number, w.Seq
		}
	}
	v.report.Restores = append(v.report.Restores, r)
	return nil
}

// lost reports what witnesses saw and restores have lost.
func (r Report) lost() error {
	for _, at := range r.Restores {
		if at.LostCheckpoint != 0 {
			return fmt.Errorf("%w: the one that line %d tells of went back to checkpoint %d, and witnesses saw checkpoint %d of line %d",
				ErrRestored, at.Seq, at.After, at.LostCheckpoint, at.LostSeq)
		}
	}
	return nil
}
