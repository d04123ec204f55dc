package hsmtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"sync"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	k1 "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/spki"
)

// private is a private key of the fake: one of an elliptic curve, or RSA.
type private struct {
	ec  *ecdsa.PrivateKey // on the NIST curves
	k1  *secp256k1.PrivateKey
	rsa *rsa.PrivateKey
}

func (p *private) public() crypto.PublicKey {
	switch {
	case p.ec != nil:
		return &p.ec.PublicKey
	case p.rsa != nil:
		return &p.rsa.PublicKey
	}
	return spki.FromSecp256k1(p.k1.PubKey())
}

// fits reports whether the key is of the algorithm.
func (p *private) fits(a hsm.Algorithm) bool {
	if p.rsa != nil {
		return p.rsa.N.BitLen() == a.ModulusBits() && p.rsa.E == 65537
	}
	return p.public().(*ecdsa.PublicKey).Curve == a.Curve()
}

// sign signs deterministically but for PSS, whose salt is fresh.
func (p *private) sign(scheme hsm.SignScheme, digest []byte) ([]byte, error) {
	switch {
	case p.ec != nil:
		return p.ec.Sign(nil, digest, scheme.Hash)
	case p.k1 != nil:
		return k1.Sign(p.k1, digest[:32]).Serialize(), nil
	case scheme.Padding == hsm.PSS:
		return rsa.SignPSS(rand.Reader, p.rsa, scheme.Hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	}
	return rsa.SignPKCS1v15(nil, p.rsa, scheme.Hash, digest)
}

// ecPrivate makes a private key of a scalar, or fails if it is none.
func ecPrivate(curve elliptic.Curve, scalar []byte) (*private, error) {
	if curve != spki.Secp256k1() {
		k, err := ecdsa.ParseRawPrivateKey(curve, scalar)
		if err != nil {
			return nil, err
		}
		return &private{ec: k}, nil
	}
	var s secp256k1.ModNScalar
	if overflow := s.SetByteSlice(scalar); overflow || s.IsZero() {
		return nil, errors.New("not a scalar of secp256k1")
	}
	return &private{k1: secp256k1.NewPrivateKey(&s)}, nil
}

// rsaKeys are made once for a process, since making them takes up to seconds: the keys of
// one length repeat.
var rsaKeys struct {
	sync.Mutex
	made map[hsm.Algorithm][]*rsa.PrivateKey
	next map[hsm.Algorithm]int
}

// rsaPool is how many keys of a length differ.
func rsaPool(a hsm.Algorithm) int {
	if a == hsm.RSA4096 {
		return 1
	}
	return 2
}

func rsaPrivate(a hsm.Algorithm) (*private, error) {
	rsaKeys.Lock()
	defer rsaKeys.Unlock()
	if rsaKeys.made == nil {
		rsaKeys.made, rsaKeys.next = map[hsm.Algorithm][]*rsa.PrivateKey{}, map[hsm.Algorithm]int{}
	}
	if len(rsaKeys.made[a]) < rsaPool(a) {
		k, err := rsa.GenerateKey(rand.Reader, a.ModulusBits())
		if err != nil {
			return nil, err
		}
		rsaKeys.made[a] = append(rsaKeys.made[a], k)
		return &private{rsa: k}, nil
	}
	rsaKeys.next[a]++
	return &private{rsa: rsaKeys.made[a][rsaKeys.next[a]%rsaPool(a)]}, nil
}

// pkcs8 and sec1 are the encodings that crypto/x509 has no curve secp256k1 for.
type pkcs8 struct {
	Version   int
	Algorithm struct{ ID, Curve asn1.ObjectIdentifier }
	Key       []byte
}

type sec1 struct {
	Version int
	Scalar  []byte
	Rest    asn1.RawValue `asn1:"optional"`
}

var (
	oidPublicKey = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidSecp256k1 = asn1.ObjectIdentifier{1, 3, 132, 0, 10}
)

func (p *private) marshal() ([]byte, error) {
	switch {
	case p.ec != nil:
		return x509.MarshalPKCS8PrivateKey(p.ec)
	case p.rsa != nil:
		return x509.MarshalPKCS8PrivateKey(p.rsa)
	}
	inner, err := asn1.Marshal(struct {
		Version int
		Scalar  []byte
	}{1, p.k1.Serialize()})
	if err != nil {
		return nil, err
	}
	out := pkcs8{Key: inner}
	out.Algorithm.ID, out.Algorithm.Curve = oidPublicKey, oidSecp256k1
	return asn1.Marshal(out)
}

func parsePrivate(der []byte) (*private, error) {
	var outer pkcs8
	var inner sec1
	if _, err := asn1.Unmarshal(der, &outer); err == nil && outer.Algorithm.Curve.Equal(oidSecp256k1) {
		if _, err := asn1.Unmarshal(outer.Key, &inner); err != nil {
			return nil, err
		}
		return ecPrivate(spki.Secp256k1(), inner.Scalar)
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	switch k := k.(type) {
	case *ecdsa.PrivateKey:
		return &private{ec: k}, nil
	case *rsa.PrivateKey:
		return &private{rsa: k}, nil
	}
	return nil, fmt.Errorf("a %T", k)
}

// agree is the x-coordinate of the peer's point times the scalar.
func (p *private) agree(peer []byte) ([]byte, error) {
	own, err := p.ec.ECDH()
	if err != nil {
		return nil, err
	}
	other, err := own.Curve().NewPublicKey(peer)
	if err != nil {
		return nil, err
	}
	return own.ECDH(other)
}
