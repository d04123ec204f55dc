package keyops

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // RSAES_OAEP_SHA_1, where a collision helps nobody
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/hsm"
)

// encryptRSA encrypts on the host, under the public key that was sealed when the key was
// made: the token's public objects can be replaced by anybody.
func (s *Service) encryptRSA(k *Key, in cipherCall) (cipherResult, error) {
	_, public, err := k.pairRSA(in) // what this Region could not decrypt it does not encrypt either
	if err != nil {
		return cipherResult{}, err
	}
	hash := oaepHashes[in.algorithm]
	if limit := oaepLimit(public, hash); len(in.data) > limit {
		return cipherResult{}, refuse(ErrValidation, "Algorithm %s and key spec %s cannot encrypt data larger than %d bytes.", in.algorithm, k.Spec, limit)
	}
	if in.dryRun {
		return cipherResult{}, errDryRun
	}
	blob, err := rsa.EncryptOAEP(hash.New(), rand.Reader, public, in.data, nil)
	if err != nil {
		return cipherResult{}, fmt.Errorf("encrypting under a public key: %w", err)
	}
	return cipherResult{data: blob, algorithm: in.algorithm}, nil
}

// pairRSA returns the current material of an RSA key, and its public key.
func (k *Key) pairRSA(in cipherCall) (*Material, *rsa.PublicKey, error) {
	if err := noContext(k, in.context); err != nil {
		return nil, nil, err
	}
	m, err := k.current()
	if err != nil {
		return nil, nil, err
	}
	public, err := k.sealedRSA(m)
	return m, public, err
}

// decryptRSA decrypts in the token. Whatever is wrong with a ciphertext is one answer, or
// the answers would add up to the plaintext (Manger, CRYPTO 2001).
func (s *Service) decryptRSA(ctx context.Context, k *Key, in cipherCall) (cipherResult, error) {
	m, public, err := k.pairRSA(in)
	if err != nil {
		return cipherResult{}, err
	}
	if len(in.data) != public.Size() {
		return cipherResult{}, fromBlob(fmt.Errorf("%d bytes under a modulus of %d", len(in.data), public.Size()))
	}
	if in.dryRun {
		return cipherResult{}, errDryRun
	}
	if err := s.prove(ctx, k, m); err != nil {
		return cipherResult{}, err
	}
	plaintext, err := s.token.DecryptOAEP(ctx, m.Object, oaepHashes[in.algorithm], in.data)
	if errors.Is(err, hsm.ErrDataInvalid) {
		return cipherResult{}, fromBlob(err)
	}
	if err != nil {
		return cipherResult{}, s.tokenFailed(m, fmt.Errorf("decrypting: %w", err))
	}
	return cipherResult{data: plaintext, algorithm: in.algorithm}, nil
}

// oaepHashes is what RSAES_OAEP hashes with, in both places; its label is empty.
var oaepHashes = map[Algorithm]crypto.Hash{
	AlgorithmOAEPSHA1:   crypto.SHA1,
	AlgorithmOAEPSHA256: crypto.SHA256,
}

// oaepLimit is how much one encryption takes (RFC 8017, 7.1.1).
func oaepLimit(public *rsa.PublicKey, hash crypto.Hash) int { return public.Size() - 2*hash.Size() - 2 }

// noContext refuses an encryption context that nothing would bind: OAEP authenticates none.
func noContext(k *Key, context map[string]string) error {
	if len(context) == 0 {
		return nil
	}
	return refuse(ErrValidation, "An encryption context is not supported with key spec %s: only symmetric keys bind it to the ciphertext. Leave it out.", k.Spec)
}
