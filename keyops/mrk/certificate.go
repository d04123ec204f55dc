package mrk

import (
	"crypto/sha256"
	"fmt"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Certificate says which Region is the primary Region in an epoch, and why.
//
// The first one of a key is signed by the Region that made the key. Each later one names
// its parent by hash and is signed by the parent's Region: to itself when that Region
// renews its term (or takes it back after a refusal), to another one when it hands over,
// and then the other Region's signature over the same payload is needed too. A certificate
// that opens a later line is signed by the Region that it names and carries the approvals of
// that Region's operators in the place of the parent's signature.
type Certificate struct {
	Key      arn.KeyID
	Epoch    Epoch
	Instance region.InstanceID // of the Region that the epoch names
	Parent   Hash              // zero in the first certificate of a key
	Final    Hash              // of the last state of the parent's epoch; zero unless handed over

	signed  statement.Signed
	counter []byte  // of a hand-over: the signature of the Region that took over
	forced  *forced // of the first of a line, but for the line of the creation
}

// Hash names the certificate.
func (c Certificate) Hash() Hash { return sha256.Sum256(c.signed.Payload) }

func (c Certificate) payload() []byte {
	var w wire.Writer
	w.Uint(formatVersion)
	w.String(string(c.Key))
	c.Epoch.encode(&w)
	w.String(string(c.Instance))
	w.Bytes(c.Parent[:])
	w.Bytes(c.Final[:])
	return w.Out()
}

func parseCertificate(signed statement.Signed, counter []byte, f *forced) (Certificate, error) {
	if signed.Purpose != statement.Certificate {
		return Certificate{}, fmt.Errorf("%w: %s where a certificate belongs", wire.ErrMalformed, signed.Purpose)
	}
	r := wire.NewReader(signed.Payload)
	decodeVersion(r)
	c := Certificate{Key: decodeKeyID(r), Epoch: decodeEpoch(r), Instance: decodeInstance(r)}
	r.Fixed(c.Parent[:])
	r.Fixed(c.Final[:])
	if err := r.Done(); err != nil {
		return Certificate{}, fmt.Errorf("parsing certificate: %w", err)
	}
	c.signed, c.counter, c.forced = signed, counter, f
	return c, nil
}

// encode writes the certificate with all that proves it.
func (c Certificate) encode(w *wire.Writer) {
	w.Bytes(c.signed.Marshal())
	w.Bytes(c.counter)
	c.forced.encode(w)
}

func decodeCertificate(r *wire.Reader) Certificate {
	signed := decodeSigned(r)
	counter := r.Bytes(maxSignature)
	f := decodeForced(r)
	if r.Err() != nil {
		return Certificate{}
	}
	c, err := parseCertificate(signed, counter, f)
	if err != nil {
		r.Fail("%v", err)
	}
	return c
}

// decodeSigned reads a nested statement.
func decodeSigned(r *wire.Reader) statement.Signed {
	b := r.Bytes(maxStatement)
	if r.Err() != nil {
		return statement.Signed{}
	}
	s, err := statement.Parse(b)
	if err != nil {
		r.Fail("%v", err)
	}
	return s
}

// verifyFirst checks a certificate that has no parent.
func (c Certificate) verifyFirst(v Verifier) error {
	e := c.Epoch
	switch {
	case !c.Parent.IsZero() || !c.Final.IsZero() || e.Number != 0 || e.Line.Generation != 0:
		return fmt.Errorf("%w: not the first of its key", ErrGap)
	case e.Line.Region != e.Region || e.Line.Nonce != e.Nonce, len(c.counter) != 0, c.forced != nil:
		return ErrCertificate
	}
	return v.Verify(e.Region, c.Instance, c.signed)
}

// verifyChild checks a certificate against its parent, whose hash it names.
func (c Certificate) verifyChild(v Verifier, p Certificate) error {
	switch {
	case c.Key != p.Key:
		return ErrForeign
	case c.Epoch.Line != p.Epoch.Line:
		return fmt.Errorf("%w: another line without approvals", ErrCertificate)
	case c.forced != nil:
		return fmt.Errorf("%w: approvals inside a line", ErrCertificate)
	}
	if c.Epoch.Region == p.Epoch.Region {
		return c.verifyRenewal(v, p)
	}
	if c.Epoch.Number != p.Epoch.Number+1 || c.Final.IsZero() {
		return fmt.Errorf("%w: hand-over", ErrCertificate)
	}
	if err := v.Verify(p.Epoch.Region, p.Instance, c.signed); guard9Parent.Stops(err != nil) {
		return err
	}
	countersigned := c.signed
	countersigned.Signature = c.counter
	if err := v.Verify(c.Epoch.Region, c.Instance, countersigned); guard9Countersigned.Stops(err != nil) {
		return err
	}
	return nil
}

// verifyRenewal checks a certificate by which a Region goes on: at the next number, or one
// further because the number between was offered to another Region, which refused it.
func (c Certificate) verifyRenewal(v Verifier, p Certificate) error {
	n := c.Epoch.Number - p.Epoch.Number
	if n != 1 && n != 2 || c.Epoch.Number < p.Epoch.Number || c.Instance != p.Instance || len(c.counter) != 0 || !c.Final.IsZero() {
		return fmt.Errorf("%w: renewal", ErrCertificate)
	}
	return v.Verify(p.Epoch.Region, p.Instance, c.signed)
}
