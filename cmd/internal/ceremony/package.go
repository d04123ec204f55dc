package ceremony

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// errPackage means a package that is not the answer to this process's offer.
var errPackage = errors.New("package not valid")

// Package is a source's answer to one offer: its transport keys, each wrapped for the
// establishment key, each with a proof that it is the key that the source holds.
type Package struct {
	Offer []byte // SHA-384 of the signed offer
	Keys  []PackedKey
}

// PackedKey is one transport key in a package.
type PackedKey struct {
	Class   hsm.Class
	Wrapped []byte
	Proof   hsm.Proof
}

func (p Package) payload() []byte {
	var w wire.Writer
	w.Bytes(p.Offer)
	w.Count(len(p.Keys))
	for _, k := range p.Keys {
		w.String(string(k.Class))
		w.Bytes(k.Wrapped)
		w.Bytes(k.Proof.Wrapped)
		w.Bytes(k.Proof.Answer)
	}
	return w.Out()
}

func parsePackage(b []byte) (Package, error) {
	r := wire.NewReader(b)
	p := Package{Offer: r.Bytes(48)}
	for range r.Count(len(hsm.Classes)) {
		p.Keys = append(p.Keys, PackedKey{
			Class:   hsm.Class(r.String(32)),
			Wrapped: r.Bytes(1024),
			Proof:   hsm.Proof{Wrapped: r.Bytes(4096), Answer: r.Bytes(1024)}, // a wrapped RSA-2048 key has 1,232 bytes
		})
	}
	return p, r.Done()
}

// openPackage verifies a package as the destination that made the offer.
func openPackage(f statement.File, source region.Descriptor, offer statement.Signed, classes []hsm.Class) (Package, statement.Signed, error) {
	signed, err := f.Signed(statement.CeremonyPackage)
	if err != nil {
		return Package{}, signed, fmt.Errorf("%w: %w", errPackage, err)
	}
	if err := source.Verify(signed); err != nil {
		return Package{}, signed, fmt.Errorf("%w: %w", errPackage, err)
	}
	p, err := parsePackage(signed.Payload)
	if err != nil {
		return p, signed, fmt.Errorf("%w: %w", errPackage, err)
	}
	if !bytes.Equal(p.Offer, offer.Hash()) {
		return p, signed, fmt.Errorf("%w: it answers another offer", errPackage)
	}
	var got []hsm.Class
	for _, k := range p.Keys {
		got = append(got, k.Class)
	}
	if !slices.Equal(got, classes) {
		return p, signed, fmt.Errorf("%w: keys of classes %v, want %v", errPackage, got, classes)
	}
	return p, signed, nil
}
