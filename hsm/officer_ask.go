package hsm

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/keyferry/keyferry/hsm/spki"
)

// answerOf is what a key can be told by elsewhere: what a secret key computes of proofText,
// or a pair's SPKI.
func answerOf(c calls, spec Spec, key pkcs11.ObjectHandle, spki []byte) ([]byte, error) {
	switch {
	case spec.Algorithm == AES256:
		b, err := c.encrypt(rawMechanism{code: pkcs11.CKM_AES_ECB}, key, proofText)
		return b, wrapError("C_Encrypt", err)
	case spec.Algorithm.Secret():
		b, err := c.sign(rawMechanism{code: secretKeys[spec.Algorithm].mac}, key, proofText)
		return b, wrapError("C_Sign", err)
	}
	return spki, nil
}

// isKey reports whether this key is the one that gave the answer. An SPKI is the other
// side's word, so a private key must do with something new what only its other half checks.
func isKey(c calls, p Profile, spec Spec, key pkcs11.ObjectHandle, answer []byte) (bool, error) {
	if spec.Algorithm.Secret() {
		own, err := answerOf(c, spec, key, nil)
		return err == nil && bytes.Equal(own, answer), err
	}
	public, err := spki.Parse(answer)
	if err != nil {
		return false, fmt.Errorf("public half: %w: %w", ErrDataInvalid, err)
	}
	nonce := make([]byte, 32)
	rand.Read(nonce)
	digest := sha256.Sum256(nonce)
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		if spec.Usage == UsageAgree {
			return agreesWith(c, p, key, public)
		}
		raw, err := c.sign(rawMechanism{code: pkcs11.CKM_ECDSA}, key, digest[:])
		if err != nil {
			return false, wrapError("C_Sign", err)
		}
		signature, err := signatureASN1(raw, len(raw)/2)
		return err == nil && spki.VerifyECDSA(public, digest[:], signature), err
	case *rsa.PublicKey:
		if spec.Usage == UsageDecrypt {
			return opensFor(c, p, key, public, nonce)
		}
		input := append(bytes.Clone(signHashes[crypto.SHA256]), digest[:]...)
		signature, err := c.sign(rawMechanism{code: pkcs11.CKM_RSA_PKCS}, key, input)
		return err == nil && rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil, wrapError("C_Sign", err)
	}
	return false, nil
}

// opensFor encrypts for the public key and lets the private one open it.
func opensFor(c calls, p Profile, key pkcs11.ObjectHandle, public *rsa.PublicKey, nonce []byte) (bool, error) {
	hash := crypto.SHA256
	if p.OAEP == OAEPSHA1 {
		hash = crypto.SHA1
	}
	sealed, err := rsa.EncryptOAEP(hash.New(), rand.Reader, public, nonce, nil)
	if err != nil {
		return false, fmt.Errorf("encrypting for the public half: %w: %w", ErrDataInvalid, err)
	}
	opened, err := c.decrypt(p.oaepMechanism(), key, sealed)
	return err == nil && bytes.Equal(opened, nonce), wrapError("C_Decrypt", err)
}

// agreesWith makes a fresh pair on the host and compares both sides of the agreement.
func agreesWith(c calls, p Profile, key pkcs11.ObjectHandle, public *ecdsa.PublicKey) (bool, error) {
	other, err := public.ECDH()
	if err != nil {
		return false, err
	}
	own, err := other.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return false, err
	}
	want, err := own.ECDH(other)
	if err != nil {
		return false, err
	}
	got, err := agreeRaw(c, p, key, own.PublicKey())
	return err == nil && bytes.Equal(got, want), err
}

func agreeRaw(c calls, p Profile, key pkcs11.ObjectHandle, peer *ecdh.PublicKey) ([]byte, error) {
	m, err := p.ecdh(peer.Bytes())
	if err != nil {
		return nil, err
	}
	h, err := c.deriveKey(m, key, agreedTemplate((len(peer.Bytes())-1)/2))
	if err != nil {
		return nil, wrapError("C_DeriveKey", err)
	}
	secret, err := c.attribute(h, pkcs11.CKA_VALUE)
	return secret, errors.Join(wrapError("C_GetAttributeValue", err), wrapError("C_DestroyObject", c.destroy(h)))
}
