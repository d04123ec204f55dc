package hsm

import (
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
	table := []mechanismSet{{algorithm: AES256, generate: pkcs11.CKM_AES_KEY_GEN,
		use: []uint{p.gcmMechanism(), pkcs11.CKM_AES_ECB}, useFlags: pkcs11.CKF_ENCRYPT | pkcs11.CKF_DECRYPT}}
	for _, a := range []Algorithm{HMACSHA224, HMACSHA256, HMACSHA384, HMACSHA512} {
		table = append(table, mechanismSet{algorithm: a, generate: pkcs11.CKM_GENERIC_SECRET_KEY_GEN,
			use: []uint{secretKeys[a].mac}, useFlags: pkcs11.CKF_SIGN})
	}
	for _, a := range []Algorithm{ECP256, ECP384, ECP521, ECSecp256k1} {
		row := mechanismSet{algorithm: a, generate: pkcs11.CKM_EC_KEY_PAIR_GEN, pair: true, keyBits: uint(a.Curve().Params().BitSize)}
		row.usage, row.use, row.useFlags = UsageSign, []uint{pkcs11.CKM_ECDSA}, pkcs11.CKF_SIGN
		table = append(table, row)
		if a != ECSecp256k1 {
			row.usage, row.use, row.useFlags = UsageAgree, []uint{pkcs11.CKM_ECDH1_DERIVE}, pkcs11.CKF_DERIVE
			table = append(table, row)
		}
	}
	for _, a := range []Algorithm{RSA2048, RSA3072, RSA4096} {
		row := mechanismSet{algorithm: a, generate: pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, pair: true, keyBits: rsaBits[a]}
		row.usage, row.use, row.useFlags = UsageSign, []uint{pkcs11.CKM_RSA_PKCS, pkcs11.CKM_RSA_PKCS_PSS}, pkcs11.CKF_SIGN
		table = append(table, row)
		row.usage, row.use, row.useFlags = UsageDecrypt, p.decryptMechanisms(), pkcs11.CKF_DECRYPT
		table = append(table, row)
	}
	return table
}

// mechanismNames is for messages about what a token lacks.
var mechanismNames = map[uint]string{
	pkcs11.CKM_AES_KEY_GEN:            "CKM_AES_KEY_GEN",
	pkcs11.CKM_AES_GCM:                "CKM_AES_GCM",
	pkcs11.CKM_AES_ECB:                "CKM_AES_ECB",
	pkcs11.CKM_GENERIC_SECRET_KEY_GEN: "CKM_GENERIC_SECRET_KEY_GEN",
	pkcs11.CKM_SHA224_HMAC:            "CKM_SHA224_HMAC",
	pkcs11.CKM_SHA256_HMAC:            "CKM_SHA256_HMAC",
	pkcs11.CKM_SHA384_HMAC:            "CKM_SHA384_HMAC",
	pkcs11.CKM_SHA512_HMAC:            "CKM_SHA512_HMAC",
	pkcs11.CKM_EC_KEY_PAIR_GEN:        "CKM_EC_KEY_PAIR_GEN",
	pkcs11.CKM_ECDSA:                  "CKM_ECDSA",
	pkcs11.CKM_ECDH1_DERIVE:           "CKM_ECDH1_DERIVE",
	pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN:  "CKM_RSA_PKCS_KEY_PAIR_GEN",
	pkcs11.CKM_RSA_PKCS:               "CKM_RSA_PKCS",
	pkcs11.CKM_RSA_PKCS_PSS:           "CKM_RSA_PKCS_PSS",
	pkcs11.CKM_RSA_PKCS_OAEP:          "CKM_RSA_PKCS_OAEP",
	pkcs11.CKM_RSA_X_509:              "CKM_RSA_X_509",
	pkcs11.CKM_RSA_AES_KEY_WRAP:       "CKM_RSA_AES_KEY_WRAP",
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
