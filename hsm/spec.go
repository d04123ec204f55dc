package hsm

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
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

// Class is the class of material that one transport key carries: one exact shape, because
// a token compares what it unwraps with one list of flags and mechanisms.
type Class string

// Classes of material.
const (
	ClassAES        Class = "aes"
	ClassMAC224     Class = "mac-224"
	ClassMAC256     Class = "mac-256"
	ClassMAC384     Class = "mac-384"
	ClassMAC512     Class = "mac-512"
	ClassECSign     Class = "ec-sign"
	ClassECAgree    Class = "ec-agree"
	ClassRSASign    Class = "rsa-sign"
	ClassRSADecrypt Class = "rsa-decrypt"
)

// Classes lists every class, in the order in which ceremonies make their keys.
var Classes = []Class{ClassAES, ClassMAC224, ClassMAC256, ClassMAC384, ClassMAC512,
	ClassECSign, ClassECAgree, ClassRSASign, ClassRSADecrypt}

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
	RoleImportStep           Role = "import-step"           // AES session object between those two, for one call
)

// Spec says what to make. It is written into the object's label, and read back from there,
// so that an object whose store row was lost still says what it is.
type Spec struct {
	Role      Role
	Algorithm Algorithm
	Usage     Usage     // private keys only
	Class     Class     // transport keys only
	Import    ImportFor // import wrapping keys and steps only
	Name      string    // what the object is called within its role, at most 160 bytes of printable ASCII without spaces
}

// roles says which algorithms each role has, and for each algorithm which usages. A spec
// that is not in this table is refused, whether it comes from a caller or from a label.
var roles = map[Role]map[Algorithm][]Usage{
	RoleMaterial:             materials,
	RoleSharedMaterial:       materials,
	RoleTransportSource:      {AES256: {UsageNone}},
	RoleTransportDestination: {AES256: {UsageNone}},
	RoleEstablishment:        {RSA3072: {UsageNone}},
	RoleRegionSigning:        {ECP384: {UsageSign}},
	RoleSeal:                 {HMACSHA256: {UsageNone}},
	RoleImportWrapping:       {RSA2048: {UsageNone}, RSA3072: {UsageNone}, RSA4096: {UsageNone}},
	RoleImportStep:           {AES256: {UsageNone}},
}

var materials = map[Algorithm][]Usage{
	AES256:      {UsageNone},
	HMACSHA224:  {UsageNone},
	HMACSHA256:  {UsageNone},
	HMACSHA384:  {UsageNone},
	HMACSHA512:  {UsageNone},
	ECP256:      {UsageSign, UsageAgree},
	ECP384:      {UsageSign, UsageAgree},
	ECP521:      {UsageSign, UsageAgree},
	ECSecp256k1: {UsageSign}, // AWS agrees on no keys over this curve
	RSA2048:     {UsageSign, UsageDecrypt},
	RSA3072:     {UsageSign, UsageDecrypt},
	RSA4096:     {UsageSign, UsageDecrypt},
}

const maxName = 160

// Check reports whether the spec is one that this package makes.
func (s Spec) Check() error {
	usages, ok := roles[s.Role][s.Algorithm]
	switch {
	case !ok:
		return fmt.Errorf("role %q with algorithm %q: %w", s.Role, s.Algorithm, ErrCaller)
	case !slices.Contains(usages, s.Usage):
		return fmt.Errorf("role %q, algorithm %q with usage %q: %w", s.Role, s.Algorithm, s.Usage, ErrCaller)
	}
	transport := s.Role == RoleTransportSource || s.Role == RoleTransportDestination
	if transport != slices.Contains(Classes, s.Class) || !transport && s.Class != "" {
		return fmt.Errorf("role %q with class %q: %w", s.Role, s.Class, ErrCaller)
	}
	if s.Role == RoleImportWrapping || s.Role == RoleImportStep {
		if err := s.Import.check(s.Algorithm); err != nil {
			return err
		}
	} else if s.Import != (ImportFor{}) {
		return fmt.Errorf("role %q with a purpose of import: %w", s.Role, ErrCaller)
	}
	if len(s.Name) > maxName || s.Name == absent {
		return fmt.Errorf("name of %d bytes: want at most %d, and not %q: %w", len(s.Name), maxName, absent, ErrCaller)
	}
	for _, c := range []byte(s.Name) {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("name with byte 0x%02x: want printable ASCII without spaces: %w", c, ErrCaller)
		}
	}
	return nil
}

// Material reports whether the spec is a customer's key material, which clients' requests
// use and transport keys carry.
func (s Spec) Material() bool { return s.Role == RoleMaterial || s.Role == RoleSharedMaterial }

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
