package hsm

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// proveLength makes sure that a secret key which a customer wrapped has the length of its
// algorithm: any length is accepted as an AES key, and 16 bytes are a silent AES-128.
//
// A token that unwraps under a demanded CKA_VALUE_LEN, or shows it, has said so. SoftHSM
// shows 0, and is asked in another way: from the SHA-256 of a message whose length is known,
// anybody can compute that of the same message with its padding and more after it, and from
// a wrong length, nobody. SoftHSM hashes sensitive keys (C_DigestKey), so the length is
// right if its hash of the key, followed by what is padding at that length, is as computed.
func (t *Token) proveLength(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, want int) error {
	values, err := t.driver.Attributes(s, h, []uint{pkcs11.CKA_VALUE_LEN})
	if err != nil {
		return err
	}
	if v := values[pkcs11.CKA_VALUE_LEN]; len(v) == 8 && binary.NativeEndian.Uint64(v) != 0 {
		if n := binary.NativeEndian.Uint64(v); n != uint64(want) {
			return fmt.Errorf("imported key of %d bytes, want %d: %w", n, want, ErrDataInvalid)
		}
		return nil
	}
	if t.cfg.Profile.Wrap.ValueLen == ValueLenRequire {
		return nil // the token unwrapped under the length that the template said
	}
	digest, err := t.driver.DigestKey(s, pkcs11.CKM_SHA256, h, nil)
	if errors.Is(err, ErrCaller) || errors.Is(err, ErrNotSupported) {
		return fmt.Errorf("the token neither shows nor proves the length of an imported key: %w: %w", ErrNotSupported, err)
	}
	if err != nil {
		return err
	}
	padding := sha256Padding(want)
	more := []byte("keyferry/length/v1")
	expected, err := extendSHA256(digest, want+len(padding), more)
	if err != nil {
		return err
	}
	got, err := t.driver.DigestKey(s, pkcs11.CKM_SHA256, h, append(padding, more...))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, expected) {
		return fmt.Errorf("imported key is not of %d bytes: %w", want, ErrDataInvalid)
	}
	return nil
}

// sha256Padding is what SHA-256 appends to a message of n bytes (FIPS 180-4 section 5.1.1).
func sha256Padding(n int) []byte {
	zeros := (sha256.BlockSize - (n+9)%sha256.BlockSize) % sha256.BlockSize
	return binary.BigEndian.AppendUint64(append([]byte{0x80}, make([]byte, zeros)...), uint64(n)*8)
}

// extendSHA256 continues from the digest of a padded message of n bytes, whole blocks.
func extendSHA256(digest []byte, n int, more []byte) ([]byte, error) {
	if len(digest) != sha256.Size {
		return nil, fmt.Errorf("digest of %d bytes: %w", len(digest), ErrModuleBroken)
	}
	// The state as the standard library writes it: what it begins with, the digest as chaining
	// value, a block that is empty, and how many bytes there have been.
	h := sha256.New()
	fresh, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("reading hash state: %w", err)
	}
	const magic = 4
	state := append(bytes.Clone(fresh[:magic]), digest...)
	state = append(state, make([]byte, sha256.BlockSize)...)
	state = binary.BigEndian.AppendUint64(state, uint64(n))
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		return nil, fmt.Errorf("setting hash state: %w", err)
	}
	h.Write(more)
	return h.Sum(nil), nil
}
