package hsm

import (
	"fmt"

	"github.com/miekg/pkcs11"
)

// carried is, for each class, a material that it carries. All materials of one class have
// the same usage flags and allowed mechanisms, since an unwrap template compares both
// exactly; a material that differs needs a class of its own, which is a row here.
var carried = map[Class]Spec{
	ClassAES:        {Role: RoleSharedMaterial, Algorithm: AES256},
	ClassMAC224:     {Role: RoleSharedMaterial, Algorithm: HMACSHA224},
	ClassMAC256:     {Role: RoleSharedMaterial, Algorithm: HMACSHA256},
	ClassMAC384:     {Role: RoleSharedMaterial, Algorithm: HMACSHA384},
	ClassMAC512:     {Role: RoleSharedMaterial, Algorithm: HMACSHA512},
	ClassECSign:     {Role: RoleSharedMaterial, Algorithm: ECP256, Usage: UsageSign},
	ClassECAgree:    {Role: RoleSharedMaterial, Algorithm: ECP256, Usage: UsageAgree},
	ClassRSASign:    {Role: RoleSharedMaterial, Algorithm: RSA2048, Usage: UsageSign},
	ClassRSADecrypt: {Role: RoleSharedMaterial, Algorithm: RSA2048, Usage: UsageDecrypt},
}

// ClassOf returns the class of transport key that carries material of this algorithm and
// usage, or ErrNotSupported if none does.
func ClassOf(a Algorithm, u Usage) (Class, error) {
	for _, c := range Classes {
		s := carried[c]
		same := s.Algorithm == a || ecKeys[s.Algorithm].params != nil && ecKeys[a].params != nil || rsaBits[s.Algorithm] != 0 && rsaBits[a] != 0
		if same && s.Usage == u {
			return c, nil
		}
	}
	return "", fmt.Errorf("no class of transport key carries %s %s: %w", a, u, ErrNotSupported)
}

// Material returns one kind of material that the class carries, without a name.
func (c Class) Material() Spec { return carried[c] }

// Secret reports whether a class carries secret keys rather than private keys.
func (c Class) Secret() bool { return carried[c].Algorithm.Secret() }

// unwrapTemplate is what a class demands of everything that is unwrapped.
func unwrapTemplate(c Class, p Profile) []Attribute { return demandOf(carried[c], p) }

// demandOf is what an unwrap template says for one kind of material: exactly the material's
// own template, but for what names the object. SoftHSM checks that the caller's template
// holds each entry, so an entry that is missing here is the caller's choice: PRIVATE left
// out, for instance, gives a key that works without login.
func demandOf(material Spec, p Profile) []Attribute {
	s := shapeOf(material, p)
	var t []Attribute
	for _, a := range roleTemplates[material.Role][HowUnwrap](material, p, s, nil) {
		if a.Type != pkcs11.CKA_TOKEN { // self-tests unwrap into session objects
			t = append(t, a)
		}
	}
	return t
}

// stepDemand is the template of the AES key between a customer's RSA and the material,
// without what names it and without its own unwrap template, since tokens refuse a template
// in a template: which material it opens is the daemon's word until the wrapping key is gone.
func stepDemand(p Profile) []Attribute {
	spec := Spec{Role: RoleImportStep, Algorithm: AES256}
	s := shapeOf(spec, p)
	s.usage = []uint{pkcs11.CKA_UNWRAP}
	return s.key(nil, fate{unique: true})
}

// wrapTemplate is what a class demands of everything that is wrapped. SoftHSM never matches
// byte strings of private objects here, hence numbers and flags only.
func wrapTemplate(c Class, p Profile) []Attribute {
	s := shapeOf(carried[c], p)
	t := []Attribute{number(pkcs11.CKA_CLASS, s.class), number(pkcs11.CKA_KEY_TYPE, s.keyType)}
	for _, usage := range s.usage {
		t = append(t, flag(usage, true))
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
