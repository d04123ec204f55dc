package hsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/miekg/pkcs11"
)

// errNotOurs means that an object is not what its label says, or has none of ours.
var errNotOurs = errors.New("not ours")

// errShape means that the key inside is of another curve or length than its label says. It
// is an errNotOurs: what a customer or a peer wrapped was another key than was announced.
var errShape = fmt.Errorf("%w: another curve or length", errNotOurs)

// inspect reads an object back and compares every attribute with its role's template. The
// error is errNotOurs for an object to quarantine; other errors are the token's.
func (t *Token) inspect(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, rawID, label string) (entry, error) {
	if len(rawID) != len(ID{}) {
		return entry{}, fmt.Errorf("%w: CKA_ID of %d bytes", errNotOurs, len(rawID))
	}
	spec, err := ParseLabel(label)
	if err != nil {
		return entry{}, fmt.Errorf("%w: %v", errNotOurs, err)
	}
	e := entry{Object: Object{ID: ID([]byte(rawID)), Spec: spec}, handle: h}
	history, err := t.driver.Attributes(s, h, []uint{
		pkcs11.CKA_LOCAL, pkcs11.CKA_ALWAYS_SENSITIVE, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_WRAP_WITH_TRUSTED,
	})
	if err != nil {
		return entry{}, err
	}
	e.Local = isTrue(history[pkcs11.CKA_LOCAL])
	e.AlwaysSensitive = isTrue(history[pkcs11.CKA_ALWAYS_SENSITIVE])
	e.Extractable = isTrue(history[pkcs11.CKA_EXTRACTABLE])
	e.WrapWithTrusted = isTrue(history[pkcs11.CKA_WRAP_WITH_TRUSTED])

	want, templates, err := t.expected(e.Object)
	if err != nil {
		return entry{}, fmt.Errorf("%w: %v", errNotOurs, err)
	}
	types := make([]uint, 0, len(want))
	for typ := range want {
		types = append(types, typ)
	}
	slices.Sort(types)
	got, err := t.driver.Attributes(s, h, types)
	if err != nil {
		return entry{}, err
	}
	for _, typ := range types {
		if typ == pkcs11.CKA_EC_PARAMS && !bytes.Equal(got[typ], want[typ]) {
			return entry{}, errShape
		}
		if !sameAttribute(typ, got[typ], want[typ]) {
			return entry{}, fmt.Errorf("%w: attribute %s is not that of role %q", errNotOurs, attributeName(typ), spec.Role)
		}
	}
	for typ, want := range templates {
		got, err := t.driver.AttributeTemplate(s, h, typ)
		if err != nil {
			return entry{}, err
		}
		if got != nil && !sameTemplate(got, want) { // nil: this token does not show templates
			return entry{}, fmt.Errorf("%w: %s is not that of role %q", errNotOurs, attributeName(typ), spec.Role)
		}
	}
	if err := t.checkModulus(s, h, spec.Algorithm); err != nil {
		return entry{}, err
	}
	transport := spec.Role == RoleTransportSource || spec.Role == RoleTransportDestination
	if transport && t.cfg.KnownTransport != nil && !t.cfg.KnownTransport(e.ID) {
		return entry{}, fmt.Errorf("%w: transport key that no transcript names", errNotOurs)
	}
	return e, nil
}

// checkModulus compares an RSA key's length with its label. Nothing else of an unwrapped
// private key says it.
func (t *Token) checkModulus(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, a Algorithm) error {
	if rsaBits[a] == 0 {
		return nil
	}
	got, err := t.driver.Attributes(s, h, []uint{pkcs11.CKA_MODULUS})
	if err != nil {
		return err
	}
	if n := new(big.Int).SetBytes(got[pkcs11.CKA_MODULUS]).BitLen(); n != a.ModulusBits() {
		return fmt.Errorf("%w: modulus of %d bits", errShape, n)
	}
	return nil
}

