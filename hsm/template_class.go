package hsm

import (
	"fmt"

	"github.com/miekg/pkcs11"
)

// carried is, for each class, a material that it carries. All materials of one class have
// the same usage flags and allowed mechanisms, since an unwrap template compares both
// exactly; a material that differs needs a class of its own, which is a row here.
var carried = map[Class]Spec{
	ClassAES:     {Role: RoleSharedMaterial, Algorithm: AES256},
	ClassMAC:     {Role: RoleSharedMaterial, Algorithm: HMACSHA256},
	ClassPrivate: {Role: RoleSharedMaterial, Algorithm: ECP256, Usage: UsageSign},
}

// ClassOf returns the class of transport key that carries material of this algorithm and
// usage, or ErrNotSupported if none does.
func ClassOf(a Algorithm, u Usage) (Class, error) {
	switch {
	case a == AES256 && u == UsageNone:
		return ClassAES, nil
	case a == HMACSHA256 && u == UsageNone:
		return ClassMAC, nil
	case (a == ECP256 || a == ECP384) && u == UsageSign:
		return ClassPrivate, nil
	}
	return "", fmt.Errorf("no class of transport key carries %s %s: %w", a, u, ErrNotSupported)
}

// unwrapTemplate is what a class demands of everything that is unwrapped: exactly the
// template of the class's material, but for what names the object. SoftHSM checks that the
// caller's template holds each entry, so an entry that is missing here is the caller's
// choice: PRIVATE left out, for instance, gives a key that works without login.
func unwrapTemplate(c Class, p Profile) []Attribute {
	s := shapeOf(carried[c], p)
	var t []Attribute
	for _, a := range unwrappedShared(carried[c], p, s, nil) {
		switch {
		case a.Type == pkcs11.CKA_TOKEN: // self-tests unwrap into session objects
		case a.Type == pkcs11.CKA_KEY_TYPE && s.class == pkcs11.CKO_PRIVATE_KEY: // the wrapped PKCS #8 says it
		default:
			t = append(t, a)
		}
	}
	return t
}

// wrapTemplate is what a class demands of everything that is wrapped. SoftHSM never matches
// byte strings of private objects here, hence numbers and flags only.
func wrapTemplate(c Class, p Profile) []Attribute {
	s := shapeOf(carried[c], p)
	t := []Attribute{number(pkcs11.CKA_CLASS, s.class)}
	if s.class == pkcs11.CKO_SECRET_KEY {
		t = append(t, number(pkcs11.CKA_KEY_TYPE, s.keyType))
	}
	return append(t, flag(pkcs11.CKA_WRAP_WITH_TRUSTED, true))
}

// transportTemplates gives a source transport key both templates. It cannot unwrap; it
// carries the other end's demand so that a token flaw in CKA_UNWRAP alone opens nothing.
func transportTemplates(c Class, p Profile) []Attribute {
	return []Attribute{
		nested(pkcs11.CKA_WRAP_TEMPLATE, wrapTemplate(c, p)),
		nested(pkcs11.CKA_UNWRAP_TEMPLATE, unwrapTemplate(c, p)),
	}
}

// destinationDemand is a destination transport key's template without what names it and
// without its own unwrap template; it is the same for all classes.
func destinationDemand(p Profile) []Attribute {
	spec := Spec{Role: RoleTransportDestination, Algorithm: AES256, Class: ClassAES}
	var t []Attribute
	for _, a := range transportDestination(spec, p, shapeOf(spec, p), nil) {
		if a.Nested == nil && a.Type != pkcs11.CKA_TOKEN { // self-tests unwrap into session objects
			t = append(t, a)
		}
	}
	return t
}
