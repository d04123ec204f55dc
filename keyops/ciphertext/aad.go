package ciphertext

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/wire"
)

// MaxContextSize bounds an encryption context in its canonical form. AWS publishes no limit;
// Alibaba Cloud KMS has 8,192 characters.
const MaxContextSize = 8192

// ErrContext is wrapped, beside ErrInvalid, by what is wrong with an encryption context, so
// that Encrypt can call it the caller's mistake.
var ErrContext = fmt.Errorf("%w: encryption context", ErrInvalid)

// AAD returns the additional authenticated data of a blob: its leading 34 bytes, the whole
// material ID, of which the blob has only a prefix, and the canonical encryption context.
// It refuses a material that is not the header's.
func AAD(h Header, id material.ID, context map[string]string) ([]byte, error) {
	if id.Prefix() != h.Material {
		return nil, fmt.Errorf("%w: material %s is not the one of its header", ErrInvalid, id)
	}
	pairs, err := canonical(context)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, boundSize+len(id)+len(pairs))
	b = h.appendBound(b)
	b = append(b, id[:]...)
	return append(b, pairs...), nil
}

// canonical returns the number of pairs, then key and value of each, in bytewise order of
// the keys. Strings are taken byte for byte: normalising would make two contexts one.
func canonical(context map[string]string) ([]byte, error) {
	var few [8]string // most contexts fit, and cost no allocation
	keys := few[:0]
	for k := range context {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var w wire.Writer
	w.Count(len(keys))
	for _, k := range keys {
		v := context[k]
		if k == "" {
			return nil, fmt.Errorf("%w has a pair with an empty key", ErrContext)
		}
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			// Encoders elsewhere replace broken bytes, after which two contexts are one.
			return nil, fmt.Errorf("%w has a pair that is not valid UTF-8", ErrContext)
		}
		w.String(k)
		w.String(v)
		if len(w.Out()) > MaxContextSize {
			return nil, fmt.Errorf("%w is larger than %d bytes in its canonical form", ErrContext, MaxContextSize)
		}
	}
	return w.Out(), nil
}
