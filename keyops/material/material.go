// Package material names key material, one generation of a key's secret, by what it is.
//
// A material ID is a hash over the key's spec, the key's ID and a check value that only who
// can use the material can compute, so every Region that holds the same material under the
// same key finds the same ID, and the same bytes under another key have another one.
// The check value of an AES or HMAC key is computed in the token and never leaves the
// daemon; the ID itself is public. Neither authenticates anything: what a peer says of an
// ID is believed only once it was recomputed in this Region's own token.
//
// The functions are pure and safe for concurrent use. The hashed bytes are a stored format:
// they never change.
package material

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/keyferry/keyferry/keyops/wire"
)

// The labels keep these hashes apart from every other hash and MAC of the product.
const (
	idLabel    = "keyferry/material/v1"
	checkLabel = "keyferry/check/v1"
)

// PrefixSize is the number of bytes of a material ID that a ciphertext carries.
const PrefixSize = 16

// ID names one key material. A key refuses a second material whose ID has the same Prefix.
type ID [sha256.Size]byte

// Compute returns the ID of the material that has the given check value: the two encrypted
// AESBlocks of an AES key, the MAC over MACMessage of an HMAC key, the DER-encoded
// SubjectPublicKeyInfo of a key pair.
func Compute(spec, keyID string, check []byte) ID {
	var w wire.Writer
	w.String(idLabel)
	w.String(spec)
	w.String(keyID)
	w.Bytes(check)
	return sha256.Sum256(w.Out())
}

// Parse reads 64 lower-case hexadecimal digits.
func Parse(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("material ID of %d characters: want %d hexadecimal digits", len(s), 2*len(id))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil || id.String() != s {
		return ID{}, fmt.Errorf("material ID %q: want %d lower-case hexadecimal digits", s, 2*len(id))
	}
	return id, nil
}

// String returns the ID as 64 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText returns the same digits, for JSON and log fields.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// IsZero reports whether the ID was never set.
func (id ID) IsZero() bool { return id == ID{} }

// Prefix returns the bytes by which a ciphertext names its material.
func (id ID) Prefix() [PrefixSize]byte { return [PrefixSize]byte(id[:PrefixSize]) }

// AESBlocks returns the two blocks whose encryption under CKM_AES_ECB is the check value of
// an AES key. There are two because importers choose keys: one block would let them search
// for two keys that agree on it. Each ends in a zero counter, so that neither is a counter
// block of any GCM encryption (those start at one for 12-byte IVs) and publishing a hash of
// them says nothing about a keystream.
func AESBlocks(keyID string) [32]byte {
	h := sha256.Sum256([]byte(checkLabel + keyID))
	var blocks [32]byte
	copy(blocks[0:12], h[0:12])
	copy(blocks[16:28], h[12:24])
	return blocks
}

// MACMessage returns the message whose MAC is the check value of an HMAC key.
func MACMessage(keyID string) []byte { return []byte(checkLabel + keyID) }
