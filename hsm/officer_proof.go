package hsm

import (
	"fmt"

	"github.com/miekg/pkcs11"
)

// Proof shows that both ends hold the same transport key: a throwaway key of the class,
// wrapped at the source, and what that key answers. The throwaway key is a session object
// at both ends and never holds anything.
type Proof struct {
	Wrapped []byte
	Answer  []byte // AES: two encrypted blocks; HMAC: a MAC; key pairs: the SPKI (DER)
}

// proofText is what throwaway keys are asked; 32 bytes, so that it is two AES blocks.
var proofText = []byte("keyferry/transport-proof/v1\x00\x00\x00\x00\x00")

// MakeProof wraps a fresh throwaway key under the source transport key id.
func (c *Ceremony) MakeProof(class Class, id ID) (Proof, error) {
	source, err := c.handle(id)
	if err != nil {
		return Proof{}, err
	}
	key, spki, err := standIn(c.raw, carried[class], c.profile, 0)
	if err != nil {
		return Proof{}, fmt.Errorf("making throwaway key: %w", err)
	}
	wrapped, err := c.raw.wrapKey(rawMechanism{code: c.profile.wrapMechanism()}, source, key)
	if err != nil {
		return Proof{}, fmt.Errorf("wrapping throwaway key of class %q: %w", class, wrapError("C_WrapKey", err))
	}
	answer, err := answerOf(c.raw, carried[class], key, spki)
	if err != nil {
		return Proof{}, err
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
	same, err := isKey(c.raw, c.profile, carried[class], key, p.Answer)
	if err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("throwaway key of class %q answers differently here: %w", class, ErrDataInvalid)
	}
	return wrapError("C_DestroyObject", c.raw.destroy(key))
}

// standIn makes a key as spec says, except that it dies with the session, and returns the
// SPKI of a pair. A modulus has as many bits as generate says.
func standIn(c calls, spec Spec, p Profile, bits int) (pkcs11.ObjectHandle, []byte, error) {
	t, err := sessionTemplate(spec, p, HowGenerate)
	if err != nil {
		return 0, nil, err
	}
	return generate(c, spec, p, t, bits)
}

// generate makes a key of spec's kind from a template that may differ from the role's.
// If it is an RSA key, its modulus has so many bits, and with 0 as many as spec says.
func generate(c calls, spec Spec, p Profile, t []Attribute, bits int) (pkcs11.ObjectHandle, []byte, error) {
	row, err := p.mechanismsOf(spec)
	code := row.generate
	if rsaBits[spec.Algorithm] != 0 { // import wrapping and establishment keys have no row
		code, err = pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil
	}
	if err != nil {
		return 0, nil, err
	}
	if spec.Algorithm.Secret() {
		h, err := c.generateKey(rawMechanism{code: code}, t)
		return h, nil, wrapError("C_GenerateKey", err)
	}
	public, err := Template(spec, NewID(), p, HowPublicHalf)
	if err != nil {
		return 0, nil, err
	}
	if bits != 0 {
		public = with(public, number(pkcs11.CKA_MODULUS_BITS, uint(bits)))
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
