package hsm

import (
	"crypto/rsa"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"

	"github.com/keyferry/keyferry/hsm/spki"
)

// publicOf returns the public key of a private key that was unwrapped, or nothing if the
// token shows none: of elliptic-curve keys SoftHSM shows no public half.
func (t *Token) publicOf(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, material Spec) ([]byte, error) {
	if rsaBits[material.Algorithm] != 0 {
		return t.publicRSA(s, h)
	}
	values, err := t.driver.Attributes(s, h, []uint{pkcs11.CKA_EC_POINT})
	if err != nil {
		return nil, err
	}
	if len(values[pkcs11.CKA_EC_POINT]) > 0 {
		return publicSPKI(material.Algorithm, func(uint) ([]byte, error) { return values[pkcs11.CKA_EC_POINT], nil })
	}
	return nil, nil
}

func (t *Token) publicRSA(s pkcs11.SessionHandle, h pkcs11.ObjectHandle) ([]byte, error) {
	values, err := t.driver.Attributes(s, h, []uint{pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT})
	if err != nil {
		return nil, err
	}
	e := new(big.Int).SetBytes(values[pkcs11.CKA_PUBLIC_EXPONENT])
	if e.Cmp(big.NewInt(65537)) != 0 {
		return nil, fmt.Errorf("imported RSA key with a public exponent other than 65537: %w", ErrDataInvalid)
	}
	return spki.Marshal(&rsa.PublicKey{N: new(big.Int).SetBytes(values[pkcs11.CKA_MODULUS]), E: 65537})
}
