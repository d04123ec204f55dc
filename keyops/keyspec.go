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
	HMAC224          KeySpec = "HMAC_224"
	HMAC256          KeySpec = "HMAC_256"
	HMAC384          KeySpec = "HMAC_384"
	HMAC512          KeySpec = "HMAC_512"
	RSA2048          KeySpec = "RSA_2048"
	RSA3072          KeySpec = "RSA_3072"
	RSA4096          KeySpec = "RSA_4096"
	ECCNISTP256      KeySpec = "ECC_NIST_P256"
	ECCNISTP384      KeySpec = "ECC_NIST_P384"
	ECCNISTP521      KeySpec = "ECC_NIST_P521"
	ECCSECGP256K1    KeySpec = "ECC_SECG_P256K1"
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
	AlgorithmOAEPSHA1         Algorithm = "RSAES_OAEP_SHA_1"
	AlgorithmOAEPSHA256       Algorithm = "RSAES_OAEP_SHA_256"

	AlgorithmHMACSHA224 Algorithm = "HMAC_SHA_224"
	AlgorithmHMACSHA256 Algorithm = "HMAC_SHA_256"
	AlgorithmHMACSHA384 Algorithm = "HMAC_SHA_384"
	AlgorithmHMACSHA512 Algorithm = "HMAC_SHA_512"

	AlgorithmECDSASHA256 Algorithm = "ECDSA_SHA_256"
	AlgorithmECDSASHA384 Algorithm = "ECDSA_SHA_384"
	AlgorithmECDSASHA512 Algorithm = "ECDSA_SHA_512"

	AlgorithmPSSSHA256   Algorithm = "RSASSA_PSS_SHA_256"
	AlgorithmPSSSHA384   Algorithm = "RSASSA_PSS_SHA_384"
	AlgorithmPSSSHA512   Algorithm = "RSASSA_PSS_SHA_512"
	AlgorithmPKCS1SHA256 Algorithm = "RSASSA_PKCS1_V1_5_SHA_256"
	AlgorithmPKCS1SHA384 Algorithm = "RSASSA_PKCS1_V1_5_SHA_384"
	AlgorithmPKCS1SHA512 Algorithm = "RSASSA_PKCS1_V1_5_SHA_512"

	AlgorithmECDH Algorithm = "ECDH"
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
	maxPublicKey   = 8192
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
}

// specs is every key spec of AWS, and what each can do here. One that is not here does not
// exist; one without uses has a limit that says why no key of it can be made.
var specs = []struct {
	spec  KeySpec
	uses  []use
	limit string
}{
	{spec: SymmetricDefault, uses: []use{{EncryptDecrypt, []Algorithm{AlgorithmSymmetricDefault}, hsm.AES256, hsm.UsageNone}}},
	{spec: HMAC224, uses: mac(AlgorithmHMACSHA224, hsm.HMACSHA224)},
	{spec: HMAC256, uses: mac(AlgorithmHMACSHA256, hsm.HMACSHA256)},
	{spec: HMAC384, uses: mac(AlgorithmHMACSHA384, hsm.HMACSHA384)},
	{spec: HMAC512, uses: mac(AlgorithmHMACSHA512, hsm.HMACSHA512)},
	{spec: RSA2048, uses: rsaUses(hsm.RSA2048)},
	{spec: RSA3072, uses: rsaUses(hsm.RSA3072)},
	{spec: RSA4096, uses: rsaUses(hsm.RSA4096)},
	{spec: ECCNISTP256, uses: curve(AlgorithmECDSASHA256, hsm.ECP256)},
	{spec: ECCNISTP384, uses: curve(AlgorithmECDSASHA384, hsm.ECP384)},
	{spec: ECCNISTP521, uses: curve(AlgorithmECDSASHA512, hsm.ECP521)},
	{spec: ECCSECGP256K1, uses: curve(AlgorithmECDSASHA256, hsm.ECSecp256k1)[:1]}, // AWS agrees on no secret with it
	{spec: "ECC_NIST_EDWARDS25519", limit: "PKCS#11 2.40, which tokens are spoken to in, has no EdDSA, and SoftHSM 2.6.1 can neither wrap nor unwrap such a private key"},
	{spec: "ML_DSA_44", limit: noMLDSA},
	{spec: "ML_DSA_65", limit: noMLDSA},
	{spec: "ML_DSA_87", limit: noMLDSA},
	{spec: "SM2", limit: "no token profile here has the mechanisms of SM2, which AWS has in its Regions in China only"},
}

const noMLDSA = "PKCS#11 2.40, which tokens are spoken to in, has no ML-DSA"

func mac(a Algorithm, token hsm.Algorithm) []use {
	return []use{{GenerateVerifyMac, []Algorithm{a}, token, hsm.UsageNone}}
}

func rsaUses(token hsm.Algorithm) []use {
	return []use{
		{EncryptDecrypt, []Algorithm{AlgorithmOAEPSHA1, AlgorithmOAEPSHA256}, token, hsm.UsageDecrypt},
		{SignVerify, []Algorithm{
			AlgorithmPKCS1SHA256, AlgorithmPKCS1SHA384, AlgorithmPKCS1SHA512,
			AlgorithmPSSSHA256, AlgorithmPSSSHA384, AlgorithmPSSSHA512,
		}, token, hsm.UsageSign},
	}
}

func curve(a Algorithm, token hsm.Algorithm) []use {
	return []use{
		{SignVerify, []Algorithm{a}, token, hsm.UsageSign},
		{KeyAgreement, []Algorithm{AlgorithmECDH}, token, hsm.UsageAgree},
	}
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

// limit says why no key of a known spec can be made, or nothing.
func (s KeySpec) limit() string {
	for _, row := range specs {
		if row.spec == s {
			return row.limit
		}
	}
	return ""
}

// unknownSpec refuses a spec without uses.
func unknownSpec(s KeySpec) error {
	if limit := s.limit(); limit != "" {
		return refuse(ErrUnsupportedOperation, "This Region's token cannot hold %s keys: %s.", s, limit)
	}
	return refuse(ErrValidation, "Key spec '%s' is not known here; \"keyferry region show\" lists what this Region's token can hold.", clip(string(s)))
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
