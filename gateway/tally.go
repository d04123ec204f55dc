package gateway

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
)

const (
	// tallyEvery is how often refusals by limits are recorded: a record for each principal, not
	// for each call, or who calls too often could fill the audit log.
	tallyEvery = 10 * time.Second
	// maxTallied is how many principals have a record of their own each time. The others
	// share one.
	maxTallied = 100
)

// tally counts the calls that limits refused until they are recorded.
type tally struct {
	now func() time.Time

	mu   sync.Mutex
	rows map[arn.Principal]*keyops.ThrottledCalls // guarded by mu; the zero principal is that of all others
}

func newTally(now func() time.Time) *tally {
	return &tally{now: now, rows: map[arn.Principal]*keyops.ThrottledCalls{}}
}

// add counts one call.
func (t *tally) add(c keyops.Caller, method string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	row := t.rows[c.Principal]
	if row == nil && len(t.rows) >= maxTallied {
		c = keyops.Caller{}
		row = t.rows[c.Principal]
	}
	if row == nil {
		operation := method[strings.LastIndex(method, "/")+1:]
		row = &keyops.ThrottledCalls{Caller: c, Operation: operation, Since: t.now()}
		if c.Principal.Name == "" {
			row.Operation = ""
		}
		t.rows[c.Principal] = row
	}
	row.Count++
}

// take returns what has been counted and begins anew.
func (t *tally) take() map[arn.Principal]*keyops.ThrottledCalls {
	t.mu.Lock()
	defer t.mu.Unlock()
	rows := t.rows
	t.rows = map[arn.Principal]*keyops.ThrottledCalls{}
	return rows
}

// recordEvery records what has been counted until ctx ends.
func (s *Server) recordEvery(ctx context.Context) {
	tick := time.NewTicker(tallyEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.recordThrottled()
		case <-ctx.Done():
			return
		}
	}
}

// recordThrottled records what has been counted.
func (s *Server) recordThrottled() {
	for who, row := range s.tally.take() {
		if err := s.config.RecordThrottled(context.Background(), *row); err != nil {
			s.log.WithField(fieldPrincipal, who.String()).WithError(err).Error("throttled calls were not recorded")
		}
	}
}
