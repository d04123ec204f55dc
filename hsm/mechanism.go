package hsm

import (
	"crypto"
	_ "crypto/sha256" // hash sizes
	_ "crypto/sha512"
	"fmt"

	"github.com/miekg/pkcs11"
)

// MaxRandom is the most that one call of Random returns, in bytes.
const MaxRandom = 1024

// mechanismSet is what one kind of key needs.
type mechanismSet struct {
	algorithm Algorithm
	usage     Usage
	generate  uint
	pair      bool   // made by C_GenerateKeyPair
	use       []uint // every one is needed
	useFlags  uint   // what the token must say that each of use does
	keyBits   uint   // compared with the token's bounds for generate; 0 where those are in bytes on some tokens
	digest    crypto.Hash
}

func (m mechanismSet) generateFlag() uint {
	if m.pair {
		return pkcs11.CKF_GENERATE_KEY_PAIR
	}
	return pkcs11.CKF_GENERATE
}

// mechanismTable is the one list of algorithms and what they need of a token. The codes of AES-GCM
// and of wrapping are the profile's.
func (p Profile) mechanismTable() []mechanismSet {
	return []mechanismSet{
		{algorithm: AES256, generate: pkcs11.CKM_AES_KEY_GEN,
			use: []uint{p.gcmMechanism(), pkcs11.CKM_AES_ECB}, useFlags: pkcs11.CKF_ENCRYPT | pkcs11.CKF_DECRYPT},
		{algorithm: HMACSHA256, generate: pkcs11.CKM_GENERIC_SECRET_KEY_GEN,
			use: []uint{pkcs11.CKM_SHA256_HMAC}, useFlags: pkcs11.CKF_SIGN},
		{algorithm: ECP256, usage: UsageSign, generate: pkcs11.CKM_EC_KEY_PAIR_GEN, pair: true,
			use: []uint{pkcs11.CKM_ECDSA}, useFlags: pkcs11.CKF_SIGN, keyBits: 256, digest: crypto.SHA256},
		{algorithm: ECP384, usage: UsageSign, generate: pkcs11.CKM_EC_KEY_PAIR_GEN, pair: true,
			use: []uint{pkcs11.CKM_ECDSA}, useFlags: pkcs11.CKF_SIGN, keyBits: 384, digest: crypto.SHA384},
	}
}

// mechanismNames is for messages about what a token lacks.
var mechanismNames = map[uint]string{
	pkcs11.CKM_AES_KEY_GEN:            "CKM_AES_KEY_GEN",
	pkcs11.CKM_AES_GCM:                "CKM_AES_GCM",
	pkcs11.CKM_AES_ECB:                "CKM_AES_ECB",
	pkcs11.CKM_GENERIC_SECRET_KEY_GEN: "CKM_GENERIC_SECRET_KEY_GEN",
	pkcs11.CKM_SHA256_HMAC:            "CKM_SHA256_HMAC",
	pkcs11.CKM_EC_KEY_PAIR_GEN:        "CKM_EC_KEY_PAIR_GEN",
	pkcs11.CKM_ECDSA:                  "CKM_ECDSA",
}

func mechanismName(code uint) string {
	if name, ok := mechanismNames[code]; ok {
		return name
	}
	return fmt.Sprintf("mechanism 0x%X", code)
}

// mechanismsOf finds the row of a spec.
func (p Profile) mechanismsOf(s Spec) (mechanismSet, error) {
	for _, m := range p.mechanismTable() {
		if m.algorithm == s.Algorithm && m.usage == s.Usage {
			return m, nil
		}
	}
	return mechanismSet{}, fmt.Errorf("%s %s: %w", s.Algorithm, s.Usage, ErrNotSupported)
}

// DigestOf returns the hash whose digests keys of this algorithm sign.
func DigestOf(a Algorithm) (crypto.Hash, error) {
	for _, m := range (Profile{}).mechanismTable() {
		if m.algorithm == a && m.digest != 0 {
			return m.digest, nil
		}
	}
	return 0, fmt.Errorf("%s signs no digests: %w", a, ErrNotSupported)
}
