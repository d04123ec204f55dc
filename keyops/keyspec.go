package keyops

import (
	"slices"

	"github.com/keyferry/keyferry/hsm"
)

// KeySpec is the kind of a key, fixed when the key is made.
type KeySpec string

// Key specs. The table in this file says what each can do.
const (
	SymmetricDefault KeySpec = "SYMMETRIC_DEFAULT"
	HMAC256          KeySpec = "HMAC_256"
	ECCNISTP256      KeySpec = "ECC_NIST_P256"
)

// KeyUsage is what a key is for, fixed when the key is made.
type KeyUsage string

// Key usages.
const (
	EncryptDecrypt    KeyUsage = "ENCRYPT_DECRYPT"
	SignVerify        KeyUsage = "SIGN_VERIFY"
	GenerateVerifyMac KeyUsage = "GENERATE_VERIFY_MAC"
	KeyAgreement      KeyUsage = "KEY_AGREEMENT"
)

// Origin says where a key's material comes from, and keeps AWS's names.
type Origin string

// Origins.
const (
	OriginToken    Origin = "AWS_KMS"  // made in the token
	OriginExternal Origin = "EXTERNAL" // imported
)

// Algorithm is an algorithm of an operation, by AWS's name.
type Algorithm string

// Algorithms of operations.
const (
	AlgorithmSymmetricDefault Algorithm = "SYMMETRIC_DEFAULT"
	AlgorithmHMACSHA256       Algorithm = "HMAC_SHA_256"
	AlgorithmECDSASHA256      Algorithm = "ECDSA_SHA_256"
)

// MessageType says whether Sign and Verify get the message or its digest.
type MessageType string

// Message types.
const (
	Raw    MessageType = "RAW"
	Digest MessageType = "DIGEST"
)

// DataKeySpec is a common length of data keys.
type DataKeySpec string

// Data key specs.
const (
	DataKeyAES256 DataKeySpec = "AES_256"
	DataKeyAES128 DataKeySpec = "AES_128"
)

// Limits of sizes, in bytes, and of counts.
const (
	maxPlaintext   = 4096
	maxMessage     = 4096
	maxCiphertext  = 6144
	maxSignature   = 6144
	maxRandom      = 1024
	maxDescription = 8192
	maxPolicy      = 32 << 10
	maxTags        = 50
	maxTagKey      = 128
	maxTagValue    = 256
	maxAliases     = 50 // per key
	maxReference   = 2048
)

// use is one usage that a spec may have.
type use struct {
	usage      KeyUsage
	algorithms []Algorithm
	token      hsm.Algorithm
	tokenUsage hsm.Usage
	digest     int // bytes that Sign takes as DIGEST; 0 unless the usage is SIGN_VERIFY
}

// specs is what every key spec can do. A spec that is not here does not exist.
var specs = []struct {
	spec KeySpec
	uses []use
}{
	{SymmetricDefault, []use{{EncryptDecrypt, []Algorithm{AlgorithmSymmetricDefault}, hsm.AES256, hsm.UsageNone, 0}}},
	{HMAC256, []use{{GenerateVerifyMac, []Algorithm{AlgorithmHMACSHA256}, hsm.HMACSHA256, hsm.UsageNone, 0}}},
	{ECCNISTP256, []use{{SignVerify, []Algorithm{AlgorithmECDSASHA256}, hsm.ECP256, hsm.UsageSign, 32}}},
}

// pair reports whether the key is a key pair.
func (u use) pair() bool { return !u.token.Secret() }

// class returns the class of transport key that carries such material.
func (u use) class() hsm.Class {
	c, err := hsm.ClassOf(u.token, u.tokenUsage)
	if err != nil {
		panic(err) // the table of specs names an algorithm that hsm does not have
	}
	return c
}

// algorithmExists tells an algorithm of another spec from one that does not exist.
func algorithmExists(a Algorithm) bool {
	for _, row := range specs {
		for _, u := range row.uses {
			if slices.Contains(u.algorithms, a) {
				return true
			}
		}
	}
	return false
}

// uses returns the usages of a spec, or nil if there is no such spec.
func (s KeySpec) uses() []use {
	for _, row := range specs {
		if row.spec == s {
			return row.uses
		}
	}
	return nil
}

// find returns the spec's row for one usage.
func (s KeySpec) find(u KeyUsage) (use, bool) {
	uses := s.uses()
	i := slices.IndexFunc(uses, func(row use) bool { return row.usage == u })
	if i < 0 {
		return use{}, false
	}
	return uses[i], true
}
