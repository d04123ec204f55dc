package hsm

import (
	"fmt"
)

// Info says which token this is.
type Info struct {
	Label          string
	Serial         string
	Manufacturer   string
	Model          string
	Firmware       string // version of the token's firmware, "major.minor"
	LibraryVersion string // version of the PKCS#11 library, "major.minor"
	Profile        string // name of the profile in force
	Backup         Backup // what brings single-Region keys back when the token is lost
}

// Boundary says what keeps multi-Region material inside tokens.
type Boundary string

// Boundaries, from the self-test and the kind of module.
const (
	// BoundaryToken means that the self-test's attacks were all refused by a hardware token.
	BoundaryToken Boundary = "token"
	// BoundaryAPIOnly means that they were refused, but that the token is SoftHSM, or that its
	// slot does not say that it is hardware (CKF_HW_SLOT): whoever has the PIN and the
	// token's files has its keys.
	BoundaryAPIOnly Boundary = "api-only"
	// BoundaryNone means that an attack succeeded, or that no self-test has run.
	BoundaryNone Boundary = "none"
)

// Capability is what the token can do with one algorithm and usage.
type Capability struct {
	Algorithm Algorithm
	Usage     Usage
	Generate  bool   // the token can make such a key
	Use       bool   // and do with it what it is for
	Wrap      bool   // and pass it to another token, so that it can be multi-Region
	Limit     string // what is lacking, in words that name the token's limit; empty if nothing is
}

// Capabilities is what the token can do, from its list of mechanisms and its profile.
type Capabilities struct {
	Keys []Capability
	// ImportSchemes are the ways in which a customer may wrap what is imported, and ImportKeys
	// the algorithms of the keys to wrap it under.
	ImportSchemes []ImportScheme
	ImportKeys    []Algorithm
	MaxGCMBytes   int // largest plaintext of one EncryptGCM; 0 for no limit of the token's own
	Boundary      Boundary
}

// Of returns the capability for a key of this algorithm and usage.
func (c Capabilities) Of(a Algorithm, u Usage) Capability {
	for _, k := range c.Keys {
		if k.Algorithm == a && k.Usage == u {
			return k
		}
	}
	return Capability{Algorithm: a, Usage: u, Limit: fmt.Sprintf("%s %s keys are unknown here", a, u)}
}

// Quarantined is a token object that the index did not take, and why.
type Quarantined struct {
	ID     string // CKA_ID in hexadecimal; not always 16 bytes
	Label  string // CKA_LABEL, as far as it is printable
	Reason string
}
