package hsm

import (
	"context"
	"slices"
	"testing"

	"github.com/miekg/pkcs11"
)

// Leaked is what the attacks found in a module that permits one of them.
type Leaked struct {
	Leak   Attempt
	Broken []Attempt
}

// RunLeaky runs each attack on stand-ins once as it is, and then again for its first and its
// last attempt, with a module that answers that one with success.
func RunLeaky(t *testing.T, tok *Token) []Leaked {
	t.Helper()
	leaks, err := onOwnSession(context.Background(), tok, "leaky", func(raw rawSession) ([]Leaked, error) {
		b := &bench{c: raw, p: tok.cfg.Profile}
		defer b.clear()
		scene, err := b.build()
		if err != nil {
			return nil, err
		}
		if scene.own, err = arm(raw); err != nil {
			return nil, err
		}
		defer scene.own.drop(raw)
		var leaks []Leaked
		for i := range attacks {
			tight, err := scene.try(raw, attacks[i:i+1])
			if err != nil {
				return nil, err
			}
			// Those that cost the module a refusal, in the order of its calls.
			refusals := slices.DeleteFunc(tight, func(a Attempt) bool { return a.Answer == errAsDemanded.Error() })
			for _, n := range slices.Compact([]int{0, len(refusals) - 1}) {
				found, err := scene.try(&leaky{calls: raw, permit: n}, attacks[i:i+1])
				if err != nil {
					return nil, err
				}
				leaks = append(leaks, Leaked{Leak: refusals[n], Broken: Broken(found)})
			}
		}
		return leaks, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return leaks
}

// leaky is a module that refuses as the real one does, but for its refusal number permit.
type leaky struct {
	calls
	permit, seen int
}

// permits reports whether this refusal is the one that does not take place.
func (l *leaky) permits(err error) bool {
	if err == nil {
		return false
	}
	l.seen++
	return l.seen-1 == l.permit
}

// object is what a permitted call seems to make.
func (l *leaky) object(h pkcs11.ObjectHandle, err error) (pkcs11.ObjectHandle, error) {
	if l.permits(err) {
		return l.calls.generateKey(rawMechanism{code: pkcs11.CKM_AES_KEY_GEN}, []Attribute{
			flag(pkcs11.CKA_TOKEN, false), flag(pkcs11.CKA_SENSITIVE, false), number(pkcs11.CKA_VALUE_LEN, 16)})
	}
	return h, err
}

func (l *leaky) data(b []byte, err error) ([]byte, error) {
	if l.permits(err) {
		return []byte("the key"), nil
	}
	return b, err
}

func (l *leaky) generateKey(m rawMechanism, t []Attribute) (pkcs11.ObjectHandle, error) {
	return l.object(l.calls.generateKey(m, t))
}

func (l *leaky) generateKeyPair(m rawMechanism, public, private []Attribute) (pub, priv pkcs11.ObjectHandle, err error) {
	pub, priv, err = l.calls.generateKeyPair(m, public, private)
	if !l.permits(err) {
		return pub, priv, err
	}
	pub, err = l.calls.generateKey(rawMechanism{code: pkcs11.CKM_AES_KEY_GEN}, []Attribute{flag(pkcs11.CKA_TOKEN, false), number(pkcs11.CKA_VALUE_LEN, 16)})
	return pub, pub, err
}

func (l *leaky) createObject(t []Attribute) (pkcs11.ObjectHandle, error) {
	return l.object(l.calls.createObject(t))
}

func (l *leaky) copyObject(o pkcs11.ObjectHandle, t []Attribute) (pkcs11.ObjectHandle, error) {
	h, err := l.calls.copyObject(o, t)
	if t == nil && err != nil && l.seen == l.permit {
		l.seen++ // a copy without changes is no leak by itself: what is then set on it is
		return l.calls.generateKey(rawMechanism{code: pkcs11.CKM_AES_KEY_GEN}, []Attribute{flag(pkcs11.CKA_TOKEN, false), number(pkcs11.CKA_VALUE_LEN, 16)})
	}
	return l.object(h, err)
}

func (l *leaky) setAttributes(o pkcs11.ObjectHandle, t []Attribute) error {
	if err := l.calls.setAttributes(o, t); err != nil && !l.permits(err) {
		return err
	}
	return nil
}

// attribute counts for key bytes only: attacks read other attributes when they are planned.
func (l *leaky) attribute(o pkcs11.ObjectHandle, typ uint) ([]byte, error) {
	b, err := l.calls.attribute(o, typ)
	for _, part := range secretParts {
		if part.typ == typ {
			return l.data(b, err)
		}
	}
	return b, err
}

func (l *leaky) wrapKey(m rawMechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error) {
	return l.data(l.calls.wrapKey(m, wrapping, key))
}

func (l *leaky) unwrapKey(m rawMechanism, key pkcs11.ObjectHandle, wrapped []byte, t []Attribute) (pkcs11.ObjectHandle, error) {
	return l.object(l.calls.unwrapKey(m, key, wrapped, t))
}

func (l *leaky) deriveKey(m rawMechanism, base pkcs11.ObjectHandle, t []Attribute) (pkcs11.ObjectHandle, error) {
	return l.object(l.calls.deriveKey(m, base, t))
}

func (l *leaky) encrypt(m rawMechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error) {
	return l.data(l.calls.encrypt(m, key, data))
}

func (l *leaky) decrypt(m rawMechanism, key pkcs11.ObjectHandle, data []byte) ([]byte, error) {
	return l.data(l.calls.decrypt(m, key, data))
}
