package statement

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"strings"
)

// Fingerprint returns the SHA-256 of b as sixteen groups of four hexadecimal digits, which
// a person can read out and another can follow.
func Fingerprint(b []byte) string {
	h := sha256.Sum256(b)
	digits := hex.EncodeToString(h[:])
	groups := make([]string, 0, len(digits)/4)
	for i := 0; i < len(digits); i += 4 {
		groups = append(groups, digits[i:i+4])
	}
	return strings.Join(groups, "-")
}

// SameFingerprint compares a fingerprint with what a person typed: case, spaces, colons
// and hyphens do not matter, every digit does.
func SameFingerprint(fingerprint, typed string) bool {
	plain := strings.NewReplacer("-", "", ":", "", " ", "")
	a, b := plain.Replace(fingerprint), strings.ToLower(plain.Replace(typed))
	return len(a) == 2*sha256.Size && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}
