package keyops

import (
	"context"
	"strconv"
	"time"

	"github.com/keyferry/keyferry/keyops/audit"
)

// EventThrottleCalls is the audit event of calls that a limit refused.
const EventThrottleCalls = "ThrottleCalls"

// ThrottledCalls are calls of one principal that limits refused before anything was looked
// at. They are told of together, so that who calls too often cannot fill the audit log.
type ThrottledCalls struct {
	Caller    Caller // of the first; without principal, of several that are not told apart
	Operation string // of the first; empty for several principals
	Count     int
	Since     time.Time
}

// RecordThrottled records them.
func (s *Service) RecordThrottled(ctx context.Context, t ThrottledCalls) error {
	r := audit.Record{
		Type: audit.ServiceEvent, Event: EventThrottleCalls,
		SourceAddress: t.Caller.SourceIP, RequestID: t.Caller.RequestID, CorrelationID: t.Caller.correlation(),
		Outcome: audit.Error, Error: string(ErrThrottling),
		Details: map[string]string{"refusedCalls": strconv.Itoa(t.Count), "since": t.Since.UTC().Format(time.RFC3339)},
	}
	if t.Caller.Principal.Name != "" {
		r.Principal, r.Account = t.Caller.Principal.String(), string(t.Caller.Principal.Account)
	}
	if t.Operation != "" {
		r.Details["firstOperation"] = t.Operation
	}
	return s.audit.Queue(ctx, r)
}
