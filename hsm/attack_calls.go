package hsm

import (
	"errors"

	"github.com/miekg/pkcs11"
)

// calls is the module as attacks and ceremonies see it: one session, handles and bare
// answers. It is an interface so that a test can put a module beneath the attacks that
// permits one of them.
type calls interface {
	generateKey(m rawMechanism, t []Attribute) (pkcs11.ObjectHandle, error)
	generateKeyPair(m rawMechanism, public, private []Attribute) (pub, priv pkcs11.ObjectHandle, err error)
	createObject(t []Attribute) (pkcs11.ObjectHandle, error)
	copyObject(o pkcs11.ObjectHandle, t []Attribute) (pkcs11.ObjectHandle, error)
	setAttributes(o pkcs11.ObjectHandle, t []Attribute) error
	attribute(o pkcs11.ObjectHandle, typ uint) ([]byte, error)
	wrapKey(m rawMechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error)
	unwrapKey(m rawMechanism, key pkcs11.ObjectHandle, wrapped []byte, t []Attribute) (pkcs11.ObjectHandle, error)
	deriveKey(m rawMechanism, base pkcs11.ObjectHandle, t []Attribute) (pkcs11.ObjectHandle, error)
	encrypt(m rawMechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error)
	decrypt(m rawMechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error)
	sign(m rawMechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error)
	destroy(o pkcs11.ObjectHandle) error
	// mechanisms returns the token's mechanisms that have the CKF flag, such as CKF_WRAP.
	mechanisms(flag uint) ([]uint, error)
}

// rawSession is one session of a real module.
type rawSession struct {
	ctx  *pkcs11.Ctx
	list functionList
	slot uint
	s    pkcs11.SessionHandle
}

var _ calls = rawSession{}

func (r rawSession) generateKey(m rawMechanism, t []Attribute) (pkcs11.ObjectHandle, error) {
	return r.list.generateKey(r.s, m, t)
}

func (r rawSession) generateKeyPair(m rawMechanism, public, private []Attribute) (pub, priv pkcs11.ObjectHandle, err error) {
	return r.list.generateKeyPair(r.s, m, public, private)
}

func (r rawSession) createObject(t []Attribute) (pkcs11.ObjectHandle, error) {
	return r.list.createObject(r.s, t)
}

func (r rawSession) copyObject(o pkcs11.ObjectHandle, t []Attribute) (pkcs11.ObjectHandle, error) {
	return r.list.copyObject(r.s, o, t)
}

func (r rawSession) setAttributes(o pkcs11.ObjectHandle, t []Attribute) error {
	return r.list.setAttributes(r.s, o, t)
}

func (r rawSession) unwrapKey(m rawMechanism, key pkcs11.ObjectHandle, wrapped []byte, t []Attribute) (pkcs11.ObjectHandle, error) {
	return r.list.unwrapKey(r.s, m, key, wrapped, t)
}

func (r rawSession) deriveKey(m rawMechanism, base pkcs11.ObjectHandle, t []Attribute) (pkcs11.ObjectHandle, error) {
	return r.list.deriveKey(r.s, m, base, t)
}

func (r rawSession) attribute(o pkcs11.ObjectHandle, typ uint) ([]byte, error) {
	a, err := r.ctx.GetAttributeValue(r.s, o, []*pkcs11.Attribute{pkcs11.NewAttribute(typ, nil)})
	if err != nil {
		return nil, err
	}
	return a[0].Value, nil
}

func (r rawSession) wrapKey(m rawMechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error) {
	return r.list.wrapKey(r.s, m, wrapping, key)
}

func (r rawSession) encrypt(m rawMechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error) {
	flat, free := m.flat()
	defer free()
	if err := r.ctx.EncryptInit(r.s, flat, key); err != nil {
		return nil, err
	}
	return r.ctx.Encrypt(r.s, data)
}

func (r rawSession) decrypt(m rawMechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error) {
	flat, free := m.flat()
	defer free()
	if err := r.ctx.DecryptInit(r.s, flat, key); err != nil {
		return nil, err
	}
	return r.ctx.Decrypt(r.s, data)
}

func (r rawSession) sign(m rawMechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error) {
	flat, free := m.flat()
	defer free()
	if err := r.ctx.SignInit(r.s, flat, key); err != nil {
		return nil, err
	}
	return r.ctx.Sign(r.s, data)
}

func (r rawSession) destroy(o pkcs11.ObjectHandle) error { return r.ctx.DestroyObject(r.s, o) }

func (r rawSession) mechanisms(flag uint) ([]uint, error) {
	list, err := r.ctx.GetMechanismList(r.slot)
	if err != nil {
		return nil, err
	}
	var out []uint
	for _, m := range list {
		info, err := r.ctx.GetMechanismInfo(r.slot, []*pkcs11.Mechanism{pkcs11.NewMechanism(m.Mechanism, nil)})
		if err != nil {
			return nil, err
		}
		if info.Flags&flag != 0 {
			out = append(out, m.Mechanism)
		}
	}
	return out, nil
}

// flat returns the mechanism for the binding, which takes flat parameters and, as the one
// structure with pointers that is needed here, those of AES-GCM. free must be called after
// the operation, since a token may write its own IV into the parameters.
func (m rawMechanism) flat() (_ []*pkcs11.Mechanism, free func()) {
	switch {
	case m.code == pkcs11.CKM_AES_GCM:
		params := pkcs11.NewGCMParams(make([]byte, 12), []byte("attack"), gcmTag*8)
		return []*pkcs11.Mechanism{pkcs11.NewMechanism(m.code, params)}, params.Free
	case len(m.param) == 0:
		return []*pkcs11.Mechanism{pkcs11.NewMechanism(m.code, nil)}, func() {}
	}
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(m.code, m.param)}, func() {}
}

// oaepMechanism returns RSA-OAEP with the hash of transport keys and no label.
func (p Profile) oaepMechanism() rawMechanism { return oaepMechanism(p.OAEP) }

func oaepMechanism(h OAEPHash) rawMechanism {
	hash, mgf := uint(pkcs11.CKM_SHA_1), uint(pkcs11.CKG_MGF1_SHA1)
	if h == OAEPSHA256 {
		hash, mgf = pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256
	}
	return rawMechanism{code: pkcs11.CKM_RSA_PKCS_OAEP, param: words(hash, mgf, pkcs11.CKZ_DATA_SPECIFIED, 0, 0)}
}

// words lays out CK_ULONG values, and null pointers as 0, as a C structure.
func words(values ...uint) []byte {
	var b []byte
	for _, v := range values {
		b = append(b, pkcs11.NewAttribute(0, v).Value...)
	}
	return b
}

// refused reports whether err is a token's refusal of what was asked, as opposed to success
// or to some failure that proves nothing. A token that dislikes the form of a parameter has
// not looked at the key yet: on it, parametrised or deriving lacks a mechanism.
func refused(op string, err error) bool {
	e := wrapError(op, err)
	if code := codeOf(e); code == pkcs11.CKR_MECHANISM_PARAM_INVALID || code == pkcs11.CKR_ARGUMENTS_BAD {
		return false
	}
	return errors.Is(e, ErrCaller) || errors.Is(e, ErrDataInvalid) || errors.Is(e, ErrNotSupported)
}
