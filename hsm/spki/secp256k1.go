package spki

import (
	"crypto/ecdsa"
	"math/big"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	k1 "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// verifySecp256k1 checks r and s against the order first, since the library reduces what is
// not below it, and a signature would then have a second form.
func verifySecp256k1(key *ecdsa.PublicKey, digest []byte, r, s *big.Int) bool {
	n := secp256k1.S256().Params().N
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
