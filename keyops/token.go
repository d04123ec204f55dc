package keyops

import (
	"context"
	"crypto"

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
	// Present asks the token itself whether the object is there, each time.
	Present(ctx context.Context, id hsm.ID) (hsm.Object, error)
	Generate(ctx context.Context, spec hsm.Spec, id hsm.ID) (spki []byte, err error)
	// Destroy succeeds when the object is not there.
	Destroy(ctx context.Context, id hsm.ID) error
	EncryptGCM(ctx context.Context, id hsm.ID, aad, plaintext []byte) (iv, sealed []byte, err error)
	DecryptGCM(ctx context.Context, id hsm.ID, iv, aad, sealed []byte) (plaintext []byte, err error)
	EncryptBlocks(ctx context.Context, id hsm.ID, blocks []byte) ([]byte, error)
	MAC(ctx context.Context, id hsm.ID, message []byte) ([]byte, error)
	// Sign signs a digest; DecryptOAEP opens RSA-OAEP with an empty label; Agree is ECDH with
	// an uncompressed point, and no derivation.
	Sign(ctx context.Context, id hsm.ID, scheme hsm.SignScheme, digest []byte) (signature []byte, err error)
	DecryptOAEP(ctx context.Context, id hsm.ID, hash crypto.Hash, ciphertext []byte) (plaintext []byte, err error)
	Agree(ctx context.Context, id hsm.ID, peer []byte) (secret []byte, err error)
	Random(ctx context.Context, n int) ([]byte, error)
	Wrap(ctx context.Context, transport, material hsm.ID) ([]byte, error)
	Unwrap(ctx context.Context, transport hsm.ID, spec hsm.Spec, id hsm.ID, wrapped []byte) error
	// GenerateImportKey makes the key under which a customer wraps what spec.Import says, and
	// ImportUnwrap makes material of it; the SPKI is nil unless the token shows one, which it
	// does of RSA keys. Bytes that do not fit are hsm.ErrDataInvalid.
	GenerateImportKey(ctx context.Context, spec hsm.Spec, id hsm.ID) (spki []byte, err error)
	ImportUnwrap(ctx context.Context, wrapping hsm.ID, material hsm.Spec, id hsm.ID, blob []byte) (spki []byte, err error)
}

var _ Token = (*hsm.Token)(nil)
