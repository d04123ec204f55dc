package ecpublic

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// ErrNoKey means that no public key fits what the private key answered.
var ErrNoKey = errors.New("no public key of the curve fits")

// Signature is what a private key made of a digest.
type Signature struct {
	Digest []byte
	DER    []byte // ECDSA-Sig-Value
}

// FromSignatures returns the one public key, as an uncompressed point, under which both
// signatures verify (SEC 1, section 4.1.6). One signature leaves two to four candidates.
func FromSignatures(c *Curve, first, second Signature) ([]byte, error) {
	if bytes.Equal(first.Digest, second.Digest) {
		return nil, errors.New("recovering a public key: both signatures are of one digest")
	}
	a, err := c.candidates(first)
	if err != nil {
		return nil, err
	}
	b, err := c.candidates(second)
	if err != nil {
		return nil, err
	}
	var found [][]byte
	for _, q := range a {
		for _, r := range b {
			if bytes.Equal(q, r) {
				found = append(found, q)
			}
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%w: %d candidates of %s", ErrNoKey, len(found), c.Name)
	}
	return found[0], nil
}

// candidates lists every public key under which the signature verifies: with R each point
// whose x-coordinate is r or r+n, Q = r⁻¹(sR − eG).
func (c *Curve) candidates(sig Signature) ([][]byte, error) {
	var v struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(sig.DER, &v)
	if err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("%w: signature is no ECDSA-Sig-Value", ErrNoKey)
	}
	for _, x := range []*big.Int{v.R, v.S} {
		if x.Sign() <= 0 || x.Cmp(c.n) >= 0 {
			return nil, fmt.Errorf("%w: signature out of range", ErrNoKey)
		}
	}
	inverse := new(big.Int).ModInverse(v.R, c.n)
	minus := c.negate(c.multiply(c.scalar(sig.Digest), c.g))
	var found [][]byte
	for _, x := range []*big.Int{v.R, new(big.Int).Add(v.R, c.n)} {
		r, ok := c.lift(x)
		if !ok {
			continue
		}
		for _, r := range []Point{r, c.negate(r)} {
			if q := c.multiply(inverse, c.add(c.multiply(v.S, r), minus)); !q.Infinite() {
				found = append(found, c.Marshal(q))
			}
		}
	}
	return found, nil
}

// scalar is the leftmost bits of a digest, as FIPS 186-5 takes them.
func (c *Curve) scalar(digest []byte) *big.Int {
	e := new(big.Int).SetBytes(digest)
	if excess := 8*len(digest) - c.n.BitLen(); excess > 0 {
		e.Rsh(e, uint(excess))
	}
	return e
}

// FromAgreement returns the public key, as an uncompressed point, of a private key whose
// agreement with the generator is secret: the x-coordinate of the public key itself. Its
// negative agrees on the same secrets with everybody, and nothing that such a private key
// does tells them apart; of the two, the one with an even y is returned.
func FromAgreement(c *Curve, secret []byte) ([]byte, error) {
	if len(secret) != c.Bytes() {
		return nil, fmt.Errorf("%w: agreement of %d bytes, %s has %d", ErrNoKey, len(secret), c.Name, c.Bytes())
	}
	q, ok := c.lift(new(big.Int).SetBytes(secret))
	if !ok {
		return nil, fmt.Errorf("%w: the agreement is no coordinate of %s", ErrNoKey, c.Name)
	}
	return c.Marshal(q), nil
}
