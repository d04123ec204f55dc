package message

import (
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/wire"
)

// Bounds of bodies.
const (
	Buckets    = 256
	MaxEntries = 8000 // of one answer to a digest
	MaxBlobs   = 16   // of one message
	maxBlob    = 32 << 10
	MaxEpochs  = 16 // of one answer
	MaxText    = 1024
)

func decodeKey(r *wire.Reader) arn.KeyID {
	id, err := arn.ParseKeyID(r.String(64))
	if r.Err() == nil && (err != nil || !id.MultiRegion()) {
		r.Fail("not a multi-Region key ID")
	}
	return id
}

func decodePrincipal(r *wire.Reader) arn.Principal {
	p, err := arn.ParsePrincipal(r.String(1024))
	if err != nil && r.Err() == nil {
		r.Fail("%v", err)
	}
	return p
}
