package audit

import (
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

// DefaultFlush is the flush interval for those who can bear to lose the records of
// cryptographic calls of one second when the machine, not the process, stops.
const DefaultFlush = time.Second

// Config says where a log is and who writes it.
type Config struct {
	Dir      string // the directory of the log's files
	Region   region.Name
	Instance region.InstanceID
	Signer   statement.Signer // the Region signing key
	// Keys are the public halves of the Region signing key, the present one and any before.
	// With them, the checkpoint that a start finds, and compares the store with, must be
	// signed by one; without, it is believed.
	Keys []crypto.PublicKey

	// Flush is how long a queued record may wait for the disk; with 0 each is on disk
	// before its call is answered.
	Flush             time.Duration
	CheckpointEvery   time.Duration // between checkpoints while there is something new; 0 = one second, negative = only when Checkpoint is called
	CheckpointRecords int           // a checkpoint comes earlier after so many records; 0 = 1000
	QueueLength       int           // records that wait for the disk before calls fail; 0 = 16384
	// A new file begins with the next line once a file is this large or this old; 0 = 256 MiB
	// and 24 hours. A file may be larger by what one flush has.
	MaxFileBytes int64
	MaxFileAge   time.Duration

	Now    func() time.Time   // nil = time.Now
	Logger logrus.FieldLogger // nil = discard
}

func (c Config) withDefaults() (Config, error) {
	if c.Signer == nil || c.Region == "" || c.Instance == "" {
		return c, errors.New("region, instance and signer must be given")
	}
	if c.CheckpointEvery == 0 {
		c.CheckpointEvery = time.Second
	}
	if c.CheckpointRecords == 0 {
		c.CheckpointRecords = 1000
	}
	if c.QueueLength == 0 {
		c.QueueLength = 16384
	}
	if c.MaxFileBytes == 0 {
		c.MaxFileBytes = 256 << 20
	}
	if c.MaxFileAge == 0 {
		c.MaxFileAge = 24 * time.Hour
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		c.Logger = l
	}
	return c, nil
}

// Log is an audit log that this process writes.
type Log struct {
	cfg Config

	mu     sync.Mutex // guards what follows; never held while the disk or the token works
	queue  []item
	failed error // why the disk does not take records
	closed bool  // no records of callers any more
	done   bool  // no items of the log's own any more
	wake   chan struct{}

	tip     atomic.Pointer[tip]              // the last line on disk
	last    atomic.Pointer[SignedCheckpoint] // the last one on disk; nil if there is none
	store   atomic.Pointer[func() StoreHead]
	early   chan struct{} // asks for a checkpoint before its time
	stop    chan struct{}
	tickers sync.WaitGroup // the goroutine of checkpoints
	writing sync.WaitGroup // the goroutine that writes

	covered atomic.Uint64 // tip.records that the last checkpoint covers
	signing sync.Mutex    // guards number; held while a checkpoint is made
	number  uint64        // of the last checkpoint that was handed to the writer
}

// item is one line on its way to the disk.
type item struct {
	record     Record
	checkpoint *SignedCheckpoint // instead of a record
	flush      bool              // instead of both: only wait for the disk
	done       chan error        // gets the outcome once the line is on disk; nil if nobody waits
}

// tip is the last line on disk.
type tip struct {
	seq     uint64
	hash    hash
	records uint64 // lines that are no checkpoints, since the last checkpoint before the start
}

// Open continues the log in the directory, or begins one. It cuts off what a crash left
// half-written, and its first record, AuditStart, says what was found.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("opening the audit log: %w", err)
	}
	d, err := openDirectory(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("opening the audit log: %w", err)
	}
	l, err := start(ctx, cfg, d)
	if err != nil {
		return nil, fmt.Errorf("opening the audit log in %s: %w", cfg.Dir, err)
	}
	return l, nil
}

// start continues the log in d, and closes d if it cannot.
func start(ctx context.Context, cfg Config, d directory) (*Log, error) {
	e, err := findEnd(d)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if err := e.ready(cfg); err != nil {
		return nil, errors.Join(err, e.file.Close(), d.Close())
	}
	l := &Log{
		cfg:    cfg,
		wake:   make(chan struct{}, 1),
		early:  make(chan struct{}, 1),
		stop:   make(chan struct{}),
		number: e.checkpoint.Number,
	}
	if e.leap > l.number {
		l.number = e.leap - 1
	}
	l.tip.Store(&tip{seq: e.seq, hash: e.hash, records: e.newRecords})
	if e.checkpoint.Number != 0 {
		l.last.Store(&e.checkpoint)
	}
	w := &writer{
		log: l, dir: d, file: e.file, number: e.number, begun: e.begun, size: e.end,
		enc: newEncoder(), next: *l.tip.Load(),
	}
	l.writing.Go(w.run)
	if err := l.Append(ctx, startRecord(e.tail)); err != nil {
		l.shut()
		return nil, err
	}
	if cfg.CheckpointEvery > 0 {
		l.tickers.Go(l.checkpoints)
	}
	return l, nil
}

