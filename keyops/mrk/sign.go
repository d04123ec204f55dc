package mrk

import (
	"context"
	"fmt"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/statement"
)

// Facts are signed here, with all that their fields say. That a Region may say it is decided
// where the fields are set, and again, by signature, parent and number, wherever it is read.

func sign(ctx context.Context, signer Signer, key arn.KeyID, p statement.Purpose, payload []byte, out *statement.Signed) error {
	signed, err := signer.Sign(ctx, p, payload)
	if err != nil {
		return fmt.Errorf("signing %s of %s: %w", p, key, err)
	}
	*out = signed
	return nil
}

// Sign signs the certificate as its parent's Region, or as the Region that opens a line.
func (c *Certificate) Sign(ctx context.Context, signer Signer) error {
	return sign(ctx, signer, c.Key, statement.Certificate, c.payload(), &c.signed)
}

// Countersign adds the signature of the Region that takes over to a certificate that the one
// before has signed.
func (c *Certificate) Countersign(ctx context.Context, signer Signer) error {
	var counter statement.Signed
	if err := sign(ctx, signer, c.Key, statement.Certificate, c.signed.Payload, &counter); err != nil {
		return err
	}
	c.counter = counter.Signature
	return nil
}

// Force makes the certificate one that opens a line by these approvals.
func (c *Certificate) Force(a Approved) {
	c.forced = &forced{promotion: a.Promotion, proof: a.Proof, approvals: a.Roster.Compact(a.Promotion.Request(), a.Approvals)}
}

// Sign signs the state as the primary Region of its epoch.
func (s *State) Sign(ctx context.Context, signer Signer) error {
	return sign(ctx, signer, s.Key, statement.State, s.payload(), &s.signed)
}

// Sign signs the fact as the Region that it is about.
func (m *Member) Sign(ctx context.Context, signer Signer) error {
	return sign(ctx, signer, m.Key, statement.Member, m.payload(), &m.signed)
}

// Sign signs the request as its source.
func (c *CreateRequest) Sign(ctx context.Context, signer Signer) error {
	return sign(ctx, signer, c.Key, statement.CreateReplica, c.payload(), &c.signed)
}
