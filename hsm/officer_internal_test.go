package hsm

import (
	"context"
	"fmt"

	"github.com/miekg/pkcs11"
)

// MakeAsVendor does what a vendor's tool does on tokens whose security officer cannot be
// reached through C_GenerateKey in a ceremony: it leaves trusted token objects behind, one
// per class, labelled LABEL-CLASS. change weakens the template of one.
func MakeAsVendor(_ context.Context, cfg CeremonyConfig, label string, change func(Class, []Attribute) []Attribute) error {
	m, _, err := openModule(cfg.Module, selector{label: cfg.TokenLabel})
	if err != nil {
		return err
	}
	slot, _, err := m.findSlot(selector{label: cfg.TokenLabel})
	if err != nil {
		return err
	}
	s, err := m.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	p, err := readPIN(cfg.SOPINFile, false)
	if err != nil {
		return err
	}
	if err := m.list.login(s, pkcs11.CKU_SO, p); err != nil {
		return err
	}
	for _, class := range Classes {
		spec := Spec{Role: RoleTransportSource, Algorithm: AES256, Class: class, Name: "vendor"}
		t, err := Template(spec, NewID(), cfg.Profile, HowGenerate)
		if err != nil {
			return err
		}
		t = with(t, flag(pkcs11.CKA_TOKEN, true))
		t = with(t, octets(pkcs11.CKA_LABEL, []byte(label+"-"+string(class))))
		if change != nil {
			t = change(class, t)
		}
		if _, err := m.list.generateKey(s, rawMechanism{code: pkcs11.CKM_AES_KEY_GEN}, t); err != nil {
			return fmt.Errorf("class %s: %w", class, err)
		}
	}
	return m.ctx.Logout(s)
}

// WithDecrypt lets a template's key decrypt as well.
func WithDecrypt(t []Attribute) []Attribute { return with(t, flag(pkcs11.CKA_DECRYPT, true)) }

// Thief is a bare session of a process that has loaded the module, for what a Token would
// not do.
type Thief struct {
	raw rawSession
}

// NewThief opens a session of the token and logs nobody in.
func NewThief(module, label string) (*Thief, error) {
	m, _, err := openModule(module, selector{label: label})
	if err != nil {
		return nil, err
	}
	slot, _, err := m.findSlot(selector{label: label})
	if err != nil {
		return nil, err
	}
	s, err := m.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return nil, err
	}
	return &Thief{rawSession{ctx: m.ctx, list: m.list, slot: slot, s: s}}, nil
}

// Login logs in as user or security officer with the PIN in a file.
func (t *Thief) Login(officer bool, pinFile string) error {
	p, err := readPIN(pinFile, false)
	if err != nil {
		return err
	}
	who := uint(pkcs11.CKU_USER)
	if officer {
		who = pkcs11.CKU_SO
	}
	return wrapError("C_Login", t.raw.list.login(t.raw.s, who, p))
}

// Objects counts the token objects that the session sees.
func (t *Thief) Objects() (int, error) {
	all, err := t.raw.find(flag(pkcs11.CKA_TOKEN, true))
	return len(all), err
}

// SessionObjects counts the session objects of the process.
func (t *Thief) SessionObjects() (int, error) {
	all, err := t.raw.find(flag(pkcs11.CKA_TOKEN, false))
	return len(all), err
}

// SetPIN changes the user PIN.
func (t *Thief) SetPIN(from, to string) error {
	return wrapError("C_SetPIN", t.raw.ctx.SetPIN(t.raw.s, from, to))
}

// InitPIN resets the user PIN, as security officer.
func (t *Thief) InitPIN(to string) error {
	return wrapError("C_InitPIN", t.raw.ctx.InitPIN(t.raw.s, to))
}

// CreateKnown creates a key of known bytes with another object's ID and label, as close to
// the role's template as a creation can come.
func (t *Thief) CreateKnown(spec Spec, id ID, p Profile) error {
	template, err := Template(spec, id, p, HowGenerate)
	if err != nil {
		return err
	}
	template = without(without(template, pkcs11.CKA_VALUE_LEN), pkcs11.CKA_CHECK_VALUE)
	template = append([]Attribute{octets(pkcs11.CKA_VALUE, make([]byte, 32))}, template...)
	_, err = t.raw.createObject(template)
	return wrapError("C_CreateObject", err)
}

// CreatePublic creates a public token object, a data object or a key of known bytes, with
// another object's ID and label. It takes no login.
func (t *Thief) CreatePublic(spec Spec, id ID, key bool) error {
	template := []Attribute{number(pkcs11.CKA_CLASS, pkcs11.CKO_DATA), octets(pkcs11.CKA_VALUE, make([]byte, 32))}
	if key {
		template = []Attribute{number(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), number(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
			octets(pkcs11.CKA_MODULUS, append([]byte{0x80}, make([]byte, 255)...)), octets(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
			octets(pkcs11.CKA_ID, id[:])}
	}
	template = append(template, flag(pkcs11.CKA_TOKEN, true), flag(pkcs11.CKA_PRIVATE, false), octets(pkcs11.CKA_LABEL, []byte(spec.Label())))
	_, err := t.raw.createObject(template)
	return wrapError("C_CreateObject", err)
}

// CreateTrusted creates a trusted wrapping key of known bytes, as security officer.
func (t *Thief) CreateTrusted(spec Spec, id ID, p Profile) error {
	template, err := Template(spec, id, p, HowGenerate)
	if err != nil {
		return err
	}
	template = without(without(template, pkcs11.CKA_VALUE_LEN), pkcs11.CKA_CHECK_VALUE)
	template = append([]Attribute{octets(pkcs11.CKA_VALUE, make([]byte, 32))}, with(template, flag(pkcs11.CKA_TOKEN, true))...)
	_, err = t.raw.createObject(template)
	return wrapError("C_CreateObject", err)
}

// Digest hashes a key by C_DigestKey.
func (t *Thief) Digest(id ID) ([]byte, error) {
	h, err := t.raw.findOne(octets(pkcs11.CKA_ID, id[:]))
	if err != nil {
		return nil, err
	}
	if err := t.raw.ctx.DigestInit(t.raw.s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_SHA256, nil)}); err != nil {
		return nil, wrapError("C_DigestInit", err)
	}
	if err := t.raw.ctx.DigestKey(t.raw.s, h); err != nil {
		return nil, wrapError("C_DigestKey", err)
	}
	b, err := t.raw.ctx.DigestFinal(t.raw.s)
	return b, wrapError("C_DigestFinal", err)
}

// Read reads CKA_VALUE.
func (t *Thief) Read(id ID) ([]byte, error) {
	h, err := t.raw.findOne(octets(pkcs11.CKA_ID, id[:]))
	if err != nil {
		return nil, err
	}
	b, err := t.raw.attribute(h, pkcs11.CKA_VALUE)
	return b, wrapError("C_GetAttributeValue", err)
}

// CopyUnchanged copies an object with an empty template and destroys the copy, which has
// the same CKA_ID: an index that met both would take neither.
func (t *Thief) CopyUnchanged(id ID) error {
	h, err := t.raw.findOne(octets(pkcs11.CKA_ID, id[:]))
	if err != nil {
		return err
	}
	twin, err := t.raw.copyObject(h, nil)
	if err != nil {
		return wrapError("C_CopyObject", err)
	}
	return wrapError("C_DestroyObject", t.raw.destroy(twin))
}
