package hsm

import (
	"crypto/elliptic"
	"fmt"

	"github.com/miekg/pkcs11"
)

// planDerive derives a readable key from each victim by each derivation mechanism of the
// token, with the victim as base and, where a mechanism takes two keys, as second key.
func planDerive(s scene, c calls) (plan []trial, _ error) {
	codes, err := c.mechanisms(pkcs11.CKF_DERIVE)
	if err != nil {
		return nil, wrapError("C_GetMechanismInfo", err)
	}
	readable := []Attribute{
		number(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		number(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
		flag(pkcs11.CKA_TOKEN, false),
		flag(pkcs11.CKA_SENSITIVE, false),
		flag(pkcs11.CKA_EXTRACTABLE, true),
		number(pkcs11.CKA_VALUE_LEN, 16),
	}
	for _, v := range s.victims {
		if v.spec.Usage == UsageAgree { // deriving is what such a key is for, with points on its curve
			plan = append(plan, trial{v.name, "derive from it with a point off the curve", "C_DeriveKey", func(c calls) error {
				return deriveOffCurve(s.p, c, v)
			}})
			continue
		}
		for _, code := range codes {
			plan = append(plan, trial{v.name, fmt.Sprintf("derive from it by mechanism 0x%X", code), "C_DeriveKey", func(c calls) error {
				h, err := c.deriveKey(deriving(code, v), v.h, readable)
				return made(c, h, err)
			}})
			if code == pkcs11.CKM_CONCATENATE_BASE_AND_KEY {
				plan = append(plan, trial{v.name, "append it to a key of one's own", "C_DeriveKey", func(c calls) error {
					h, err := c.deriveKey(rawMechanism{code: code, param: words(uint(v.h))}, s.own.fresh, readable)
					return made(c, h, err)
				}})
			}
		}
	}
	return plan, nil
}

// deriveOffCurve agrees with a point of another curve, whose group can be small: each answer
// gives a few bits of the key away.
func deriveOffCurve(p Profile, c calls, v victim) error {
	point := basePoint(v.spec.Algorithm.Curve())
	point[len(point)-1] ^= 1
	m, err := p.ecdh(point)
	if err != nil {
		return err
	}
	h, err := c.deriveKey(m, v.h, agreedTemplate(16))
	switch codeOf(wrapError("C_DeriveKey", err)) {
	case pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED:
		return pkcs11.Error(pkcs11.CKR_DATA_INVALID) // vague, and here the point is the one fault
	}
	return made(c, h, err)
}

// deriving gives a derivation mechanism a parameter of its own form.
func deriving(code uint, v victim) rawMechanism {
	data := make([]byte, 32)
	switch code {
	case pkcs11.CKM_ECDH1_DERIVE, pkcs11.CKM_ECDH1_COFACTOR_DERIVE:
		point := generators[v.spec.Algorithm]
		if point == nil {
			point = generators[ECP256]
		}
		// CK_ECDH1_DERIVE_PARAMS: KDF, shared data length and pointer, point length and pointer.
		return rawMechanism{code: code, param: words(pkcs11.CKD_NULL, 0, 0, uint(len(point)), 0), refs: []ref{{32, point}}}
	case pkcs11.CKM_AES_CBC_ENCRYPT_DATA:
		return rawMechanism{code: code, param: append(make([]byte, 16), words(0, uint(len(data)))...), refs: []ref{{16, data}}}
	case pkcs11.CKM_DES_CBC_ENCRYPT_DATA, pkcs11.CKM_DES3_CBC_ENCRYPT_DATA:
		return rawMechanism{code: code, param: append(make([]byte, 8), words(0, uint(len(data)))...), refs: []ref{{8, data}}}
	case pkcs11.CKM_AES_ECB_ENCRYPT_DATA, pkcs11.CKM_DES_ECB_ENCRYPT_DATA, pkcs11.CKM_DES3_ECB_ENCRYPT_DATA,
		pkcs11.CKM_CONCATENATE_BASE_AND_DATA, pkcs11.CKM_CONCATENATE_DATA_AND_BASE, pkcs11.CKM_XOR_BASE_AND_DATA:
		return rawMechanism{code: code, param: words(0, uint(len(data))), refs: []ref{{0, data}}}
	case pkcs11.CKM_EXTRACT_KEY_FROM_KEY:
		return rawMechanism{code: code, param: words(0)}
	case pkcs11.CKM_CONCATENATE_BASE_AND_KEY:
		return rawMechanism{code: code, param: words(uint(v.h))}
	case pkcs11.CKM_DH_PKCS_DERIVE:
		return rawMechanism{code: code, param: append([]byte{2}, make([]byte, 255)...)}
	}
	return rawMechanism{code: code}
}

// generators holds the curves' base points, uncompressed, as a peer's public key.
var generators = map[Algorithm][]byte{ECP256: basePoint(elliptic.P256()), ECP384: basePoint(elliptic.P384())}

func basePoint(c elliptic.Curve) []byte {
	n := (c.Params().BitSize + 7) / 8
	b := make([]byte, 1+2*n)
	b[0] = 4 // uncompressed
	c.Params().Gx.FillBytes(b[1 : 1+n])
	c.Params().Gy.FillBytes(b[1+n:])
	return b
}
