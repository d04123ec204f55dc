package keyops

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/keyferry/keyferry/hsm/spki"
)

// The standard library does not know this curve, so its private keys are encoded here: PKCS #8
// (RFC 5958) around an ECPrivateKey (RFC 5915), as crypto/x509 does it for the others.
var (
	oidECPublicKey = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidSecp256k1   = asn1.ObjectIdentifier{1, 3, 132, 0, 10}
)

type pkcs8Key struct {
	Version   int
	Algorithm pkix.AlgorithmIdentifier
	Key       []byte
}

type ecPrivateKey struct {
	Version int
	Scalar  []byte
	Public  asn1.BitString `asn1:"explicit,tag:1"`
}

func secp256k1Pair() (private, public []byte, err error) {
	k, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		return nil, nil, err
	}
	defer k.Zero()
	point := k.PubKey().SerializeUncompressed()
	pub, err := spki.ParsePoint(spki.Secp256k1(), point)
	if err != nil {
		return nil, nil, err
	}
	if public, err = spki.Marshal(pub); err != nil {
		return nil, nil, err
	}
	scalar := k.Serialize()
	defer clear(scalar)
	inner, err := asn1.Marshal(ecPrivateKey{1, scalar, asn1.BitString{Bytes: point, BitLength: 8 * len(point)}})
	if err != nil {
		return nil, nil, fmt.Errorf("encoding a private key: %w", err)
	}
	defer clear(inner)
	curve, err := asn1.Marshal(oidSecp256k1)
	if err != nil {
		return nil, nil, err
	}
	private, err = asn1.Marshal(pkcs8Key{
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidECPublicKey, Parameters: asn1.RawValue{FullBytes: curve}},
		Key:       inner,
	})
	return private, public, err
}
