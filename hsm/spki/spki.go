// Package spki encodes and decodes public keys as SubjectPublicKeyInfo (RFC 5280, RFC 5480)
// for every kind of key that a token makes, and verifies what they sign. It exists because
// crypto/x509 does not know secp256k1; for the rest it is crypto/x509, made strict.
package spki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// ErrInvalid means that bytes are not the encoding of a public key that tokens make.
var ErrInvalid = errors.New("not a public key")

// Object identifiers of RFC 5480 and SEC 2.
var (
	oidPublicKey = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidSecp256k1 = asn1.ObjectIdentifier{1, 3, 132, 0, 10}
)

// info is SubjectPublicKeyInfo.
type info struct {
	Algorithm pkix.AlgorithmIdentifier
	Key       asn1.BitString
}

// Marshal encodes an *rsa.PublicKey or an *ecdsa.PublicKey.
func Marshal(pub crypto.PublicKey) ([]byte, error) {
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok || key.Curve != Secp256k1() {
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			return nil, fmt.Errorf("encoding: %w: %w", ErrInvalid, err)
		}
		return der, nil
	}
	point, err := Point(key)
	if err != nil {
		return nil, err
	}
	curve, err := asn1.Marshal(oidSecp256k1)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(info{
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidPublicKey, Parameters: asn1.RawValue{FullBytes: curve}},
		Key:       asn1.BitString{Bytes: point, BitLength: 8 * len(point)},
	})
}

// Parse decodes what [Marshal] writes and nothing else: an *rsa.PublicKey, or an
// *ecdsa.PublicKey whose point is on its curve. A second encoding of the same key is
// refused, since material IDs are computed over the bytes.
func Parse(der []byte) (crypto.PublicKey, error) {
	pub, err := parse(der)
	if err != nil {
		return nil, err
	}
	again, err := Marshal(pub)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, der) {
		return nil, fmt.Errorf("parsing: another encoding than ours: %w", ErrInvalid)
	}
	return pub, nil
}

func parse(der []byte) (crypto.PublicKey, error) {
	var i info
	if rest, err := asn1.Unmarshal(der, &i); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("parsing: %w", ErrInvalid)
	}
	var curve asn1.ObjectIdentifier
	if i.Algorithm.Algorithm.Equal(oidPublicKey) {
		if rest, err := asn1.Unmarshal(i.Algorithm.Parameters.FullBytes, &curve); err != nil || len(rest) > 0 {
			return nil, fmt.Errorf("parsing curve: %w", ErrInvalid)
		}
		if curve.Equal(oidSecp256k1) {
			return ParsePoint(Secp256k1(), i.Key.RightAlign())
		}
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("parsing: %w: %w", ErrInvalid, err)
	}
	switch pub.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		return pub, nil
	}
	return nil, fmt.Errorf("parsing: a %T: %w", pub, ErrInvalid)
}

// ParsePoint decodes an uncompressed point and refuses one that is not on the curve, the
// point at infinity among them: a token that computed with it would give its key away.
func ParsePoint(curve elliptic.Curve, point []byte) (*ecdsa.PublicKey, error) {
	if curve != Secp256k1() {
		key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
		if err != nil {
			return nil, fmt.Errorf("parsing point of %s: %w: %w", curve.Params().Name, ErrInvalid, err)
		}
		return key, nil
	}
	if len(point) != 65 || point[0] != 4 { // the parser takes compressed and hybrid forms too
		return nil, fmt.Errorf("parsing point of secp256k1: want 65 bytes that begin with 4: %w", ErrInvalid)
	}
	key, err := secp256k1.ParsePubKey(point)
	if err != nil {
		return nil, fmt.Errorf("parsing point of secp256k1: %w: %w", ErrInvalid, err)
	}
	return FromSecp256k1(key), nil
}

// Point encodes the public key's point, uncompressed.
func Point(key *ecdsa.PublicKey) ([]byte, error) {
	if key.Curve != Secp256k1() {
		point, err := key.Bytes()
		if err != nil {
			return nil, fmt.Errorf("encoding point: %w: %w", ErrInvalid, err)
		}
		return point, nil
	}
	return pointSecp256k1(key)
}

// VerifyECDSA reports whether an ASN.1 signature over the digest is the key's, on any of
// the curves. As FIPS 186 says, a digest longer than the curve's order loses its end.
func VerifyECDSA(key *ecdsa.PublicKey, digest, signature []byte) bool {
	if key.Curve != Secp256k1() {
		return ecdsa.VerifyASN1(key, digest, signature)
	}
	r, s, ok := parseSignature(signature)
	return ok && verifySecp256k1(key, digest, r, s)
}

// parseSignature decodes DER, whose integers have one encoding each.
func parseSignature(signature []byte) (r, s *big.Int, ok bool) {
	var rs struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(signature, &rs)
	if err != nil || len(rest) > 0 {
		return nil, nil, false
	}
	again, err := asn1.Marshal(rs)
	return rs.R, rs.S, err == nil && bytes.Equal(again, signature)
}
