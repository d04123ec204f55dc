package hsm

import (
	"fmt"

	"github.com/miekg/pkcs11"
)

// planWrapUntrusted wraps every victim under every key that the thief can make, by every
// wrapping mechanism that the token has.
func planWrapUntrusted(s scene, c calls) (plan []trial, _ error) {
	codes, err := c.mechanisms(pkcs11.CKF_WRAP)
	if err != nil {
		return nil, wrapError("C_GetMechanismInfo", err)
	}
	for _, v := range s.victims {
		for _, w := range []struct {
			name string
			h    pkcs11.ObjectHandle
			rsa  bool
		}{{"a fresh AES key", s.own.fresh, false}, {"an AES key of known bytes", s.own.known, false}, {"an RSA key", s.own.pub, true}} {
			for _, code := range codes {
				if isRSA(code) != w.rsa {
					continue // refused for the kind of key alone
				}
				plan = append(plan, trial{v.name, fmt.Sprintf("wrap it under %s by mechanism 0x%X", w.name, code), "C_WrapKey", func(c calls) error {
					_, err := c.wrapKey(s.p.parametrised(code), w.h, v.h)
					return err
				}})
			}
		}
	}
	return plan, nil
}

// planWrapTransport uses the transport keys that are there: sources on what they must not
// carry or by another mechanism, destinations to wrap at all.
func planWrapTransport(s scene, c calls) (plan []trial, _ error) {
	codes, err := c.mechanisms(pkcs11.CKF_WRAP)
	if err != nil {
		return nil, wrapError("C_GetMechanismInfo", err)
	}
	for _, t := range s.having(RoleTransportSource) {
		for _, v := range s.victims {
			class, err := ClassOf(v.spec.Algorithm, v.spec.Usage)
			// A wrap template cannot hold a list of mechanisms on every token, so the keys of
			// two classes can look the same to it.
			carries := v.spec.Role == RoleSharedMaterial && err == nil && sameTemplate(wrapTemplate(class, s.p), wrapTemplate(t.spec.Class, s.p))
			for _, code := range codes {
				if carries && code == s.p.wrapMechanism() || isRSA(code) || v.h == t.h {
					continue // the first is what the key is for
				}
				plan = append(plan, trial{v.name, fmt.Sprintf("wrap it under %s by mechanism 0x%X", t.name, code), "C_WrapKey", func(c calls) error {
					_, err := c.wrapKey(s.p.parametrised(code), t.h, v.h)
					return err
				}})
			}
		}
	}
	for _, t := range s.having(RoleTransportDestination) {
		for _, v := range s.having(RoleSharedMaterial) {
			plan = append(plan, trial{v.name, "wrap it under " + t.name, "C_WrapKey", func(c calls) error {
				_, err := c.wrapKey(rawMechanism{code: s.p.wrapMechanism()}, t.h, v.h)
				return err
			}})
		}
	}
	return plan, nil
}

// planCipher uses transport keys and materials' blobs as plain ciphers: a blob is nothing
// but AES blocks under the transport key.
func planCipher(s scene, c calls) (plan []trial, _ error) {
	codes, err := c.mechanisms(pkcs11.CKF_DECRYPT)
	if err != nil {
		return nil, wrapError("C_GetMechanismInfo", err)
	}
	for _, t := range s.having(RoleTransportSource, RoleTransportDestination) {
		block := make([]byte, 32)
		copy(block, s.blobs[blobOf(t.spec, t.spec.Class)])
		for _, code := range codes {
			if !isAES(code) {
				continue
			}
			plan = append(plan,
				trial{t.name, fmt.Sprintf("decrypt a recorded blob by mechanism 0x%X", code), "C_Decrypt", func(c calls) error {
					_, err := c.decrypt(s.p.parametrised(code), t.h, block)
					return err
				}},
				trial{t.name, fmt.Sprintf("encrypt with it by mechanism 0x%X", code), "C_Encrypt", func(c calls) error {
					_, err := c.encrypt(s.p.parametrised(code), t.h, block)
					return err
				}})
		}
	}
	return plan, nil
}

// isRSA and isAES tell which keys a mechanism takes, by the ranges of the standard.
func isRSA(code uint) bool { return code <= 0x0F || code == pkcs11.CKM_RSA_AES_KEY_WRAP }

func isAES(code uint) bool {
	return code >= 0x1080 && code < 0x1090 || code >= 0x2104 && code <= 0x210F
}

// parametrised gives a mechanism the parameter that it needs to get past argument checks.
func (p Profile) parametrised(code uint) rawMechanism {
	switch code {
	case pkcs11.CKM_RSA_PKCS_OAEP:
		return p.oaepMechanism()
	case pkcs11.CKM_AES_CBC, pkcs11.CKM_AES_CBC_PAD, pkcs11.CKM_AES_OFB, pkcs11.CKM_AES_CFB128, pkcs11.CKM_AES_CFB8, pkcs11.CKM_AES_CFB64:
		return rawMechanism{code: code, param: make([]byte, 16)}
	case pkcs11.CKM_DES3_CBC, pkcs11.CKM_DES3_CBC_PAD, pkcs11.CKM_DES_CBC, pkcs11.CKM_DES_CBC_PAD:
		return rawMechanism{code: code, param: make([]byte, 8)}
	case pkcs11.CKM_AES_GCM: // IV: pointer, bytes, bits; additional data: pointer, bytes; bits of the tag
		return rawMechanism{code: code, param: words(0, 12, 96, 0, 6, gcmTag*8), refs: []ref{{0, make([]byte, 12)}, {24, []byte("attack")}}}
	case pkcs11.CKM_AES_CCM: // bytes of data; nonce: pointer, bytes; additional data: pointer, bytes; bytes of the tag
		return rawMechanism{code: code, param: words(32, 0, 12, 0, 6, gcmTag), refs: []ref{{8, make([]byte, 12)}, {24, []byte("attack")}}}
	case pkcs11.CKM_RSA_AES_KEY_WRAP: // bits of the AES key between, and how RSA wraps that
		return rawMechanism{code: code, param: words(256, 0), refs: []ref{{8, p.oaepMechanism().param}}}
	case pkcs11.CKM_AES_CTR:
		return rawMechanism{code: code, param: append(words(32), make([]byte, 16)...)}
	}
	return rawMechanism{code: code}
}
