// Package hsmtest has what tests of token users need: [Fake], an in-memory token that
// injects faults and asserts invariants, and [Suite], the conformance suite that the fake
// and every real token and profile must pass.
//
// Nothing here belongs in a production binary: the fake holds keys in the process.
package hsmtest

import (
	"context"
	"crypto"

	"github.com/keyferry/keyferry/hsm"
)

// Token is the method set of *hsm.Token that its users call. Consumers declare narrower
// interfaces of their own; this one is what Suite checks.
type Token interface {
	Info() hsm.Info
	Capabilities() hsm.Capabilities
	Generate(ctx context.Context, spec hsm.Spec, id hsm.ID) (spki []byte, err error)
	Destroy(ctx context.Context, id hsm.ID) error
	Lookup(ctx context.Context, id hsm.ID) (hsm.Object, error)
	Present(ctx context.Context, id hsm.ID) (hsm.Object, error)
	Objects() []hsm.Object
	Quarantined() []hsm.Quarantined
	Rescan(ctx context.Context) error
	EncryptGCM(ctx context.Context, id hsm.ID, aad, plaintext []byte) (iv, sealed []byte, err error)
	DecryptGCM(ctx context.Context, id hsm.ID, iv, aad, sealed []byte) (plaintext []byte, err error)
	EncryptBlocks(ctx context.Context, id hsm.ID, blocks []byte) ([]byte, error)
	MAC(ctx context.Context, id hsm.ID, message []byte) ([]byte, error)
	Sign(ctx context.Context, id hsm.ID, scheme hsm.SignScheme, digest []byte) (signature []byte, err error)
	DecryptOAEP(ctx context.Context, id hsm.ID, hash crypto.Hash, ciphertext []byte) (plaintext []byte, err error)
	Agree(ctx context.Context, id hsm.ID, peer []byte) (secret []byte, err error)
	GenerateImportKey(ctx context.Context, spec hsm.Spec, id hsm.ID) (spki []byte, err error)
	ImportUnwrap(ctx context.Context, wrapping hsm.ID, material hsm.Spec, id hsm.ID, blob []byte) (spki []byte, err error)
	Random(ctx context.Context, n int) ([]byte, error)
	Wrap(ctx context.Context, transport, material hsm.ID) ([]byte, error)
	Unwrap(ctx context.Context, transport hsm.ID, spec hsm.Spec, id hsm.ID, wrapped []byte) error
	SelfTest(ctx context.Context) (hsm.Report, error)
	Health(ctx context.Context) error
	Calls() map[string]uint64
	Signer(ctx context.Context, id hsm.ID, spki []byte) (crypto.Signer, error)
	Close()
}

var (
	_ Token = (*hsm.Token)(nil)
	_ Token = (*Fake)(nil)
)
