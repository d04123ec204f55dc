package message

import (
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Check is a claim to be decided without effect.
type Check struct{ Claim keyops.ReplicaClaim }

// Marshal returns the one encoding of it.
func (c Check) Marshal() []byte {
	var w wire.Writer
	w.String(string(c.Claim.Key))
	w.String(string(c.Claim.Account))
	w.String(c.Claim.Principal.String())
	w.String(string(c.Claim.Spec))
	w.String(string(c.Claim.Usage))
	w.String(string(c.Claim.Origin))
	w.Bytes(c.Claim.Policy)
	w.String(c.Claim.Description)
	w.Count(len(c.Claim.Tags))
	for _, t := range c.Claim.Tags {
		w.String(t.Key)
		w.String(t.Value)
	}
	w.Count(c.Claim.Materials)
	w.String(c.Claim.CorrelationID)
	return w.Out()
}

// ParseCheck reads what Marshal wrote, and nothing else.
func ParseCheck(p []byte, source region.Name) (Check, error) {
	r := wire.NewReader(p)
	c := keyops.ReplicaClaim{Source: source, Key: decodeKey(r)}
	account, err := arn.ParseAccount(r.String(64))
	if err != nil && r.Err() == nil {
		r.Fail("%v", err)
	}
	c.Account, c.Principal = account, decodePrincipal(r)
	c.Spec, c.Usage, c.Origin = keyops.KeySpec(r.String(64)), keyops.KeyUsage(r.String(64)), keyops.Origin(r.String(64))
	c.Policy = r.Bytes(64 << 10)
	c.Description = r.String(64 << 10)
	for range r.Count(mrk.MaxTags) {
		c.Tags = append(c.Tags, keyops.Tag{Key: r.String(4096), Value: r.String(4096)})
	}
	c.Materials = r.Count(mrk.MaxMaterials)
	c.CorrelationID = r.String(MaxCorrelation)
	if err := r.Done(); err != nil {
		return Check{}, fmt.Errorf("parsing check-replica message: %w", err)
	}
	return Check{c}, nil
}

// Decision is a decision: an empty reason means yes.
type Decision struct {
	Reason  keyops.Reason
	Message string
}

// Marshal returns the one encoding of it.
func (c Decision) Marshal() []byte {
	var w wire.Writer
	w.String(string(c.Reason))
	w.String(c.Message)
	return w.Out()
}

// Refusal returns what the answering Region refuses something with, or nil.
func (c Decision) Refusal() error {
	if c.Reason == "" {
		return nil
	}
	if !slices.Contains(keyops.Reasons, c.Reason) {
		c.Reason = keyops.ErrInternal
	}
	return &keyops.Error{Reason: c.Reason, Message: c.Message}
}

// ParseDecision reads what Marshal wrote, and nothing else.
func ParseDecision(p []byte) (Decision, error) {
	r := wire.NewReader(p)
	c := Decision{Reason: keyops.Reason(r.String(MaxKind)), Message: r.String(8192)}
	if err := r.Done(); err != nil {
		return c, fmt.Errorf("parsing answer to a check-replica message: %w", err)
	}
	return c, nil
}

// CheckPrimary is a claim to be decided without effect.
type CheckPrimary struct{ Claim keyops.PrimaryClaim }

// Marshal returns the one encoding of it.
func (c CheckPrimary) Marshal() []byte {
	var w wire.Writer
	w.String(string(c.Claim.Key))
	w.String(c.Claim.Principal.String())
	w.String(c.Claim.CorrelationID)
	return w.Out()
}

// ParseCheckPrimary reads what Marshal wrote, and nothing else.
func ParseCheckPrimary(p []byte, source region.Name) (CheckPrimary, error) {
	r := wire.NewReader(p)
	c := keyops.PrimaryClaim{Source: source, Key: decodeKey(r)}
	c.Principal, c.CorrelationID = decodePrincipal(r), r.String(MaxCorrelation)
	if err := r.Done(); err != nil {
		return CheckPrimary{}, fmt.Errorf("parsing check-primary message: %w", err)
	}
	return CheckPrimary{c}, nil
}
