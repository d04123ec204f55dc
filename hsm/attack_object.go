package hsm

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// secretParts are the attributes that hold key bytes.
var secretParts = []struct {
	typ  uint
	name string
	rsa  bool // of RSA keys; the others have CKA_VALUE
}{
	{pkcs11.CKA_VALUE, "CKA_VALUE", false},
	{pkcs11.CKA_PRIVATE_EXPONENT, "CKA_PRIVATE_EXPONENT", true},
	{pkcs11.CKA_PRIME_1, "CKA_PRIME_1", true}, {pkcs11.CKA_PRIME_2, "CKA_PRIME_2", true},
	{pkcs11.CKA_EXPONENT_1, "CKA_EXPONENT_1", true}, {pkcs11.CKA_EXPONENT_2, "CKA_EXPONENT_2", true},
	{pkcs11.CKA_COEFFICIENT, "CKA_COEFFICIENT", true},
}

func planRead(s scene, _ calls) (plan []trial, _ error) {
	for _, v := range s.victims {
		for _, part := range secretParts {
			if part.rsa != (rsaBits[v.spec.Algorithm] != 0) {
				continue
			}
			plan = append(plan, trial{v.name, "read " + part.name, "C_GetAttributeValue", func(c calls) error {
				b, err := c.attribute(v.h, part.typ)
				if err == nil && len(b) == 0 {
					return pkcs11.Error(pkcs11.CKR_ATTRIBUTE_SENSITIVE) // answered with nothing
				}
				return err
			}})
		}
	}
	return plan, nil
}

