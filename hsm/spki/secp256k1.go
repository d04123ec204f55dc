package spki

//lint:file-ignore SA1019 Nothing newer in the standard library holds a point of secp256k1.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"fmt"
	"math/big"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	k1 "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// Secp256k1 returns the curve as the standard library's interface. What it computes is not
// constant-time, so it is for public keys only.
func Secp256k1() elliptic.Curve { return secp256k1.S256() }

// FromSecp256k1 returns a public key of the curve in the type of those of other curves.
func FromSecp256k1(key *secp256k1.PublicKey) *ecdsa.PublicKey {
	return &ecdsa.PublicKey{Curve: Secp256k1(), X: key.X(), Y: key.Y()}
}

// pointSecp256k1 encodes a key's point, uncompressed, if it is on the curve.
func pointSecp256k1(key *ecdsa.PublicKey) ([]byte, error) {
	const size = 32
	if key.X == nil || key.Y == nil || key.X.Sign() < 0 || key.Y.Sign() < 0 || key.X.BitLen() > 8*size || key.Y.BitLen() > 8*size {
		return nil, fmt.Errorf("encoding point of secp256k1: %w", ErrInvalid)
	}
	point := make([]byte, 1+2*size)
	point[0] = 4
	key.X.FillBytes(point[1 : 1+size])
	key.Y.FillBytes(point[1+size:])
	if _, err := secp256k1.ParsePubKey(point); err != nil {
		return nil, fmt.Errorf("encoding point of secp256k1: %w: %w", ErrInvalid, err)
	}
	return point, nil
}

// verifySecp256k1 checks r and s against the order first, since the library reduces what is
// not below it, and a signature would then have a second form.
func verifySecp256k1(key *ecdsa.PublicKey, digest []byte, r, s *big.Int) bool {
	n := Secp256k1().Params().N
	if r.Sign() <= 0 || s.Sign() <= 0 || r.Cmp(n) >= 0 || s.Cmp(n) >= 0 {
		return false
	}
	point, err := Point(key)
	if err != nil {
		return false
	}
	public, err := secp256k1.ParsePubKey(point)
	if err != nil {
		return false
	}
	var rs, ss secp256k1.ModNScalar
	rs.SetByteSlice(r.Bytes())
	ss.SetByteSlice(s.Bytes())
	if len(digest) > 32 {
		digest = digest[:32]
	}
	return k1.NewSignature(&rs, &ss).Verify(digest, public)
}
