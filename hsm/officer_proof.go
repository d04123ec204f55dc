package hsm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"
)

// Proof shows that both ends hold the same transport key: a throwaway key of the class,
// wrapped at the source, and what that key answers. The throwaway key is a session object
// at both ends and never holds anything.
type Proof struct {
	Wrapped []byte
	Answer  []byte // AES: two encrypted blocks; HMAC: a MAC; key pairs: the SPKI
}

// proofText is what throwaway keys are asked; 32 bytes, so that it is two AES blocks.
var proofText = []byte("keyferry/transport-proof/v1\x00\x00\x00\x00\x00")

// MakeProof wraps a fresh throwaway key under the source transport key id.
func (c *Ceremony) MakeProof(class Class, id ID) (Proof, error) {
	source, err := c.handle(id)
	if err != nil {
		return Proof{}, err
	}
	key, spki, err := standIn(c.raw, carried[class], c.profile)
	if err != nil {
		return Proof{}, fmt.Errorf("making throwaway key: %w", err)
	}
	wrapped, err := c.raw.wrapKey(rawMechanism{code: c.profile.wrapMechanism()}, source, key)
	if err != nil {
		return Proof{}, fmt.Errorf("wrapping throwaway key of class %q: %w", class, wrapError("C_WrapKey", err))
	}
	answer := spki
	if class != ClassPrivate {
		if answer, err = ask(c.raw, class, key, proofText); err != nil {
			return Proof{}, err
		}
	}
	return Proof{Wrapped: wrapped, Answer: answer}, wrapError("C_DestroyObject", c.raw.destroy(key))
}

// CheckProof unwraps the throwaway key with the destination transport key id and asks it.
func (c *Ceremony) CheckProof(class Class, id ID, p Proof) error {
	destination, err := c.handle(id)
	if err != nil {
		return err
	}
	t, err := sessionTemplate(carried[class], c.profile, HowUnwrap)
	if err != nil {
		return err
	}
	key, err := c.raw.unwrapKey(rawMechanism{code: c.profile.wrapMechanism()}, destination, p.Wrapped, t)
	if err != nil {
		return fmt.Errorf("unwrapping throwaway key of class %q: %w", class, wrapError("C_UnwrapKey", err))
	}
	question := proofText
	if class == ClassPrivate { // an SPKI is the sender's word: the key must sign something new
		question = make([]byte, 32)
		rand.Read(question)
	}
	answer, err := ask(c.raw, class, key, question)
	if err != nil {
		return err
	}
	if !sameAnswer(class, question, answer, p.Answer) {
		return fmt.Errorf("throwaway key of class %q answers differently here: %w", class, ErrDataInvalid)
	}
	return wrapError("C_DestroyObject", c.raw.destroy(key))
}

// ask uses a key of one class for what it is for.
func ask(c calls, class Class, key pkcs11.ObjectHandle, question []byte) ([]byte, error) {
	switch class {
	case ClassAES:
		b, err := c.encrypt(rawMechanism{code: pkcs11.CKM_AES_ECB}, key, question)
		return b, wrapError("C_Encrypt", err)
	case ClassMAC:
		b, err := c.sign(rawMechanism{code: pkcs11.CKM_SHA256_HMAC}, key, question)
		return b, wrapError("C_Sign", err)
	}
	b, err := c.sign(rawMechanism{code: pkcs11.CKM_ECDSA}, key, question)
	return b, wrapError("C_Sign", err)
}

// sameAnswer compares an answer with what the source said: the same bytes for secret keys,
// a signature under the SPKI for key pairs.
func sameAnswer(class Class, question, answer, said []byte) bool {
	if class != ClassPrivate {
		return bytes.Equal(answer, said)
	}
	pub, err := x509.ParsePKIXPublicKey(said)
	if err != nil {
		return false
	}
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok || len(answer) == 0 || len(answer)%2 != 0 {
		return false
	}
	n := len(answer) / 2
	return ecdsa.Verify(key, question, new(big.Int).SetBytes(answer[:n]), new(big.Int).SetBytes(answer[n:]))
}

// standIn makes a key as spec says, except that it dies with the session, and returns the
// SPKI of a pair.
func standIn(c calls, spec Spec, p Profile) (pkcs11.ObjectHandle, []byte, error) {
	t, err := sessionTemplate(spec, p, HowGenerate)
	if err != nil {
		return 0, nil, err
	}
	return generate(c, spec, p, t)
}

// generate makes a key of spec's kind from a template that may differ from the role's.
func generate(c calls, spec Spec, p Profile, t []Attribute) (pkcs11.ObjectHandle, []byte, error) {
	switch spec.Algorithm {
	case AES256, HMACSHA256:
		code := uint(pkcs11.CKM_AES_KEY_GEN)
		if spec.Algorithm == HMACSHA256 {
			code = pkcs11.CKM_GENERIC_SECRET_KEY_GEN
		}
		h, err := c.generateKey(rawMechanism{code: code}, t)
		return h, nil, wrapError("C_GenerateKey", err)
	}
	code := uint(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN)
	if curves[spec.Algorithm] != nil {
		code = pkcs11.CKM_EC_KEY_PAIR_GEN
	}
	public, err := Template(spec, NewID(), p, HowPublicHalf)
	if err != nil {
		return 0, nil, err
	}
	pub, priv, err := c.generateKeyPair(rawMechanism{code: code}, public, t)
	if err != nil {
		return 0, nil, wrapError("C_GenerateKeyPair", err)
	}
	spki, err := publicSPKI(spec.Algorithm, func(typ uint) ([]byte, error) {
		b, err := c.attribute(pub, typ)
		return b, wrapError("C_GetAttributeValue", err)
	})
	if err != nil {
		return 0, nil, err
	}
	return priv, spki, wrapError("C_DestroyObject", c.destroy(pub))
}

// sessionTemplate is a role's template with CKA_TOKEN=false.
func sessionTemplate(spec Spec, p Profile, how How) ([]Attribute, error) {
	t, err := Template(spec, NewID(), p, how)
	if err != nil {
		return nil, err
	}
	return with(t, flag(pkcs11.CKA_TOKEN, false)), nil
}

// with returns the template with the entry of a's type replaced by a.
func with(t []Attribute, a Attribute) []Attribute {
	out := make([]Attribute, len(t))
	for i, x := range t {
		if x.Type == a.Type {
			x = a
		}
		out[i] = x
	}
	return out
}

// without returns the template without the entry of the type.
func without(t []Attribute, typ uint) []Attribute {
	var out []Attribute
	for _, x := range t {
		if x.Type != typ {
			out = append(out, x)
		}
	}
	return out
}
