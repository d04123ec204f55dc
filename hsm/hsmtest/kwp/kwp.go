// Package kwp is AES key wrap with padding (RFC 5649) in software, for tests: the fake token
// wraps with it, and what real tokens wrap is compared with it. Production code wraps inside
// tokens only.
package kwp

import (
	"crypto/aes"
	"crypto/subtle"
	"encoding/binary"
	"errors"
)

// ErrIntegrity means that the blob was not wrapped under this key.
var ErrIntegrity = errors.New("integrity check failed")

// Wrap wraps key under kek, of 16, 24 or 32 bytes.
func Wrap(kek, key []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	padded := (len(key) + 7) / 8 * 8
	if len(key) == 0 {
		return nil, errors.New("empty key")
	}
	b := make([]byte, 8+padded)
	copy(b, []byte{0xA6, 0x59, 0x59, 0xA6}) // section 3: the constant of the alternative IV
	binary.BigEndian.PutUint32(b[4:], uint32(len(key)))
	copy(b[8:], key)
	if padded == 8 { // section 4.1: one block is encrypted, not wrapped
		block.Encrypt(b, b)
		return b, nil
	}
	var t [16]byte
	copy(t[:8], b[:8])
	for j := range 6 { // RFC 3394 section 2.2.1
		for i := 1; i <= padded/8; i++ {
			copy(t[8:], b[8*i:])
			block.Encrypt(t[:], t[:])
			n := binary.BigEndian.Uint64(t[:8]) ^ uint64(j*padded/8+i)
			binary.BigEndian.PutUint64(t[:8], n)
			copy(b[8*i:], t[8:])
		}
	}
	copy(b, t[:8])
	return b, nil
}

// Unwrap undoes Wrap and checks the integrity value, length and padding.
func Unwrap(kek, wrapped []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	if len(wrapped) < 16 || len(wrapped)%8 != 0 {
		return nil, ErrIntegrity
	}
	b := append([]byte(nil), wrapped...)
	padded := len(b) - 8
	if padded == 8 {
		block.Decrypt(b, b)
	} else {
		var t [16]byte
		copy(t[:8], b[:8])
		for j := 5; j >= 0; j-- {
			for i := padded / 8; i >= 1; i-- {
				n := binary.BigEndian.Uint64(t[:8]) ^ uint64(j*padded/8+i)
				binary.BigEndian.PutUint64(t[:8], n)
				copy(t[8:], b[8*i:])
				block.Decrypt(t[:], t[:])
				copy(b[8*i:], t[8:])
			}
		}
		copy(b, t[:8])
	}
	n := int(binary.BigEndian.Uint32(b[4:8]))
	if subtle.ConstantTimeCompare(b[:4], []byte{0xA6, 0x59, 0x59, 0xA6}) != 1 || n > padded || n <= padded-8 {
		return nil, ErrIntegrity
	}
	for _, c := range b[8+n:] {
		if c != 0 {
			return nil, ErrIntegrity
		}
	}
	return b[8 : 8+n], nil
}
