package mrk

import (
	"fmt"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Blob is one material, wrapped inside the source's token for one incarnation of a key in
// one destination. It is made when it is sent and never stored. Nobody signs it: the
// destination recomputes the material ID in its own token.
type Blob struct {
	Key         arn.KeyID
	Material    material.ID
	Source      region.Name
	Instance    region.InstanceID // of Source
	Destination region.Name
	ToInstance  region.InstanceID
	Incarnation uint64 // of the key in Destination
	Class       string // of the transport key: aes, mac or private
	Epoch       uint64 // of the transport key
	Algorithm   string // the wrap algorithm's name, never a mechanism code
	Length      uint64 // of the value in bytes, for tokens that must be told; 0 for private keys
	Wrapped     []byte
}

// Marshal returns the one encoding.
func (b Blob) Marshal() []byte {
	var w wire.Writer
	w.Uint(formatVersion)
	w.String(string(b.Key))
	w.Bytes(b.Material[:])
	w.String(string(b.Source))
	w.String(string(b.Instance))
	w.String(string(b.Destination))
	w.String(string(b.ToInstance))
	w.Uint(b.Incarnation)
	w.String(b.Class)
	w.Uint(b.Epoch)
	w.String(b.Algorithm)
	w.Uint(b.Length)
	w.Bytes(b.Wrapped)
	return w.Out()
}

// ParseBlob reads what Marshal wrote.
func ParseBlob(p []byte) (Blob, error) {
	r := wire.NewReader(p)
	decodeVersion(r)
	b := Blob{
		Key: decodeKeyID(r), Material: decodeMaterialID(r),
		Source: decodeRegion(r), Instance: decodeInstance(r),
		Destination: decodeRegion(r), ToInstance: decodeInstance(r), Incarnation: decodeNumber(r),
		Class: r.String(maxName), Epoch: r.Uint(), Algorithm: r.String(maxName), Length: r.Uint(),
		Wrapped: r.Bytes(maxWrapped),
	}
	if r.Err() == nil && (b.Incarnation == 0 || b.Epoch == 0 || len(b.Wrapped) == 0) {
		r.Fail("blob of %d bytes for incarnation %d under transport epoch %d", len(b.Wrapped), b.Incarnation, b.Epoch)
	}
	if err := r.Done(); err != nil {
		return Blob{}, fmt.Errorf("parsing blob: %w", err)
	}
	return b, nil
}
