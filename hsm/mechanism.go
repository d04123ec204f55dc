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

// mechanisms of one kind of key.
type mechanismSet struct {
	algorithm Algorithm
	usage     Usage
	generate  uint
	use       []uint // every one is needed
	keyBits   uint   // checked against the token's bounds for generate, if they are in bits
	digest    crypto.Hash
}

// table is the one list of algorithms and what they need of a token. The codes of AES-GCM
// and of wrapping are the profile's.
func (p Profile) mechanismTable() []mechanismSet {
	return []mechanismSet{
		{algorithm: AES256, generate: pkcs11.CKM_AES_KEY_GEN, use: []uint{p.gcmMechanism(), pkcs11.CKM_AES_ECB}},
		{algorithm: HMACSHA256, generate: pkcs11.CKM_GENERIC_SECRET_KEY_GEN, use: []uint{pkcs11.CKM_SHA256_HMAC}},
		{algorithm: ECP256, usage: UsageSign, generate: pkcs11.CKM_EC_KEY_PAIR_GEN, use: []uint{pkcs11.CKM_ECDSA}, keyBits: 256, digest: crypto.SHA256},
		{algorithm: ECP384, usage: UsageSign, generate: pkcs11.CKM_EC_KEY_PAIR_GEN, use: []uint{pkcs11.CKM_ECDSA}, keyBits: 384, digest: crypto.SHA384},
	}
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
