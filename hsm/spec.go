package hsm

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

// ID is an object's CKA_ID: 16 random bytes, unique in its token, chosen by the caller
// before the object is made so that an intent can name it.
type ID [16]byte

// NewID returns a fresh random ID.
func NewID() ID {
	var id ID
	rand.Read(id[:]) // never fails since Go 1.24
	return id
}

// String returns the ID as 32 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads 32 hexadecimal digits.
func ParseID(s string) (ID, error) {
	var id ID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("object ID %q: want 32 hexadecimal digits", s)
	}
	return ID(b), nil
}

// Algorithm names what a key is. Names, never mechanism codes, are stored and sent, since
// codes differ between vendors.
type Algorithm string

// Algorithms of keys.
const (
	AES256     Algorithm = "AES_256"
	HMACSHA256 Algorithm = "HMAC_SHA_256"
	ECP256     Algorithm = "EC_P256"
	ECP384     Algorithm = "EC_P384"
	RSA2048    Algorithm = "RSA_2048"
	RSA3072    Algorithm = "RSA_3072"
	RSA4096    Algorithm = "RSA_4096"
)

// Class is the class of material that one transport key carries. There is one transport
// key per class, because a token's unwrap template can name one object class and key type.
type Class string

// Classes of material.
const (
	ClassAES     Class = "aes"
	ClassMAC     Class = "mac"
	ClassPrivate Class = "private"
)

// Classes lists every class, in the order in which ceremonies make their keys.
var Classes = []Class{ClassAES, ClassMAC, ClassPrivate}

// Usage is what a key pair's private key does. Secret keys have the one usage that their
// algorithm has, and leave it empty.
type Usage string

// Usages of private keys.
const (
	UsageNone    Usage = ""
	UsageSign    Usage = "sign"
	UsageDecrypt Usage = "decrypt"
	UsageAgree   Usage = "agree"
)

// Role says what an object is for. Each role has one template, in template.go.
type Role string

// Roles of token objects (DESIGN section 4).
const (
	RoleMaterial             Role = "material"              // single-Region material, never leaves the token
	RoleSharedMaterial       Role = "shared-material"       // multi-Region material, leaves wrapped under a trusted key only
	RoleTransportSource      Role = "transport-source"      // wraps, at the source Region
	RoleTransportDestination Role = "transport-destination" // unwraps, at the destination Region
	RoleEstablishment        Role = "establishment"         // session object of one accept process
	RoleRegionSigning        Role = "region-signing"        // EC P-384, signs in the Region's name
	RoleSeal                 Role = "seal"                  // HMAC-SHA-256 over store rows
	RoleImportWrapping       Role = "import-wrapping"       // RSA, unwraps what a customer imports
)

// Spec says what to make. It is written into the object's label, and read back from there,
// so that an object whose store row was lost still says what it is.
type Spec struct {
	Role      Role
	Algorithm Algorithm
	Usage     Usage  // private keys only
	Class     Class  // transport keys only
	Name      string // what the object is called within its role, at most 160 bytes of printable ASCII without spaces
}

// Object is what the index knows about a token object of ours.
type Object struct {
	ID   ID
	Spec Spec
	// Local and AlwaysSensitive are CKA_LOCAL and CKA_ALWAYS_SENSITIVE: true for what this
	// token generated, false for what was unwrapped into it or created from known bytes.
	Local           bool
	AlwaysSensitive bool
	// Extractable and WrapWithTrusted are read back from the token, so that exportability
	// is reported as it is, not as it was meant.
	Extractable     bool
	WrapWithTrusted bool
}
