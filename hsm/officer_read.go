package hsm

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// Power is a token object that can wrap, unwrap or be trusted with wrapping. Ceremonies
// compare these with the transcripts: an unknown one may be the way out of the token.
type Power struct {
	ID                    string // CKA_ID in hexadecimal; not always 16 bytes
	Label                 string
	Wrap, Unwrap, Trusted bool
}

// Powers lists every token object with CKA_WRAP, CKA_UNWRAP or CKA_TRUSTED, whoever made
// it. It searches the token and not the index.
func (c *Ceremony) Powers() ([]Power, error) {
	var handles []pkcs11.ObjectHandle
	for _, typ := range []uint{pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP, pkcs11.CKA_TRUSTED} {
		found, err := c.raw.find(flag(pkcs11.CKA_TOKEN, true), flag(typ, true))
		if err != nil {
			return nil, err
		}
		handles = append(handles, found...)
	}
	slices.Sort(handles)
	var all []Power
	for _, h := range slices.Compact(handles) {
		id, err := c.raw.attribute(h, pkcs11.CKA_ID)
		if err != nil {
			return nil, wrapError("C_GetAttributeValue", err)
		}
		label, err := c.raw.attribute(h, pkcs11.CKA_LABEL)
		if err != nil {
			return nil, wrapError("C_GetAttributeValue", err)
		}
		all = append(all, Power{ID: hex.EncodeToString(id), Label: loggable(string(label)),
			Wrap: c.raw.is(h, pkcs11.CKA_WRAP), Unwrap: c.raw.is(h, pkcs11.CKA_UNWRAP), Trusted: c.raw.is(h, pkcs11.CKA_TRUSTED)})
	}
	return all, nil
}

// is reports whether a flag is set; an object without such a flag does not have it set.
func (r rawSession) is(h pkcs11.ObjectHandle, typ uint) bool {
	v, err := r.attribute(h, typ)
	return err == nil && bytes.Equal(v, []byte{1})
}

// find returns every object that matches.
func (r rawSession) find(match ...Attribute) (all []pkcs11.ObjectHandle, err error) {
	var t []*pkcs11.Attribute
	for _, a := range match {
		t = append(t, &pkcs11.Attribute{Type: a.Type, Value: a.Value})
	}
	if err := r.ctx.FindObjectsInit(r.s, t); err != nil {
		return nil, wrapError("C_FindObjectsInit", err)
	}
	for {
		some, _, err := r.ctx.FindObjects(r.s, 100)
		if err != nil {
			_ = r.ctx.FindObjectsFinal(r.s) // the search's own error says more
			return nil, wrapError("C_FindObjects", err)
		}
		if len(some) == 0 {
			return all, wrapError("C_FindObjectsFinal", r.ctx.FindObjectsFinal(r.s))
		}
		all = append(all, some...)
	}
}

// findOne returns the one object that matches; two are an error, since either may be a
// stranger's.
func (r rawSession) findOne(match ...Attribute) (pkcs11.ObjectHandle, error) {
	all, err := r.find(match...)
	switch {
	case err != nil:
		return 0, err
	case len(all) == 0:
		return 0, ErrNotFound
	case len(all) > 1:
		return 0, fmt.Errorf("%d objects match: %w", len(all), ErrExists)
	}
	return all[0], nil
}

// check reads the object back and compares it with what its template asked for, but for
// the attributes in except and those that tokens never show again.
func (r rawSession) check(h pkcs11.ObjectHandle, want []Attribute, except ...uint) error {
	for _, a := range want {
		if a.Nested != nil || slices.Contains(except, a.Type) || a.Type == pkcs11.CKA_VALUE_LEN || a.Type == pkcs11.CKA_CHECK_VALUE {
			continue
		}
		got, err := r.attribute(h, a.Type)
		if err != nil {
			return fmt.Errorf("attribute 0x%X: %w", a.Type, wrapError("C_GetAttributeValue", err))
		}
		if !bytes.Equal(got, a.Value) {
			return fmt.Errorf("attribute 0x%X is not what its template says: %w", a.Type, ErrModuleBroken)
		}
	}
	return nil
}
