package hsm

import (
	"crypto"
	"fmt"
)

// ImportScheme is how a customer wraps what is imported, by AWS's name.
type ImportScheme string

// Schemes of import.
const (
	// OAEPSHA1Import is RSA-OAEP of the material with SHA-1 and MGF1 with SHA-1.
	OAEPSHA1Import ImportScheme = "RSAES_OAEP_SHA_1"
	// OAEPSHA256Import is the same with SHA-256.
	OAEPSHA256Import ImportScheme = "RSAES_OAEP_SHA_256"
	// RSAAESKeyWrapSHA1 is RSA-OAEP with SHA-1 of an AES-256 key, followed by the material
	// wrapped under that key by RFC 5649.
	RSAAESKeyWrapSHA1 ImportScheme = "RSA_AES_KEY_WRAP_SHA_1"
	// RSAAESKeyWrapSHA256 is the same with SHA-256.
	RSAAESKeyWrapSHA256 ImportScheme = "RSA_AES_KEY_WRAP_SHA_256"
)

// importScheme is what follows from a scheme.
type importScheme struct {
	hash    OAEPHash
	keyWrap bool // RFC 5649 under an AES key that RSA-OAEP carries
}

var importSchemes = map[ImportScheme]importScheme{
	OAEPSHA1Import:      {hash: OAEPSHA1},
	OAEPSHA256Import:    {hash: OAEPSHA256},
	RSAAESKeyWrapSHA1:   {hash: OAEPSHA1, keyWrap: true},
	RSAAESKeyWrapSHA256: {hash: OAEPSHA256, keyWrap: true},
}

// ImportSchemes lists every scheme.
var ImportSchemes = []ImportScheme{OAEPSHA1Import, OAEPSHA256Import, RSAAESKeyWrapSHA1, RSAAESKeyWrapSHA256}

// Hash returns the hash of the scheme's RSA-OAEP, and 0 for an unknown scheme.
func (s ImportScheme) Hash() crypto.Hash {
	switch importSchemes[s].hash {
	case OAEPSHA1:
		return crypto.SHA1
	case OAEPSHA256:
		return crypto.SHA256
	}
	return 0
}

// KeyWrap reports whether the material is wrapped under an AES key, so that its length does
// not matter.
func (s ImportScheme) KeyWrap() bool { return importSchemes[s].keyWrap }

// ImportFor says what one import wrapping key is for. The key's unwrap template demands
// this and nothing else, so what was wrapped to become one kind of key never becomes another.
type ImportFor struct {
	Scheme    ImportScheme
	Role      Role // RoleMaterial or RoleSharedMaterial
	Algorithm Algorithm
	Usage     Usage
}

// Material returns the spec of what may be imported, but for its name.
func (f ImportFor) Material() Spec {
	return Spec{Role: f.Role, Algorithm: f.Algorithm, Usage: f.Usage}
}

// check reports whether material of this kind fits what the wrapping key takes.
func (f ImportFor) check(wrapping Algorithm) error {
	scheme, ok := importSchemes[f.Scheme]
	material := f.Material()
	switch {
	case !ok:
		return fmt.Errorf("import scheme %q: %w", f.Scheme, ErrCaller)
	case !material.Material():
		return fmt.Errorf("import of role %q: %w", f.Role, ErrCaller)
	}
	if err := material.Check(); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	if scheme.keyWrap {
		return nil
	}
	if n := MaxOAEP(wrapping, f.Scheme.Hash()); leastBytes(f.Algorithm) > n {
		return fmt.Errorf("import of %s under %s with %s, which carries %d bytes: use %s: %w",
			f.Algorithm, wrapping, f.Scheme, n, RSAAESKeyWrapSHA256, ErrCaller)
	}
	return nil
}

// leastBytes is the shortest encoding of a key: PKCS #8 for private keys, as OpenSSL writes
// it, with the public key inside.
func leastBytes(a Algorithm) int {
	switch a {
	case ECP256, ECSecp256k1:
		return 135
	case ECP384:
		return 185
	case ECP521:
		return 241
	}
	if bits := a.ModulusBits(); bits != 0 {
		return bits / 2 // modulus, private exponent, two primes and three numbers as long as those
	}
	return a.SecretBytes()
}

// word renders the purpose as one word of a label.
func (f ImportFor) word() string {
	if f == (ImportFor{}) {
		return ""
	}
	usage := string(f.Usage)
	if usage == "" {
		usage = absent
	}
	return fmt.Sprintf("%s/%s/%s/%s", f.Scheme, f.Role, f.Algorithm, usage)
}

func parsePurpose(word string) (ImportFor, error) {
	for _, scheme := range ImportSchemes {
		for _, role := range []Role{RoleMaterial, RoleSharedMaterial} {
			for algorithm, usages := range materials {
				for _, usage := range usages {
					if f := (ImportFor{scheme, role, algorithm, usage}); f.word() == word {
						return f, nil
					}
				}
			}
		}
	}
	return ImportFor{}, fmt.Errorf("purpose %q of an import wrapping key: %w", loggable(word), ErrCaller)
}

// CheckImport reports whether the blob may become that material under the wrapping key.
func CheckImport(wrapping, material Spec, blob []byte) error {
	if err := CheckUse(wrapping, UseImport); err != nil {
		return err
	}
	if err := material.Check(); err != nil {
		return err
	}
	want := wrapping.Import.Material()
	want.Name = material.Name
	if material != want {
		return fmt.Errorf("import of %s %s %s under a key for %s %s %s: %w", material.Role, material.Algorithm, material.Usage,
			want.Role, want.Algorithm, want.Usage, ErrCaller)
	}
	n, first := len(blob), wrapping.Algorithm.ModulusBits()/8
	if !wrapping.Import.Scheme.KeyWrap() {
		if n != first {
			return fmt.Errorf("wrapped %s of %d bytes, want %d: %w", material.Algorithm, n, first, ErrDataInvalid)
		}
		return nil
	}
	if n -= first; n < 16 || n > maxWrapped || n%8 != 0 || material.Algorithm.Secret() && n != material.Algorithm.SecretBytes()+8 {
		return fmt.Errorf("wrapped %s of %d bytes after %d: %w", material.Algorithm, n, first, ErrDataInvalid)
	}
	return nil
}
