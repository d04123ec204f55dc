package hsm

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

// driver is the part of PKCS#11 that an open token uses. Its errors are *[Error]. It is an
// interface so that tests can make a real token fail on demand; production has one
// implementation, cryptoki.
type driver interface {
	OpenSession(slot uint) (pkcs11.SessionHandle, error)
	CloseSession(s pkcs11.SessionHandle) error
	Login(s pkcs11.SessionHandle, user uint, p pin) error
	TokenInfo(slot uint) (pkcs11.TokenInfo, error)

	Find(s pkcs11.SessionHandle, template []*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error)
	Attributes(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, types []uint) (map[uint][]byte, error)
	AttributeTemplate(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, typ uint) ([]Attribute, error)
	GenerateKey(s pkcs11.SessionHandle, mechanism uint, t []Attribute) (pkcs11.ObjectHandle, error)
	GenerateKeyPair(s pkcs11.SessionHandle, mechanism uint, public, private []Attribute) (pub, priv pkcs11.ObjectHandle, err error)
	UnwrapKey(s pkcs11.SessionHandle, m rawMechanism, key pkcs11.ObjectHandle, wrapped []byte, t []Attribute) (pkcs11.ObjectHandle, error)
	DestroyObject(s pkcs11.SessionHandle, o pkcs11.ObjectHandle) error
	DeriveKey(s pkcs11.SessionHandle, m rawMechanism, base pkcs11.ObjectHandle, t []Attribute) (pkcs11.ObjectHandle, error)

	WrapKey(s pkcs11.SessionHandle, mechanism uint, wrapping, key pkcs11.ObjectHandle) ([]byte, error)
	Encrypt(s pkcs11.SessionHandle, m *pkcs11.Mechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error)
	Decrypt(s pkcs11.SessionHandle, m *pkcs11.Mechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error)
	Sign(s pkcs11.SessionHandle, m *pkcs11.Mechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error)
	GenerateRandom(s pkcs11.SessionHandle, n int) ([]byte, error)
	// DigestKey hashes the value of a key and, if there is any, what comes after it.
	DigestKey(s pkcs11.SessionHandle, mechanism uint, key pkcs11.ObjectHandle, after []byte) ([]byte, error)
}

// cryptoki is the driver of the loaded module. It counts the calls of each function.
type cryptoki struct {
	ctx    *pkcs11.Ctx
	list   functionList
	counts *counts
}

// counts is how often each PKCS#11 function was called. The map is complete from the
// start, so that counting takes no lock.
type counts map[string]*atomic.Uint64

func newCounts() *counts {
	c := counts{}
	for _, f := range []string{
		"C_OpenSession", "C_CloseSession", "C_Login", "C_GetTokenInfo", "C_FindObjects", "C_GetAttributeValue",
		"C_GenerateKey", "C_GenerateKeyPair", "C_UnwrapKey", "C_DestroyObject", "C_WrapKey",
		"C_Encrypt", "C_Decrypt", "C_Sign", "C_GenerateRandom", "C_DeriveKey", "C_DigestKey",
	} {
		c[f] = new(atomic.Uint64)
	}
	return &c
}

func (c counts) add(function string) { c[function].Add(1) }

func (c counts) snapshot() map[string]uint64 {
	out := make(map[string]uint64, len(c))
	for f, n := range c {
		if n := n.Load(); n > 0 {
			out[f] = n
		}
	}
	return out
}

func (d cryptoki) OpenSession(slot uint) (pkcs11.SessionHandle, error) {
	d.counts.add("C_OpenSession")
	s, err := d.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	return s, wrapError("C_OpenSession", err)
}

func (d cryptoki) CloseSession(s pkcs11.SessionHandle) error {
	d.counts.add("C_CloseSession")
	return wrapError("C_CloseSession", d.ctx.CloseSession(s))
}

func (d cryptoki) Login(s pkcs11.SessionHandle, user uint, p pin) error {
	d.counts.add("C_Login")
	return wrapError("C_Login", d.list.login(s, user, p))
}

