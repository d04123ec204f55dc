// Package ciphertext is the format of what Encrypt and GenerateDataKey return for symmetric
// keys, and the additional authenticated data that binds it.
//
//	version 1 | flags 1 | key 16 | material prefix 16 | IV length 1 | IV 12 or 16 | ciphertext | tag 16
//
// A blob names its key and its material, so Decrypt needs nothing else, in any Region. It is
// not trusted: everything in it but the IV is authenticated by the token's GCM tag, through
// AAD, and the IV by GCM itself. The IV stays outside the AAD because some tokens make it
// during the call. There is one encoding of each value: what Parse accepts, Build gives back.
//
// The functions are pure and safe for concurrent use. Committed vectors pin the format; a
// change means another version byte.
package ciphertext

import (
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
)

// Version is the first byte of every blob of this format.
const Version = 1

// Sizes in bytes.
const (
	MaxSize = 6144 // of a whole blob, as AWS clients and servers bound it
	TagSize = 16   // of the GCM tag at a blob's end

	boundSize  = 1 + 1 + 16 + material.PrefixSize // the leading bytes that AAD covers
	headerSize = boundSize + 1                    // those and the IV's length
)

// ErrInvalid is wrapped by every error of this package. To a caller, whatever is wrong with
// a blob is one InvalidCiphertext.
var ErrInvalid = errors.New("invalid ciphertext")

// Flags is the second byte of a blob. Bits without a name are zero.
type Flags byte

// FlagMultiRegion says that the key is a multi-Region key. The sixteen bytes alone do not:
// a UUID and an mrk- ID may have the same ones.
const FlagMultiRegion Flags = 1

// Header is what a blob says in clear.
type Header struct {
	Flags    Flags
	Key      [16]byte
	Material [material.PrefixSize]byte
	IV       []byte // 12 or 16 bytes; AAD does not need it
}

// NewHeader returns the header, without its IV, of what the given material encrypts.
func NewHeader(key arn.KeyID, id material.ID) Header {
	h := Header{Key: key.Bytes(), Material: id.Prefix()}
	if key.MultiRegion() {
		h.Flags |= FlagMultiRegion
	}
	return h
}

// KeyID returns the ID of the key that encrypted.
func (h Header) KeyID() arn.KeyID {
	return arn.KeyIDFromBytes(h.Key, h.Flags&FlagMultiRegion != 0)
}

func (h Header) appendBound(b []byte) []byte {
	b = append(b, Version, byte(h.Flags))
	b = append(b, h.Key[:]...)
	return append(b, h.Material[:]...)
}

// Build returns the blob of a complete header and of the token's output, which is the
// ciphertext followed by its tag.
func Build(h Header, sealed []byte) ([]byte, error) {
	if err := checkLengths(len(h.IV), len(sealed)); err != nil {
		return nil, err
	}
	if err := checkFlags(h.Flags); err != nil {
		return nil, err
	}
	blob := make([]byte, 0, headerSize+len(h.IV)+len(sealed))
	blob = h.appendBound(blob)
	blob = append(blob, byte(len(h.IV)))
	blob = append(blob, h.IV...)
	return append(blob, sealed...), nil
}

// Parse splits a blob. The results share its memory.
func Parse(blob []byte) (Header, []byte, error) {
	if len(blob) < headerSize {
		return Header{}, nil, fmt.Errorf("%w: header cut short at %d bytes", ErrInvalid, len(blob))
	}
	if blob[0] != Version {
		return Header{}, nil, fmt.Errorf("%w: version %d unknown", ErrInvalid, blob[0])
	}
	h := Header{Flags: Flags(blob[1])}
	if err := checkFlags(h.Flags); err != nil {
		return Header{}, nil, err
	}
	copy(h.Key[:], blob[2:18])
	copy(h.Material[:], blob[18:boundSize])
	ivLen := int(blob[boundSize])
	rest := blob[headerSize:]
	if err := checkLengths(ivLen, len(rest)-ivLen); err != nil {
		return Header{}, nil, err
	}
	h.IV = rest[:ivLen:ivLen]
	return h, rest[ivLen:], nil
}

func checkFlags(f Flags) error {
	if unknown := f &^ FlagMultiRegion; unknown != 0 {
		return fmt.Errorf("%w: flags %#02x unknown", ErrInvalid, byte(unknown))
	}
	return nil
}

func checkLengths(iv, sealed int) error {
	switch {
	case iv != 12 && iv != 16:
		return fmt.Errorf("%w: IV of %d bytes, want 12 or 16", ErrInvalid, iv)
	case sealed < TagSize:
		return fmt.Errorf("%w: tag cut short", ErrInvalid)
	case headerSize+iv+sealed > MaxSize:
		return fmt.Errorf("%w: %d bytes, at most %d allowed", ErrInvalid, headerSize+iv+sealed, MaxSize)
	}
	return nil
}
