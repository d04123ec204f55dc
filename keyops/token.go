package keyops

import (
	"context"

	"github.com/keyferry/keyferry/hsm"
)

// Token is what this package needs of a token; *hsm.Token is one. Its errors are those of
// package hsm. A method whose error wraps hsm.ErrOutcomeUnknown may have been applied.
type Token interface {
	Info() hsm.Info
	Capabilities() hsm.Capabilities
	// Objects is a snapshot of what the token holds of ours; Lookup asks for one object,
	// and on a miss looks into the token itself, at a limited rate.
	Objects() []hsm.Object
	Lookup(ctx context.Context, id hsm.ID) (hsm.Object, error)
	Generate(ctx context.Context, spec hsm.Spec, id hsm.ID) (spki []byte, err error)
	// Destroy succeeds when the object is not there.
	Destroy(ctx context.Context, id hsm.ID) error
	EncryptGCM(ctx context.Context, id hsm.ID, aad, plaintext []byte) (iv, sealed []byte, err error)
	DecryptGCM(ctx context.Context, id hsm.ID, iv, aad, sealed []byte) (plaintext []byte, err error)
	EncryptBlocks(ctx context.Context, id hsm.ID, blocks []byte) ([]byte, error)
	MAC(ctx context.Context, id hsm.ID, message []byte) ([]byte, error)
	Sign(ctx context.Context, id hsm.ID, digest []byte) (signature []byte, err error)
	Random(ctx context.Context, n int) ([]byte, error)
	Wrap(ctx context.Context, transport, material hsm.ID) ([]byte, error)
	Unwrap(ctx context.Context, transport hsm.ID, spec hsm.Spec, id hsm.ID, wrapped []byte) error
}

var _ Token = (*hsm.Token)(nil)