func planMakeTrusted(s scene, c calls) ([]trial, error) {
	blob, err := c.wrapKey(rawMechanism{code: s.p.wrapMechanism()}, s.own.fresh, s.own.known)
	if err != nil {
		return nil, wrapError("C_WrapKey", err)
	}
	key := []Attribute{
		number(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), number(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		flag(pkcs11.CKA_TOKEN, false), flag(pkcs11.CKA_WRAP, true), flag(pkcs11.CKA_TRUSTED, true)}
	trusted := []Attribute{flag(pkcs11.CKA_TRUSTED, true)}
	// Public keys wrap as well. A modulus of one's own is one whose private half is known.
	public := []Attribute{
		number(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), number(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
		flag(pkcs11.CKA_TOKEN, false), flag(pkcs11.CKA_WRAP, true), flag(pkcs11.CKA_TRUSTED, true), octets(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})}
	private := []Attribute{
		number(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), number(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
		flag(pkcs11.CKA_TOKEN, false), flag(pkcs11.CKA_PRIVATE, true), flag(pkcs11.CKA_UNWRAP, true)}
	who := "a key of one's own"
	return []trial{
		{who, "generate it with CKA_TRUSTED", "C_GenerateKey", func(c calls) error {
			h, err := c.generateKey(rawMechanism{code: pkcs11.CKM_AES_KEY_GEN}, append(slices.Clone(key), number(pkcs11.CKA_VALUE_LEN, 32)))
			return made(c, h, err)
		}},
		{who, "create it of known bytes with CKA_TRUSTED", "C_CreateObject", func(c calls) error {
			h, err := c.createObject(append(slices.Clone(key), octets(pkcs11.CKA_VALUE, make([]byte, 32))))
			return made(c, h, err)
		}},
		{who, "unwrap it with CKA_TRUSTED", "C_UnwrapKey", func(c calls) error {
			h, err := c.unwrapKey(rawMechanism{code: s.p.wrapMechanism()}, s.own.fresh, blob, key)
			return made(c, h, err)
		}},
		{who, "generate an RSA pair with CKA_TRUSTED", "C_GenerateKeyPair", func(c calls) error {
			pub, priv, err := c.generateKeyPair(rawMechanism{code: pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN}, append(slices.Clone(public), number(pkcs11.CKA_MODULUS_BITS, uint(s.p.SelfTest.RSABits))), private)
			if err == nil {
				_ = c.destroy(priv) // made destroys the other half
			}
			return made(c, pub, err)
		}},
		{who, "create an RSA public key with CKA_TRUSTED", "C_CreateObject", func(c calls) error {
			modulus, err := c.attribute(s.own.pub, pkcs11.CKA_MODULUS)
			if err != nil {
				return err
			}
			h, err := c.createObject(append(slices.Clone(public), octets(pkcs11.CKA_MODULUS, modulus)))
			return made(c, h, err)
		}},
		{who, "set CKA_TRUSTED", "C_SetAttributeValue", func(c calls) error { return c.setAttributes(s.own.fresh, trusted) }},
		{who, "copy it with CKA_TRUSTED", "C_CopyObject", func(c calls) error {
			h, err := c.copyObject(s.own.fresh, trusted)
			return made(c, h, err)
		}},
		{who, "set CKA_TRUSTED on an RSA public key", "C_SetAttributeValue", func(c calls) error { return c.setAttributes(s.own.pub, trusted) }},
	}, nil
}

// lever is an attribute that would open something if it could be changed.
type lever struct {
	typ  uint
	name string
}

var levers = []lever{
	{pkcs11.CKA_ENCRYPT, "CKA_ENCRYPT"}, {pkcs11.CKA_DECRYPT, "CKA_DECRYPT"}, {pkcs11.CKA_SIGN, "CKA_SIGN"},
	{pkcs11.CKA_VERIFY, "CKA_VERIFY"}, {pkcs11.CKA_SIGN_RECOVER, "CKA_SIGN_RECOVER"}, {pkcs11.CKA_WRAP, "CKA_WRAP"},
	{pkcs11.CKA_UNWRAP, "CKA_UNWRAP"}, {pkcs11.CKA_DERIVE, "CKA_DERIVE"}, {pkcs11.CKA_MODIFIABLE, "CKA_MODIFIABLE"},
	{pkcs11.CKA_COPYABLE, "CKA_COPYABLE"}, {pkcs11.CKA_SENSITIVE, "CKA_SENSITIVE"}, {pkcs11.CKA_EXTRACTABLE, "CKA_EXTRACTABLE"},
	{pkcs11.CKA_PRIVATE, "CKA_PRIVATE"}, {pkcs11.CKA_TRUSTED, "CKA_TRUSTED"}, {pkcs11.CKA_WRAP_WITH_TRUSTED, "CKA_WRAP_WITH_TRUSTED"},
	{pkcs11.CKA_ALLOWED_MECHANISMS, "CKA_ALLOWED_MECHANISMS"}, {pkcs11.CKA_WRAP_TEMPLATE, "CKA_WRAP_TEMPLATE"},
	{pkcs11.CKA_UNWRAP_TEMPLATE, "CKA_UNWRAP_TEMPLATE"}, {pkcs11.CKA_ID, "CKA_ID"}, {pkcs11.CKA_LABEL, "CKA_LABEL"},
}

// pulled returns the attribute with another value than the victim has.
func (l lever) pulled(c calls, h pkcs11.ObjectHandle) Attribute {
	switch l.typ {
	case pkcs11.CKA_ALLOWED_MECHANISMS:
		return mechanisms([]uint{pkcs11.CKM_AES_ECB, pkcs11.CKM_AES_CBC, pkcs11.CKM_AES_KEY_WRAP, pkcs11.CKM_RSA_X_509, pkcs11.CKM_ECDH1_DERIVE})
	case pkcs11.CKA_WRAP_TEMPLATE, pkcs11.CKA_UNWRAP_TEMPLATE:
		return nested(l.typ, []Attribute{flag(pkcs11.CKA_TOKEN, false)})
	case pkcs11.CKA_ID, pkcs11.CKA_LABEL:
		return octets(l.typ, []byte("other"))
	}
	now, err := c.attribute(h, l.typ)
	return flag(l.typ, err != nil || !bytes.Equal(now, []byte{1}))
}

func planSet(s scene, c calls) (plan []trial, _ error) {
	for _, v := range s.victims {
		for _, l := range levers {
			a := l.pulled(c, v.h)
			plan = append(plan, trial{v.name, "set " + l.name + " to " + value(a), "C_SetAttributeValue", func(c calls) error {
				return c.setAttributes(v.h, []Attribute{a})
			}})
		}
	}
	return plan, nil
}

func planCopy(s scene, c calls) (plan []trial, _ error) {
	for _, v := range s.victims {
		now, err := c.attribute(v.h, pkcs11.CKA_TOKEN)
		if err != nil {
			return nil, wrapError("C_GetAttributeValue", err)
		}
		elsewhere := flag(pkcs11.CKA_TOKEN, !bytes.Equal(now, []byte{1}))
		for _, l := range levers {
			a := l.pulled(c, v.h)
			for _, t := range [][]Attribute{{a}, {elsewhere, a}, {a, flag(pkcs11.CKA_MODIFIABLE, true)}, {flag(pkcs11.CKA_MODIFIABLE, true), a}} {
				plan = append(plan, trial{v.name, fmt.Sprintf("copy it with %s %s (%d attributes)", l.name, value(a), len(t)), "C_CopyObject", func(c calls) error {
					h, err := c.copyObject(v.h, t)
					return made(c, h, err)
				}})
			}
			plan = append(plan, trial{v.name, "copy it unchanged, then set " + l.name, "C_SetAttributeValue", func(c calls) error {
				h, err := c.copyObject(v.h, nil)
				if err != nil {
					return err // no copy at all is the better refusal
				}
				return joinDestroy(c, h, c.setAttributes(h, []Attribute{a}))
			}})
		}
	}
	return plan, nil
}

// joinDestroy destroys a copy that the token allowed and returns the answer to what
// followed.
func joinDestroy(c calls, h pkcs11.ObjectHandle, answer error) error {
	if err := c.destroy(h); err != nil {
		return fmt.Errorf("destroying a copy: %w", err) // not a refusal, hence noticed
	}
	return answer
}

func value(a Attribute) string {
	switch {
	case a.Nested != nil:
		return "a weaker template"
	case len(a.Value) == 1:
		return map[byte]string{0: "false", 1: "true"}[a.Value[0]]
	}
	return "another value"
}
