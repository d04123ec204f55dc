package message

import (
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/synchronization"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Associate is a claim to be decided, and to be written down if it says so.
type Associate struct{ Claim keyops.AssociationClaim }

// Marshal returns the one encoding of it.
func (a Associate) Marshal() []byte {
	var w wire.Writer
	w.String(string(a.Claim.Synchronization))
	w.String(string(a.Claim.Account))
	w.String(a.Claim.Principal.String())
	w.Uint(uint64(a.Claim.KeyQuota))
	w.Bool(a.Claim.Commit)
	w.String(a.Claim.CorrelationID)
	return w.Out()
}

// ParseAssociate reads the claim of a peer. Which instance it comes from is what the
// envelope's signature has shown.
func ParseAssociate(p []byte, source Party) (Associate, error) {
	r := wire.NewReader(p)
	c := keyops.AssociationClaim{Source: source.Region, Instance: source.Instance}
	var errs [3]error
	c.Synchronization, errs[0] = synchronization.ParseID(r.String(MaxKind))
	c.Account, errs[1] = arn.ParseAccount(r.String(MaxKind))
	c.Principal, errs[2] = arn.ParsePrincipal(r.String(1024))
	if err := errors.Join(errs[:]...); err != nil && r.Err() == nil {
		r.Fail("%v", err)
	}
	quota := r.Uint()
	if quota > 1<<31 {
		r.Fail("quota of %d keys", quota)
	}
	c.KeyQuota, c.Commit, c.CorrelationID = int(quota), r.Bool(), r.String(MaxCorrelation)
	if err := r.Done(); err != nil {
		return Associate{}, fmt.Errorf("parsing associate message: %w", err)
	}
	return Associate{c}, nil
}

// Disassociate is a claim to be decided, and to be carried out if it is signed.
type Disassociate struct{ Claim keyops.DisassociationClaim }

// Marshal returns the one encoding of it.
func (d Disassociate) Marshal() []byte {
	var w wire.Writer
	w.Bool(d.Claim.Commit())
	if d.Claim.Commit() {
		w.Bytes(d.Claim.Severed.Encode())
	} else {
		w.Bytes(d.Claim.Severed.Payload())
	}
	w.Count(len(d.Claim.Approvals))
	for _, f := range d.Claim.Approvals {
		f.Encode(&w)
	}
	w.String(d.Claim.CorrelationID)
	return w.Out()
}

// ParseDisassociate reads the claim of a peer. Which instance it comes from is what the
// envelope's signature has shown.
func ParseDisassociate(p []byte, source Party) (Disassociate, error) {
	r := wire.NewReader(p)
	c := keyops.DisassociationClaim{Source: source.Region, Instance: source.Instance}
	commit, severed := r.Bool(), r.Bytes(maxSevering)
	for range r.Count(approval.MaxOperators) {
		c.Approvals = append(c.Approvals, statement.DecodeFile(r))
		if r.Err() != nil {
			break
		}
	}
	c.CorrelationID = r.String(MaxCorrelation)
	err := r.Done()
	switch {
	case err != nil:
	case commit:
		c.Severed, err = synchronization.DecodeSevered(severed)
	default:
		c.Severed.Severance, err = synchronization.ParseSeverance(severed)
	}
	if err != nil {
		return Disassociate{}, fmt.Errorf("parsing disassociate message: %w", err)
	}
	return Disassociate{c}, nil
}

// Disassociated is a decision, and the signature of who was severed.
type Disassociated struct {
	Decision Decision
	Accepted statement.Signed // without a purpose if there was none to give
}

// Marshal returns the one encoding of it.
func (d Disassociated) Marshal() []byte {
	var w wire.Writer
	w.String(string(d.Decision.Reason))
	w.String(d.Decision.Message)
	if d.Accepted.Purpose == "" {
		w.Bytes(nil)
	} else {
		w.Bytes(d.Accepted.Marshal())
	}
	return w.Out()
}

// ParseDisassociated reads what Marshal wrote, and nothing else.
func ParseDisassociated(p []byte) (Disassociated, error) {
	r := wire.NewReader(p)
	a := Disassociated{Decision: Decision{Reason: keyops.Reason(r.String(MaxKind)), Message: r.String(8192)}}
	signed := r.Bytes(maxSevering)
	err := r.Done()
	if err == nil && len(signed) > 0 {
		a.Accepted, err = statement.Parse(signed)
	}
	if err != nil {
		return a, fmt.Errorf("parsing answer to a disassociate message: %w", err)
	}
	return a, nil
}
