package keyops

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/ciphertext"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/policy"
)

// cipherCall is what Encrypt, Decrypt and each half of ReEncrypt ask of one key.
type cipherCall struct {
	operation string
	field     string // of the request that names the algorithm
	data      []byte // plaintext or ciphertext
	context   map[string]string
	algorithm Algorithm // empty = SYMMETRIC_DEFAULT
	dryRun    bool
}

// cipherResult is what one key made of it.
type cipherResult struct {
	data      []byte
	algorithm Algorithm
	material  string // empty for key pairs
}

// Encrypt encrypts a small plaintext: under the key's current material in the token, or
// under the public key of a pair on the host.
func (s *Service) Encrypt(ctx context.Context, caller Caller, in EncryptInput) (EncryptOutput, error) {
	t := target{ref: in.KeyID, tokens: in.GrantTokens, context: in.EncryptionContext, says: saysEncrypting(in.EncryptionAlgorithm)}
	return do(ctx, s, caller, "Encrypt", t, func(ctx context.Context, c *call) (EncryptOutput, error) {
		r, err := s.encrypt(ctx, c.key, cipherCall{c.name, "encryptionAlgorithm", in.Plaintext, in.EncryptionContext, in.EncryptionAlgorithm, in.DryRun})
		if err != nil {
			return EncryptOutput{}, err
		}
		return EncryptOutput{CiphertextBlob: r.data, KeyID: c.key.arn, EncryptionAlgorithm: r.algorithm, KeyMaterialID: r.material}, nil
	})
}

// saysEncrypting is what conditions may ask of an encryption algorithm.
func saysEncrypting(a Algorithm) []say {
	return []say{{policy.EncryptionAlgorithm, string(cmp.Or(a, AlgorithmSymmetricDefault))}}
}

func (s *Service) encrypt(ctx context.Context, k *Key, in cipherCall) (cipherResult, error) {
	if err := k.has(in.operation, EncryptDecrypt, in.algorithm, in.field, AlgorithmSymmetricDefault); err != nil {
		return cipherResult{}, err
	}
	// A dry run of ReEncrypt has no plaintext.
	if in.data != nil || !in.dryRun || in.operation != "ReEncrypt" {
		if err := size("plaintext", in.data, maxPlaintext); err != nil {
			return cipherResult{}, err
		}
	}
	if k.use().pair() {
		return s.encryptRSA(k, in)
	}
	blob, id, err := s.seal(ctx, k, in.data, in.context, in.dryRun)
	return cipherResult{blob, AlgorithmSymmetricDefault, id.String()}, err
}

// seal encrypts under the current material and builds the blob.
func (s *Service) seal(ctx context.Context, k *Key, plaintext []byte, context map[string]string, dryRun bool) ([]byte, material.ID, error) {
	m, err := k.current()
	if err != nil {
		return nil, material.ID{}, err
	}
	header := ciphertext.NewHeader(k.ID, m.ID)
	aad, err := ciphertext.AAD(header, m.ID, context)
	if err != nil {
		return nil, m.ID, fromContext(err)
	}
	if dryRun {
		return nil, m.ID, errDryRun
	}
	if err := s.prove(ctx, k, m); err != nil {
		return nil, m.ID, err
	}
	if err := s.countEncryption(ctx, k, m); err != nil {
		return nil, m.ID, err
	}
	iv, sealed, err := s.token.EncryptGCM(ctx, m.Object, aad, plaintext)
	if err != nil {
		return nil, m.ID, s.tokenFailed(m, fmt.Errorf("encrypting: %w", err))
	}
	header.IV = iv
	blob, err := ciphertext.Build(header, sealed)
	if err != nil {
		// The token answered with an IV or a length that the format does not have.
		return nil, m.ID, internal(err)
	}
	return blob, m.ID, nil
}

