package keyops

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/wire"
)

const (
	// usageEvery is how often it is written down when keys were used, and so how much of it
	// a crash may forget. A call never waits for that.
	usageEvery = 10 * time.Minute
	// usageBatch bounds one transaction.
	usageBatch = 200

	usageSchema   = 1
	trackingID    = "tracking" // the row that says since when uses are remembered
	maxUsageField = 256
)

// lastUse is the last cryptographic operation with a key that succeeded.
type lastUse struct {
	at        time.Time
	operation string
	request   string
}

// usage is what the process remembers of a key's use.
type usage struct {
	last   atomic.Pointer[lastUse]
	listed atomic.Bool // among those that are to be written down
}

// usages are the keys that were used since it was last written down when.
type usages struct {
	since time.Time // when this Region began to remember
	saved time.Duration

	mu   sync.Mutex
	keys []arn.KeyID
}

// touched remembers that a call used its key. It costs one allocation, and a lock only the
// first time after the list was written down.
func (s *Service) touched(c *call, k *Key) {
	k.used.last.Store(&lastUse{at: s.now(), operation: c.name, request: clip(c.caller.RequestID)})
	if k.used.listed.CompareAndSwap(false, true) {
		s.usages.mu.Lock()
		s.usages.keys = append(s.usages.keys, k.ID)
		s.usages.mu.Unlock()
	}
}

// uses tells the operations that count as a use of the key from those that read its public
// half.
func (c *call) uses() bool { return c.op.crypto && c.key != nil && c.name != "GetPublicKey" }

func (u lastUse) encode() []byte {
	var w wire.Writer
	w.Uint(usageSchema)
	w.Time(u.at)
	w.String(u.operation)
	w.String(u.request)
	return w.Out()
}

func decodeUsage(body []byte) (lastUse, error) {
	r := wire.NewReader(body)
	if v := r.Uint(); v != usageSchema {
		r.Fail("usage of schema %d", v)
	}
	u := lastUse{at: r.Time(), operation: r.String(64), request: r.String(4 * maxUsageField)}
	if err := r.Done(); err != nil {
		return lastUse{}, fmt.Errorf("decoding when a key was used: %w", err)
	}
	return u, nil
}

// openUsage reads when keys were used. A row that does not hold is forgotten, with an alarm:
// it decides nothing.
func (s *Service) openUsage(ctx context.Context) error {
	known := map[string]lastUse{}
	err := s.book.View(ctx, func(tx *seal.Tx) error {
		return tx.Scan(kindUsage, func(row store.Row, bad *seal.Finding) error {
			var u lastUse
			var err error
			if bad != nil {
				err = bad
			} else {
				u, err = decodeUsage(row.Body)
			}
			if err != nil {
				s.refuseRow(kindUsage, row.ID, err)
				return nil
			}
			known[row.ID] = u
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("reading when keys were used: %w", err)
	}
	for id, u := range known {
		if k := s.view.key(arn.KeyID(id)); k != nil {
			k.used.last.Store(&u)
		}
	}
	s.usages.saved = s.elapsed()
	tracking, ok := known[trackingID]
	if ok {
		s.usages.since = tracking.at
		return nil
	}
	s.usages.since = s.now()
	begin := lastUse{at: s.usages.since}
	err = s.update(ctx, func(tx *seal.Tx) error {
		if _, err := tx.Get(kindUsage, trackingID); !errors.Is(err, store.ErrNotFound) {
			return nil // it is there, and does not hold: it is not written over
		}
		return tx.Put(kindUsage, trackingID, begin.encode())
	})
	if err != nil {
		return fmt.Errorf("writing down that uses are remembered: %w", err)
	}
	return nil
}

// saveUsage writes down when keys were used, if it is time to, or if this is the end.
func (s *Service) saveUsage(ctx context.Context, last bool) error {
	if !last && s.elapsed()-s.usages.saved < usageEvery {
		return nil
	}
	s.usages.saved = s.elapsed()
	s.usages.mu.Lock()
	ids := s.usages.keys
	s.usages.keys = nil
	s.usages.mu.Unlock()
	for len(ids) > 0 {
		n := min(len(ids), usageBatch)
		if err := s.saveUses(ctx, ids[:n]); err != nil {
			s.usages.mu.Lock()
			s.usages.keys = append(s.usages.keys, ids...)
			s.usages.mu.Unlock()
			return fmt.Errorf("writing down when %d keys were used: %w", len(ids), err)
		}
		ids = ids[n:]
	}
	return nil
}

func (s *Service) saveUses(ctx context.Context, ids []arn.KeyID) error {
	s.commits.Lock() // a key that is deleted takes its row with it, and none comes after
	defer s.commits.Unlock()
	return s.update(ctx, func(tx *seal.Tx) error {
		for _, id := range ids {
			k := s.view.key(id)
			if k == nil {
				continue
			}
			k.used.listed.Store(false) // before the reading: a use in between is listed again
			if u := k.used.last.Load(); u != nil {
				if err := tx.Put(kindUsage, string(id), u.encode()); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// GetKeyLastUsage returns the last cryptographic operation with the key, in this Region, that
// succeeded. Every member of a multi-Region key has its own.
func (s *Service) GetKeyLastUsage(ctx context.Context, caller Caller, in GetKeyLastUsageInput) (GetKeyLastUsageOutput, error) {
	return do(ctx, s, caller, "GetKeyLastUsage", target{ref: in.KeyID}, func(_ context.Context, c *call) (GetKeyLastUsageOutput, error) {
		out := GetKeyLastUsageOutput{KeyID: c.key.arn, TrackingStartDate: s.usages.since, KeyCreationDate: c.key.Created}
		if c.key.Created.After(out.TrackingStartDate) {
			out.TrackingStartDate = c.key.Created
		}
		if u := c.key.used.last.Load(); u != nil {
			out.KeyLastUsage = &KeyLastUsage{Operation: u.operation, Timestamp: u.at, KmsRequestID: u.request}
		}
		return out, nil
	})
}