// expected returns what an object must show, by attribute, and what its templates must be.
// Which template made it follows from its role and from CKA_LOCAL, which no caller can set.
func (t *Token) expected(o Object) (want map[uint][]byte, templates map[uint][]Attribute, err error) {
	calls := []How{HowGenerate}
	switch {
	case o.Spec.Role == RoleTransportSource:
		calls = []How{HowGenerate, HowCopy} // the copy states what it changes
	case !o.Local:
		calls = []How{HowUnwrap}
	}
	want, templates = map[uint][]byte{}, map[uint][]Attribute{}
	for _, how := range calls {
		template, err := Template(o.Spec, o.ID, t.cfg.Profile, how)
		if err != nil {
			return nil, nil, err
		}
		for _, a := range template {
			if a.Nested != nil {
				templates[a.Type] = a.Nested
				continue
			}
			want[a.Type] = a.Value
		}
	}
	if want[pkcs11.CKA_TRUSTED] == nil && o.Spec.Algorithm.Secret() {
		want[pkcs11.CKA_TRUSTED] = []byte{0}
	}
	if params := ecKeys[o.Spec.Algorithm].params; params != nil {
		want[pkcs11.CKA_EC_PARAMS] = params
	}
	delete(want, pkcs11.CKA_VALUE_LEN)   // after C_UnwrapKey SoftHSM shows 0
	delete(want, pkcs11.CKA_CHECK_VALUE) // stated empty, and some tokens show one nevertheless
	return want, templates, nil
}

// sameTemplate compares templates without regard to order.
func sameTemplate(got, want []Attribute) bool {
	values := make(map[uint][]byte, len(want))
	for _, a := range want {
		values[a.Type] = a.Value
	}
	if len(got) != len(values) {
		return false
	}
	for _, a := range got {
		value, ok := values[a.Type]
		if !ok || !sameAttribute(a.Type, a.Value, value) {
			return false
		}
		delete(values, a.Type)
	}
	return true
}

// sameAttribute compares as PKCS#11 means the values: booleans by truth, numbers by value,
// lists of mechanisms as sets.
func sameAttribute(typ uint, got, want []byte) bool {
	switch {
	case got == nil:
		return false
	case typ == pkcs11.CKA_ALLOWED_MECHANISMS:
		return slices.Equal(numbers(got), numbers(want))
	case len(want) == 1:
		return len(got) == 1 && isTrue(got) == isTrue(want)
	default:
		return bytes.Equal(got, want)
	}
}

func numbers(b []byte) []uint64 {
	var n []uint64
	for ; len(b) >= 8; b = b[8:] {
		n = append(n, binary.NativeEndian.Uint64(b))
	}
	slices.Sort(n)
	return n
}

var attributeNames = map[uint]string{
	pkcs11.CKA_CLASS: "CKA_CLASS", pkcs11.CKA_KEY_TYPE: "CKA_KEY_TYPE", pkcs11.CKA_TOKEN: "CKA_TOKEN",
	pkcs11.CKA_PRIVATE: "CKA_PRIVATE", pkcs11.CKA_SENSITIVE: "CKA_SENSITIVE", pkcs11.CKA_EXTRACTABLE: "CKA_EXTRACTABLE",
	pkcs11.CKA_WRAP_WITH_TRUSTED: "CKA_WRAP_WITH_TRUSTED", pkcs11.CKA_TRUSTED: "CKA_TRUSTED",
	pkcs11.CKA_ENCRYPT: "CKA_ENCRYPT", pkcs11.CKA_DECRYPT: "CKA_DECRYPT", pkcs11.CKA_SIGN: "CKA_SIGN",
	pkcs11.CKA_SIGN_RECOVER: "CKA_SIGN_RECOVER", pkcs11.CKA_VERIFY: "CKA_VERIFY", pkcs11.CKA_WRAP: "CKA_WRAP",
	pkcs11.CKA_UNWRAP: "CKA_UNWRAP", pkcs11.CKA_DERIVE: "CKA_DERIVE",
	pkcs11.CKA_ALLOWED_MECHANISMS: "CKA_ALLOWED_MECHANISMS", pkcs11.CKA_EC_PARAMS: "CKA_EC_PARAMS",
	pkcs11.CKA_COPYABLE: "CKA_COPYABLE", pkcs11.CKA_MODIFIABLE: "CKA_MODIFIABLE",
	pkcs11.CKA_WRAP_TEMPLATE: "CKA_WRAP_TEMPLATE", pkcs11.CKA_UNWRAP_TEMPLATE: "CKA_UNWRAP_TEMPLATE",
	pkcs11.CKA_ID: "CKA_ID", pkcs11.CKA_LABEL: "CKA_LABEL",
}

func attributeName(typ uint) string {
	if name, ok := attributeNames[typ]; ok {
		return name
	}
	return fmt.Sprintf("0x%X", typ)
}