// Decrypt decrypts what Encrypt or GenerateDataKey made, in this or in another Region, or
// what anybody has encrypted under the public key of a pair.
func (s *Service) Decrypt(ctx context.Context, caller Caller, in DecryptInput) (DecryptOutput, error) {
	t := s.opens(in.KeyID, in.CiphertextBlob, in.EncryptionContext, in.EncryptionAlgorithm)
	t.tokens = in.GrantTokens
	return do(ctx, s, caller, "Decrypt", t, func(ctx context.Context, c *call) (DecryptOutput, error) {
		r, err := s.decrypt(ctx, c.key, cipherCall{c.name, "encryptionAlgorithm", in.CiphertextBlob, in.EncryptionContext, in.EncryptionAlgorithm, in.DryRun})
		if err != nil {
			return DecryptOutput{}, err
		}
		return DecryptOutput{Plaintext: r.data, KeyID: c.key.arn, EncryptionAlgorithm: r.algorithm, KeyMaterialID: r.material}, nil
	})
}

// opens is the target of a call that opens a ciphertext, which names its key itself unless
// a key pair made it.
func (s *Service) opens(ref string, blob []byte, context map[string]string, a Algorithm) target {
	t := target{ref: ref, context: context, says: saysEncrypting(a)}
	if len(blob) == 0 || len(blob) > maxCiphertext {
		t.invalid = size("ciphertextBlob", blob, maxCiphertext)
		return t
	}
	if ref != "" {
		return t
	}
	if a != "" && a != AlgorithmSymmetricDefault {
		t.invalid = refuse(ErrValidation, "A ciphertext of algorithm %s does not name its key; the request has to.", clip(string(a)))
		return t
	}
	header, _, err := ciphertext.Parse(blob)
	if err != nil {
		t.invalid = fromBlob(err)
		return t
	}
	t.blob = header.KeyID()
	return t
}

func (s *Service) decrypt(ctx context.Context, k *Key, in cipherCall) (cipherResult, error) {
	if err := k.has(in.operation, EncryptDecrypt, in.algorithm, in.field, AlgorithmSymmetricDefault); err != nil {
		return cipherResult{}, err
	}
	if k.use().pair() {
		return s.decryptRSA(ctx, k, in)
	}
	header, sealed, err := ciphertext.Parse(in.data)
	if err != nil {
		return cipherResult{}, fromBlob(err)
	}
	if header.KeyID() != k.ID {
		return cipherResult{}, refuse(ErrIncorrectKey, "The key ID in the request does not identify a CMK that can perform this operation.")
	}
	m, err := s.materialOf(k, header)
	if err != nil {
		return cipherResult{}, err
	}
	aad, err := ciphertext.AAD(header, m.ID, in.context)
	if err != nil {
		return cipherResult{}, fromBlob(err)
	}
	if in.dryRun {
		return cipherResult{}, errDryRun
	}
	if err := s.prove(ctx, k, m); err != nil {
		return cipherResult{}, err
	}
	plaintext, err := s.token.DecryptGCM(ctx, m.Object, header.IV, aad, sealed)
	if errors.Is(err, hsm.ErrDataInvalid) {
		return cipherResult{}, fromBlob(err)
	}
	if err != nil {
		return cipherResult{}, s.tokenFailed(m, fmt.Errorf("decrypting: %w", err))
	}
	return cipherResult{plaintext, AlgorithmSymmetricDefault, m.ID.String()}, nil
}

// materialOf finds the material that a ciphertext names. What this Region holds decrypts,
// pending or not. What the key lists and this Region lacks may still arrive, so the caller
// is told to repeat the call; material IDs are public, so that tells nobody anything.
func (s *Service) materialOf(k *Key, h ciphertext.Header) (*Material, error) {
	if m := k.byPrefix(h.Material); m != nil && !m.Lost {
		return m, nil
	} else if m != nil || s.mayArrive(k, h.Material) {
		return nil, refuse(ErrKeyUnavailable, "The key material that encrypted this is not in Region %s now; the call can be repeated.", s.self.Region)
	}
	return nil, fromBlob(fmt.Errorf("key %s has no material %x", k.ID, h.Material))
}

// size refuses a field that is empty or too long.
func size(field string, b []byte, limit int) error {
	switch {
	case len(b) == 0:
		return invalid(field, "have length greater than or equal to 1")
	case len(b) > limit:
		return invalid(field, "have length less than or equal to %d", limit)
	}
	return nil
}
