package audit

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// retryEvery is how often a disk that refused is tried again.
const retryEvery = 200 * time.Millisecond

// keepBuffer bounds the memory that is kept between flushes after a burst.
const keepBuffer = 1 << 20

// writer is the one goroutine that encodes, chains and writes.
type writer struct {
	log *Log
	dir directory
	enc *encoder

	file      file
	number    int       // of the file
	begun     time.Time // when the file's first line was written; zero if it has none
	size      int64     // of the file up to what is certainly on disk
	unrotated bool      // the last try to begin a new file failed

	pending []byte // lines after that
	written int    // how much of pending the kernel has
	next    tip    // the last line in pending
	waiting []chan error
	spare   []item    // the queue of the turn before, to be used again
	dueAt   time.Time // when pending has to be on disk; zero if nothing is pending
}

// run writes until the log is done.
func (w *writer) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if w.step() {
			if err := errors.Join(w.file.Close(), w.dir.Close()); err != nil {
				w.fail(err)
			}
			return
		}
		switch {
		case w.failing():
			timer.Reset(retryEvery)
		case !w.dueAt.IsZero():
			timer.Reset(max(0, time.Until(w.dueAt)))
		default:
			timer.Reset(time.Hour)
		}
		select {
		case <-w.log.wake:
			if w.failing() && !w.log.ended() { // records do not make a full disk emptier
				<-timer.C
			}
		case <-timer.C:
		}
	}
}

func (w *writer) failing() bool {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	return w.log.failed != nil
}

func (l *Log) ended() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done
}

// step writes what there is. It returns true when the log is done and nothing is left, or
// nothing more can be written.
func (w *writer) step() (done bool) {
	ended := w.log.ended()
	if w.failing() {
		if err := w.flush(true); err != nil {
			w.fail(err)
			return ended
		}
		w.recovered()
	}
	items := w.take()
	for i := range items {
		it := &items[i]
		if err := w.add(it); err != nil && it.done != nil {
			it.done <- err
			continue
		}
		if it.done != nil {
			w.waiting = append(w.waiting, it.done)
		}
	}
	clear(items)
	w.spare = items
	if len(w.pending) > 0 && w.dueAt.IsZero() {
		w.dueAt = time.Now().Add(w.log.cfg.Flush)
	}
	due := len(w.waiting) > 0 || ended || !w.dueAt.IsZero() && !time.Now().Before(w.dueAt)
	if err := w.flush(due); err != nil {
		w.fail(err)
		return ended
	}
	return ended
}

func (w *writer) take() []item {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	items := w.log.queue
	w.log.queue = w.spare[:0]
	return items
}

// add encodes one line at the end of pending.
func (w *writer) add(it *item) error {
	if it.flush {
		return nil
	}
	var l line
	if it.checkpoint != nil {
		l = it.checkpoint.line()
	} else {
		l = recordLine(&it.record)
		l.Region, l.Instance = string(w.log.cfg.Region), string(w.log.cfg.Instance)
	}
	l.Seq, l.Prev = w.next.seq+1, hexHash(w.next.hash)
	b, err := w.enc.encode(&l)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	w.pending = append(w.pending, b...)
	w.next.seq++
	w.next.hash = sha256.Sum256(b[:len(b)-1])
	if it.checkpoint == nil {
		w.next.records++
	}
	return nil
}

// flush gives pending to the kernel and, if it is due, to the disk. After an error the file
// ends where it certainly was before: what an fsync has refused once is not trusted to be
// there when a later one succeeds, so all of pending is written again.
func (w *writer) flush(due bool) (err error) {
	defer func() {
		if err != nil {
			w.written = 0
			_ = w.file.Truncate(w.size) // tried again below, before the next write
		}
	}()
	if w.failing() {
		if err := w.file.Truncate(w.size); err != nil {
			return fmt.Errorf("cutting off what was half-written: %w", err)
		}
	}
	if w.written == 0 && len(w.pending) > 0 {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	if w.written < len(w.pending) {
		if _, err := w.file.WriteAt(w.pending[w.written:], w.size+int64(w.written)); err != nil {
			return err
		}
		w.written = len(w.pending)
	}
	if !due {
		return nil
	}
	if len(w.pending) > 0 {
		if err := w.file.Sync(); err != nil {
			return err
		}
	}
	w.durable()
	return nil
}

// rotate begins a new file if the present one is full or old. If that cannot be, the log
// goes on in the present one, and the next flush tries again.
func (w *writer) rotate() error {
	now := w.log.cfg.Now()
	if w.size == 0 {
		w.begun = now
	}
	if w.size < w.log.cfg.MaxFileBytes && now.Sub(w.begun) < w.log.cfg.MaxFileAge {
		return nil
	}
	// What was cut off here must not come back after a loss of power: only the newest file
	// may end in a torn line.
	if err := w.file.Sync(); err != nil {
		return err
	}
	next, err := w.dir.create(w.number + 1)
	if err != nil {
		if !w.unrotated {
			w.log.cfg.Logger.WithError(err).Error("audit log cannot begin a new file, it goes on in the present one")
		}
		w.unrotated = true
		return nil
	}
	if err := w.file.Close(); err != nil { // it was synced
		w.log.cfg.Logger.WithError(err).Warn("a finished audit file was not closed in order")
	}
	w.file, w.number, w.size, w.begun, w.unrotated = next, w.number+1, 0, now, false
	return nil
}

// durable answers those who waited for the disk.
func (w *writer) durable() {
	w.size += int64(len(w.pending))
	w.pending, w.written, w.dueAt = w.pending[:0], 0, time.Time{}
	if cap(w.pending) > keepBuffer {
		w.pending = nil
	}
	next := w.next
	w.log.tip.Store(&next)
	for _, done := range w.waiting {
		done <- nil
	}
	w.waiting = w.waiting[:0]
	if next.records >= w.log.covered.Load()+uint64(w.log.cfg.CheckpointRecords) {
		w.log.requestCheckpoint()
	}
}

// fail answers everybody who waits with the cause, now and until recover.
func (w *writer) fail(cause error) {
	l := w.log
	l.mu.Lock()
	first := l.failed == nil
	l.failed = cause
	refused := w.waiting
	for i := range l.queue {
		if done := l.queue[i].done; done != nil {
			refused = append(refused, done)
			l.queue[i].done = nil // the record stays; whoever waited is told
		}
	}
	l.mu.Unlock()
	for _, done := range refused {
		done <- fmt.Errorf("%w: %w", ErrUnavailable, cause)
	}
	w.waiting = nil
	if first {
		l.cfg.Logger.WithError(cause).Error("audit log cannot be written, calls are refused until it can")
	}
}

func (w *writer) recovered() {
	w.log.mu.Lock()
	w.log.failed = nil
	w.log.mu.Unlock()
	w.log.cfg.Logger.Warn("audit log can be written again, calls are taken again")
}
