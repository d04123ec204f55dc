package audit

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

var (
	// ErrUnavailable says that the log cannot take records now. The call that the record is
	// about must fail. The record may still be written later: what happened, happened.
	ErrUnavailable = errors.New("audit log unavailable")
	// ErrQueueFull says that records come faster than the disk takes them.
	ErrQueueFull = fmt.Errorf("%w: its queue is full", ErrUnavailable)
	// ErrClosed says that the log was closed.
	ErrClosed = fmt.Errorf("%w: closed", ErrUnavailable)
	// ErrInvalid says that a record lacks a field or is too large.
	ErrInvalid = errors.New("invalid audit record")
)

// Type tells what caused a record.
type Type string

const (
	APICall      Type = "ApiCall"      // a principal called an operation
	ServiceEvent Type = "ServiceEvent" // the service acted by itself, or on a peer's word

	checkpointType Type = "Checkpoint"
)

// Outcome tells how it ended.
type Outcome string

const (
	Begun   Outcome = "Begun"   // a change was let in; a record with its end follows unless the process died
	Success Outcome = "Success" // it was done and answered
	Denied  Outcome = "Denied"  // it was refused to this principal
	Error   Outcome = "Error"   // it failed; the field error says how
)

// Events of the log itself; all others are named after their operation.
const (
	AuditStart = "AuditStart" // the first record after each start; its details say what was found
	AuditStop  = "AuditStop"  // the last record before an orderly end
	// AuditRestored says that the log was put back from a backup, so that what was written after
	// is lost.
	AuditRestored = "AuditRestored"
)

// Resource is what a record is about.
type Resource struct {
	ARN   string `json:"arn"`
	KeyID string `json:"keyId,omitempty"` // empty for what is no key
}

// Record is one thing that happened. Its strings may come from callers: they are escaped,
// never trusted. It must not hold plaintext, key material, PINs, tokens or credentials.
// A Record that was given to the log belongs to it, its maps and slices included.
type Record struct {
	Time              time.Time // zero = now
	Type              Type      // APICall or ServiceEvent
	Event             string    // the operation's name, such as Encrypt
	Principal         string    // ARN; empty when the service acted by itself
	Account           string    // of the principal
	SourceAddress     string    // of the caller or peer
	Resources         []Resource
	Outcome           Outcome
	Error             string // AWS error name or cause code, when Outcome is Denied or Error
	ReadOnly          bool   // the operation changes nothing
	RequestID         string // of this call, in this Region
	CorrelationID     string // the same in every Region for one replicate, rotate or promote
	EncryptionContext map[string]string
	Details           map[string]string // what only this event has; keys are listed in docs/audit.md
}

// maxRecord bounds the text of a record in bytes. An encryption context has at most 8 KiB.
const maxRecord = 32 << 10

// check refuses a record that could not be written or understood.
func (r *Record) check() error {
	if r.Event == "" || r.Type != APICall && r.Type != ServiceEvent {
		return fmt.Errorf("%w: event %.40q of type %.40q", ErrInvalid, r.Event, r.Type)
	}
	switch r.Outcome {
	case Begun, Success, Denied, Error:
	default:
		return fmt.Errorf("%w: %.40s with outcome %.40q", ErrInvalid, r.Event, r.Outcome)
	}
	if size := r.size(); size > maxRecord {
		return fmt.Errorf("%w: %.40s with %d bytes, at most %d allowed", ErrInvalid, r.Event, size, maxRecord)
	}
	return nil
}

func (r *Record) size() int {
	n := len(r.Event) + len(r.Principal) + len(r.Account) + len(r.SourceAddress) + len(r.Error) + len(r.RequestID) + len(r.CorrelationID)
	for _, res := range r.Resources {
		n += len(res.ARN) + len(res.KeyID) + 32
	}
	for k, v := range r.EncryptionContext {
		n += len(k) + len(v) + 8
	}
	for k, v := range r.Details {
		n += len(k) + len(v) + 8
	}
	return n
}

// valid returns the text with every byte that is not UTF-8 replaced, because JSON can hold
// nothing else.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func validMap(m map[string]string) map[string]string {
	for k, v := range m {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			clean := make(map[string]string, len(m))
			for _, k := range slices.Sorted(maps.Keys(m)) {
				clean[valid(k)] = valid(m[k])
			}
			return clean
		}
	}
	return m
}

func validResources(rs []Resource) []Resource {
	for _, r := range rs {
		if !utf8.ValidString(r.ARN) || !utf8.ValidString(r.KeyID) {
			clean := slices.Clone(rs)
			for i := range clean {
				clean[i] = Resource{valid(clean[i].ARN), valid(clean[i].KeyID)}
			}
			return clean
		}
	}
	return rs
}