// ready says whether this log may be continued here, and cuts off what is torn.
func (e *ending) ready(cfg Config) error {
	if c := e.checkpoint; c.Number != 0 {
		if c.Region != cfg.Region || c.Instance != cfg.Instance {
			return fmt.Errorf("it is the log of instance %s in %s, not of %s in %s", c.Instance, c.Region, cfg.Instance, cfg.Region)
		}
		if len(cfg.Keys) > 0 {
			if err := c.verifyAny(cfg.Keys); err != nil {
				return fmt.Errorf("%w: checkpoint %d: %w", ErrDamaged, c.Number, err)
			}
		}
	}
	if e.torn > 0 {
		if err := e.file.Truncate(e.end); err != nil {
			return fmt.Errorf("cutting off a torn line: %w", err)
		}
	}
	return nil
}

// startRecord says what a start found. After an end that was not clean, records that were
// queued and not yet on disk may be missing before it.
func startRecord(t tail) Record {
	return Record{
		Type:    ServiceEvent,
		Event:   AuditStart,
		Outcome: Success,
		Details: map[string]string{
			"lastSequence":   strconv.FormatUint(t.seq, 10),
			"lastHash":       hex.EncodeToString(t.hash[:]),
			"lastCheckpoint": strconv.FormatUint(t.checkpoint.Number, 10),
			"clean":          strconv.FormatBool(t.clean || t.seq == 0 && t.torn == 0),
			"tornBytes":      strconv.FormatInt(t.torn, 10),
			"tornHash":       hex.EncodeToString(t.tornHash[:]),
		},
	}
}

// Append returns once the record is on disk. If ctx ends first, the record is written all
// the same, but the caller does not know it.
func (l *Log) Append(ctx context.Context, r Record) error {
	return l.wait(ctx, item{record: r}, false)
}

// Queue returns once the record is accepted, and waits for the disk only if the flush
// interval is 0.
func (l *Log) Queue(ctx context.Context, r Record) error {
	if l.cfg.Flush == 0 {
		return l.Append(ctx, r)
	}
	return l.submit(&item{record: r}, false)
}

// Ready returns why a record would be refused now, or nil. Calls that cannot be undone ask
// before they begin.
func (l *Log) Ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready()
}

func (l *Log) ready() error {
	switch {
	case l.closed:
		return ErrClosed
	case l.failed != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, l.failed)
	case len(l.queue) >= l.cfg.QueueLength:
		return ErrQueueFull
	}
	return nil
}

// Waiting returns how many records wait for the disk, and how many may.
func (l *Log) Waiting() (records, limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue), l.cfg.QueueLength
}

// submit hands an item to the writer. While the disk fails, items are still taken as long
// as there is room, so that the log has what happened once the disk recovers; but the
// caller gets the error. own is for the log's own items, which end after the callers'.
func (l *Log) submit(it *item, own bool) error {
	if it.checkpoint == nil && !it.flush {
		if err := it.record.check(); err != nil {
			return err
		}
		if it.record.Time.IsZero() {
			it.record.Time = l.cfg.Now()
		}
	}
	l.mu.Lock()
	err := l.ready()
	if own && !l.done && (errors.Is(err, ErrClosed) || errors.Is(err, ErrQueueFull)) {
		err = nil
	}
	if !errors.Is(err, ErrClosed) && (own || len(l.queue) < l.cfg.QueueLength) {
		l.queue = append(l.queue, *it)
	}
	l.mu.Unlock()
	l.nudge()
	return err
}

func (l *Log) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// wait submits an item and waits until it is on disk.
func (l *Log) wait(ctx context.Context, it item, own bool) error {
	it.done = make(chan error, 1)
	if err := l.submit(&it, own); err != nil {
		return err
	}
	select {
	case err := <-it.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the audit log: %w", ctx.Err())
	}
}

// Close writes AuditStop and a last checkpoint, and closes the file. Records that come
// later are refused.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	close(l.stop)
	l.tickers.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := l.wait(ctx, item{record: Record{Type: ServiceEvent, Event: AuditStop, Outcome: Success}}, true)
	if err == nil && l.store.Load() != nil {
		_, err = l.checkpoint(ctx)
	}
	return errors.Join(err, l.shut())
}

// closeTimeout bounds how long an orderly end waits for disk and token.
const closeTimeout = 10 * time.Second

// shut ends the writer. What the disk does not take by then is lost.
func (l *Log) shut() error {
	l.mu.Lock()
	l.closed, l.done = true, true
	l.mu.Unlock()
	l.nudge()
	l.writing.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}
