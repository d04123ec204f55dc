package hsm

import (
	"crypto"
	"crypto/elliptic"
	"encoding/asn1"

	"github.com/miekg/pkcs11"

	"github.com/keyferry/keyferry/hsm/spki"
)

// Algorithm names what a key is. Names, never mechanism codes, are stored and sent, since
// codes differ between vendors.
type Algorithm string

// Algorithms of keys.
const (
	AES256      Algorithm = "AES_256"
	HMACSHA224  Algorithm = "HMAC_SHA_224"
	HMACSHA256  Algorithm = "HMAC_SHA_256"
	HMACSHA384  Algorithm = "HMAC_SHA_384"
	HMACSHA512  Algorithm = "HMAC_SHA_512"
	ECP256      Algorithm = "EC_P256"
	ECP384      Algorithm = "EC_P384"
	ECP521      Algorithm = "EC_P521"
	ECSecp256k1 Algorithm = "EC_SECP256K1"
	RSA2048     Algorithm = "RSA_2048"
	RSA3072     Algorithm = "RSA_3072"
	RSA4096     Algorithm = "RSA_4096"
)

// secretKey is what follows from the algorithm of a secret key.
type secretKey struct {
	bytes int
	hash  crypto.Hash // of HMAC keys
	mac   uint        // mechanism of HMAC keys
}

// secretKeys holds the lengths of AWS, but for HMAC-SHA-224: its 28 bytes would come out of
// RFC 5649 wrapping as 32 on tokens that pad first, so it has 32 from the start.
var secretKeys = map[Algorithm]secretKey{
	AES256:     {bytes: 32},
	HMACSHA224: {32, crypto.SHA224, pkcs11.CKM_SHA224_HMAC},
	HMACSHA256: {32, crypto.SHA256, pkcs11.CKM_SHA256_HMAC},
	HMACSHA384: {48, crypto.SHA384, pkcs11.CKM_SHA384_HMAC},
	HMACSHA512: {64, crypto.SHA512, pkcs11.CKM_SHA512_HMAC},
}

// ecKey is what follows from a curve.
type ecKey struct {
	curve  elliptic.Curve
	params []byte // CKA_EC_PARAMS: the DER object identifier of the named curve
}

var ecKeys = map[Algorithm]ecKey{
	ECP256:      {elliptic.P256(), derOID(1, 2, 840, 10045, 3, 1, 7)},
	ECP384:      {elliptic.P384(), derOID(1, 3, 132, 0, 34)},
	ECP521:      {elliptic.P521(), derOID(1, 3, 132, 0, 35)},
	ECSecp256k1: {spki.Secp256k1(), derOID(1, 3, 132, 0, 10)},
}

var rsaBits = map[Algorithm]uint{RSA2048: 2048, RSA3072: 3072, RSA4096: 4096}

// Secret reports whether keys of this algorithm are secret keys rather than key pairs.
func (a Algorithm) Secret() bool { return secretKeys[a].bytes != 0 }

// SecretBytes is the length of a secret key's value, and 0 for key pairs.
func (a Algorithm) SecretBytes() int { return secretKeys[a].bytes }

// MACBytes is the length of what an HMAC key computes, and 0 for other keys.
func (a Algorithm) MACBytes() int {
	if h := secretKeys[a].hash; h != 0 {
		return h.Size()
	}
	return 0
}

// Curve returns the curve of elliptic-curve keys, and nil for other keys.
func (a Algorithm) Curve() elliptic.Curve { return ecKeys[a].curve }

// ModulusBits is the length of an RSA key's modulus, and 0 for other keys.
func (a Algorithm) ModulusBits() int { return int(rsaBits[a]) }

// fieldBytes is the length of a coordinate of a point.
func fieldBytes(c elliptic.Curve) int { return (c.Params().BitSize + 7) / 8 }

func derOID(arcs ...int) []byte {
	b, err := asn1.Marshal(asn1.ObjectIdentifier(arcs))
	if err != nil {
		panic(err) // the arguments are the constants above
	}
	return b
}
