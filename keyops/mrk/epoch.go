package mrk

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Nonce makes an epoch unique even if two Regions, or one Region and its restored self,
// open one with the same number.
type Nonce [16]byte

// NewNonce reads a nonce from r, crypto/rand.Reader in production.
func NewNonce(r io.Reader) (Nonce, error) {
	var n Nonce
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return Nonce{}, fmt.Errorf("reading a nonce: %w", err)
	}
	return n, nil
}

// Hash is the SHA-256 of a fact's payload. The signature is not hashed: signing the same
// words again makes no other fact.
type Hash [sha256.Size]byte

// String returns the hash as hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether the hash was never set.
func (h Hash) IsZero() bool { return h == Hash{} }

// Line is a sequence of epochs that one creation (generation 0) or one forced promotion
// (a higher generation) opened. A later line outranks every number of an earlier one.
type Line struct {
	Generation uint64
	Region     region.Name
	Nonce      Nonce
}

// Compare orders lines by generation, Region, nonce.
func (l Line) Compare(o Line) int {
	return cmp.Or(
		cmp.Compare(l.Generation, o.Generation),
		strings.Compare(string(l.Region), string(o.Region)),
		bytes.Compare(l.Nonce[:], o.Nonce[:]),
	)
}

// Epoch is one Region's term as the primary Region. Two epochs are the same term only if
// they are equal; Compare orders them.
type Epoch struct {
	Line   Line
	Number uint64
	Region region.Name // the primary Region of this term
	Nonce  Nonce
}

// Compare orders epochs by line, then number. Epochs that compare as 0 without being equal
// are a fork, which is refused where it is seen.
func (e Epoch) Compare(o Epoch) int {
	return cmp.Or(e.Line.Compare(o.Line), cmp.Compare(e.Number, o.Number))
}

// IsZero reports whether the epoch was never set.
func (e Epoch) IsZero() bool { return e == Epoch{} }

// String returns generation.number@region, for logs.
func (e Epoch) String() string {
	return fmt.Sprintf("%d.%d@%s", e.Line.Generation, e.Number, e.Region)
}

func (e Epoch) encode(w *wire.Writer) {
	w.Uint(e.Line.Generation)
	w.String(string(e.Line.Region))
	w.Bytes(e.Line.Nonce[:])
	w.Uint(e.Number)
	w.String(string(e.Region))
	w.Bytes(e.Nonce[:])
}

func decodeEpoch(r *wire.Reader) Epoch {
	var e Epoch
	e.Line.Generation = decodeNumber(r)
	e.Line.Region = decodeRegion(r)
	r.Fixed(e.Line.Nonce[:])
	e.Number = decodeNumber(r)
	e.Region = decodeRegion(r)
	r.Fixed(e.Nonce[:])
	return e
}

// decodeOptionalEpoch reads a flag and, if it is set, an epoch.
func decodeOptionalEpoch(r *wire.Reader) Epoch {
	if !r.Bool() {
		return Epoch{}
	}
	return decodeEpoch(r)
}

func (e Epoch) encodeOptional(w *wire.Writer) {
	w.Bool(!e.IsZero())
	if !e.IsZero() {
		e.encode(w)
	}
}