func (d cryptoki) TokenInfo(slot uint) (pkcs11.TokenInfo, error) {
	d.counts.add("C_GetTokenInfo")
	i, err := d.ctx.GetTokenInfo(slot)
	return i, wrapError("C_GetTokenInfo", err)
}

// Find returns every object that matches, and ends the search in any case.
func (d cryptoki) Find(s pkcs11.SessionHandle, template []*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	d.counts.add("C_FindObjects")
	if err := d.ctx.FindObjectsInit(s, template); err != nil {
		return nil, wrapError("C_FindObjectsInit", err)
	}
	var all []pkcs11.ObjectHandle
	for {
		some, _, err := d.ctx.FindObjects(s, 512)
		if err != nil {
			_ = d.ctx.FindObjectsFinal(s)
			return nil, wrapError("C_FindObjects", err)
		}
		if len(some) == 0 {
			return all, wrapError("C_FindObjectsFinal", d.ctx.FindObjectsFinal(s))
		}
		all = append(all, some...)
	}
}

// Attributes reads what the object has and shows of these attributes. Some modules fail the
// whole call for one attribute that is missing or sensitive, and are then asked for each.
func (d cryptoki) Attributes(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, types []uint) (map[uint][]byte, error) {
	d.counts.add("C_GetAttributeValue")
	all := make([]*pkcs11.Attribute, len(types))
	for i, typ := range types {
		all[i] = pkcs11.NewAttribute(typ, nil)
	}
	got, err := d.ctx.GetAttributeValue(s, o, all)
	if err != nil && lacksAttribute(err) {
		got, err = nil, nil
		for _, a := range all {
			one, oneErr := d.ctx.GetAttributeValue(s, o, []*pkcs11.Attribute{a})
			if oneErr != nil && !lacksAttribute(oneErr) {
				return nil, wrapError("C_GetAttributeValue", oneErr)
			}
			got = append(got, one...)
		}
	}
	if err != nil {
		return nil, wrapError("C_GetAttributeValue", err)
	}
	values := make(map[uint][]byte, len(got))
	for _, a := range got {
		values[a.Type] = a.Value
	}
	return values, nil
}

// AttributeTemplate reads the template in an attribute; nil if the token does not show it.
func (d cryptoki) AttributeTemplate(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, typ uint) ([]Attribute, error) {
	d.counts.add("C_GetAttributeValue")
	t, err := d.list.attributeTemplate(s, o, typ)
	switch {
	case err == nil && t == nil:
		return []Attribute{}, nil // there is none
	case err != nil && lacksAttribute(err):
		return nil, nil
	}
	return t, wrapError("C_GetAttributeValue", err)
}

func lacksAttribute(err error) bool {
	var code pkcs11.Error
	return errors.As(err, &code) &&
		(code == pkcs11.CKR_ATTRIBUTE_TYPE_INVALID || code == pkcs11.CKR_ATTRIBUTE_SENSITIVE)
}

func (d cryptoki) GenerateKey(s pkcs11.SessionHandle, mechanism uint, t []Attribute) (pkcs11.ObjectHandle, error) {
	d.counts.add("C_GenerateKey")
	o, err := d.list.generateKey(s, rawMechanism{code: mechanism}, t)
	return o, wrapError("C_GenerateKey", err)
}

func (d cryptoki) GenerateKeyPair(s pkcs11.SessionHandle, mechanism uint, public, private []Attribute) (pub, priv pkcs11.ObjectHandle, err error) {
	d.counts.add("C_GenerateKeyPair")
	pub, priv, err = d.list.generateKeyPair(s, rawMechanism{code: mechanism}, public, private)
	return pub, priv, wrapError("C_GenerateKeyPair", err)
}

func (d cryptoki) UnwrapKey(s pkcs11.SessionHandle, m rawMechanism, key pkcs11.ObjectHandle, wrapped []byte, t []Attribute) (pkcs11.ObjectHandle, error) {
	d.counts.add("C_UnwrapKey")
	o, err := d.list.unwrapKey(s, m, key, wrapped, t)
	return o, wrapError("C_UnwrapKey", err)
}

