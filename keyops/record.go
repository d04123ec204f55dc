package keyops

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/ciphertext"
	"github.com/keyferry/keyferry/keyops/policy"
)

// auditTimeout bounds the wait for the audit log. It does not depend on the caller, who may
// have gone: what was done is recorded all the same.
const auditTimeout = 10 * time.Second

// record is the audit record of a call while it is being filled in.
type record struct{ audit.Record }

func (r *record) detail(key, value string) {
	if r.Details == nil {
		r.Details = map[string]string{}
	}
	r.Details[key] = value
}

// resource names what the call is about; the last word counts.
func (r *record) resource(arn string, id arn.KeyID) {
	r.Resources = []audit.Resource{{ARN: arn, KeyID: string(id)}}
}

// decision keeps what decided a refusal, which the caller is not told.
func (r *record) decision(d policy.Decision) {
	r.detail("decision", d.Reason.String())
	if d.Statement.Policy != "" {
		r.detail("statement", d.Statement.String())
	}
}

// correlation returns what joins this call's records in all Regions.
func (c Caller) correlation() string {
	if c.CorrelationID != "" {
		return c.CorrelationID
	}
	return c.RequestID
}

// begin fills in what is known of a call before it is looked at.
func (s *Service) begin(c *call, t target) {
	c.record.Record = audit.Record{
		Type:          audit.APICall,
		Event:         c.name,
		Principal:     c.asker.arn,
		Account:       string(c.caller.Principal.Account),
		SourceAddress: c.caller.SourceIP,
		ReadOnly:      !c.op.mutates,
		RequestID:     c.caller.RequestID,
		CorrelationID: c.caller.correlation(),
	}
	if t.alias != "" {
		c.record.detail("aliasName", clip(t.alias))
	}
	for key, value := range t.details {
		if value != "" {
			c.record.detail(key, value)
		}
	}
	// The map is the caller's, and the log keeps records for a while.
	if size := contextSize(t.context); size <= ciphertext.MaxContextSize {
		c.record.EncryptionContext = maps.Clone(t.context)
	} else {
		c.record.detail("encryptionContext", fmt.Sprintf("left out: %d bytes", size))
	}
}

func contextSize(m map[string]string) int {
	n := 0
	for k, v := range m {
		n += len(k) + len(v)
	}
	return n
}

// intended records that a change was let in, before it begins.
func (s *Service) intended(ctx context.Context, c *call) error {
	r := c.record.Record
	r.Details, r.Outcome = maps.Clone(r.Details), audit.Begun
	if err := s.audit.Append(ctx, r); err != nil {
		return fmt.Errorf("recording the intent: %w", err)
	}
	return nil
}

// audited records how a call ended: in the queue for a cryptographic call, on disk for all
// others.
func (s *Service) audited(ctx context.Context, c *call, failure *Error) error {
	r := c.record.Record
	r.Outcome, r.Error = outcome(failure)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTimeout)
	defer cancel()
	if c.op.crypto {
		return s.audit.Queue(ctx, r)
	}
	return s.audit.Append(ctx, r)
}

func outcome(failure *Error) (audit.Outcome, string) {
	switch {
	case failure == nil:
		return audit.Success, ""
	case failure.Reason == ErrAccessDenied:
		return audit.Denied, string(failure.Reason)
	}
	return audit.Error, string(failure.Reason)
}

// auditEvent records what the service did by itself or on a peer's word, and returns err,
// or why it could not be recorded. claimed is the account that a key which is not here is
// said to belong to.
func (s *Service) auditEvent(ctx context.Context, cause Cause, claimed arn.Account, id arn.KeyID, details map[string]string, err error) error {
	r := s.event(cause, claimed, id, details)
	r.Outcome, r.Error = outcome(answer(err))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTimeout)
	defer cancel()
	if unrecorded := s.audit.Append(ctx, r); unrecorded != nil && err == nil {
		return fmt.Errorf("recording %s: %w", cause.Event, unrecorded)
	}
	return err
}

// auditBegun records that a key or a material that a peer brings was let in, before it is
// made. What this Region does to keys that it has needs none: the store says what was done.
func (s *Service) auditBegun(ctx context.Context, cause Cause, claimed arn.Account, id arn.KeyID, details map[string]string) error {
	r := s.event(cause, claimed, id, details)
	r.Outcome = audit.Begun
	if err := s.audit.Append(ctx, r); err != nil {
		return fmt.Errorf("recording the intent of %s: %w", cause.Event, err)
	}
	return nil
}

func (s *Service) event(cause Cause, claimed arn.Account, id arn.KeyID, details map[string]string) audit.Record {
	r := audit.Record{
		Type: audit.ServiceEvent, Event: cause.Event, CorrelationID: cause.CorrelationID, Details: maps.Clone(details),
	}
	if r.Details == nil {
		r.Details = map[string]string{}
	}
	if cause.Peer != "" {
		r.Details["peer"] = string(cause.Peer)
	}
	account := claimed
	if k := s.view.fact(id); k != nil {
		account = k.Account
	}
	r.Resources = []audit.Resource{{KeyID: string(id), ARN: s.keyARN(account, id)}}
	return r
}

// fields are what every log line about a call has.
func (c *call) fields() logrus.Fields {
	return logrus.Fields{"operation": c.name, "requestId": c.caller.RequestID, "principal": c.record.Principal}
}

// logFailure logs what is our fault, with the cause that the caller is not told.
func (s *Service) logFailure(c *call, e *Error) {
	entry := s.log.WithFields(c.fields()).WithField("reason", e.Reason)
	if e.cause != nil {
		entry = entry.WithError(e.cause)
	}
	switch e.Reason {
	case ErrInternal:
		entry.Error("operation failed")
	case ErrKeyUnavailable, ErrDependencyTimeout:
		entry.Warn("operation not possible now")
	default:
		entry.Debug("operation refused")
	}
}