func (d cryptoki) DeriveKey(s pkcs11.SessionHandle, m rawMechanism, base pkcs11.ObjectHandle, t []Attribute) (pkcs11.ObjectHandle, error) {
	d.counts.add("C_DeriveKey")
	o, err := d.list.deriveKey(s, m, base, t)
	return o, wrapError("C_DeriveKey", err)
}

func (d cryptoki) DigestKey(s pkcs11.SessionHandle, mechanism uint, key pkcs11.ObjectHandle, after []byte) ([]byte, error) {
	d.counts.add("C_DigestKey")
	if err := d.ctx.DigestInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}); err != nil {
		return nil, wrapError("C_DigestInit", err)
	}
	if err := d.ctx.DigestKey(s, key); err != nil {
		_, _ = d.ctx.DigestFinal(s) // some modules leave the operation active
		return nil, wrapError("C_DigestKey", err)
	}
	if len(after) > 0 {
		if err := d.ctx.DigestUpdate(s, after); err != nil {
			return nil, wrapError("C_DigestUpdate", err)
		}
	}
	b, err := d.ctx.DigestFinal(s)
	return b, wrapError("C_DigestFinal", err)
}

func (d cryptoki) DestroyObject(s pkcs11.SessionHandle, o pkcs11.ObjectHandle) error {
	d.counts.add("C_DestroyObject")
	return wrapError("C_DestroyObject", d.ctx.DestroyObject(s, o))
}

func (d cryptoki) WrapKey(s pkcs11.SessionHandle, mechanism uint, wrapping, key pkcs11.ObjectHandle) ([]byte, error) {
	d.counts.add("C_WrapKey")
	b, err := d.ctx.WrapKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, wrapping, key)
	return b, wrapError("C_WrapKey", err)
}

func (d cryptoki) Encrypt(s pkcs11.SessionHandle, m *pkcs11.Mechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error) {
	d.counts.add("C_Encrypt")
	if err := d.ctx.EncryptInit(s, []*pkcs11.Mechanism{m}, key); err != nil {
		return nil, wrapError("C_EncryptInit", err)
	}
	b, err := d.ctx.Encrypt(s, data)
	return b, wrapError("C_Encrypt", err)
}

func (d cryptoki) Decrypt(s pkcs11.SessionHandle, m *pkcs11.Mechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error) {
	d.counts.add("C_Decrypt")
	if err := d.ctx.DecryptInit(s, []*pkcs11.Mechanism{m}, key); err != nil {
		return nil, wrapError("C_DecryptInit", err)
	}
	b, err := d.ctx.Decrypt(s, data)
	return b, wrapError("C_Decrypt", err)
}

func (d cryptoki) Sign(s pkcs11.SessionHandle, m *pkcs11.Mechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error) {
	d.counts.add("C_Sign")
	if err := d.ctx.SignInit(s, []*pkcs11.Mechanism{m}, key); err != nil {
		return nil, wrapError("C_SignInit", err)
	}
	b, err := d.ctx.Sign(s, data)
	return b, wrapError("C_Sign", err)
}

func (d cryptoki) GenerateRandom(s pkcs11.SessionHandle, n int) ([]byte, error) {
	d.counts.add("C_GenerateRandom")
	b, err := d.ctx.GenerateRandom(s, n)
	return b, wrapError("C_GenerateRandom", err)
}

// recovered turns a panic of the binding into an error, in a deferred call.
func recovered(op string, err *error) {
	if v := recover(); v != nil {
		*err = &panicError{op: op, value: v, stack: debug.Stack()}
	}
}

// panicError keeps the stack for the log; its text leaves the stack and the panic's value
// out, since the value may quote arguments.
type panicError struct {
	op    string
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("%s: panic: %v", e.op, ErrModuleBroken) }
func (e *panicError) Unwrap() error { return ErrModuleBroken }
