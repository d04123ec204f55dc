package hsm

import (
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// planUnwrapMechanism unwraps recorded blobs with destination keys by every other
// mechanism, and with source keys by every mechanism.
func planUnwrapMechanism(s scene, c calls) (plan []trial, _ error) {
	codes, err := c.mechanisms(pkcs11.CKF_UNWRAP)
	if err != nil {
		return nil, wrapError("C_GetMechanismInfo", err)
	}
	for _, t := range s.having(RoleTransportSource, RoleTransportDestination) {
		good, err := sessionTemplate(carried[t.spec.Class], s.p, HowUnwrap)
		if err != nil {
			return nil, err
		}
		for _, code := range codes {
			if isRSA(code) || t.spec.Role == RoleTransportDestination && code == s.p.wrapMechanism() {
				continue
			}
			plan = append(plan, trial{t.name, fmt.Sprintf("unwrap a recorded blob by mechanism 0x%X", code), "C_UnwrapKey", func(c calls) error {
				h, err := c.unwrapKey(s.p.parametrised(code), t.h, s.blobs[blobOf(t.spec, t.spec.Class)], good)
				return made(c, h, err)
			}})
		}
	}
	return plan, nil
}

// planUnwrapTemplate unwraps recorded blobs with their own destination key, as something
// that the class does not allow; and with the keys of other classes.
func planUnwrapTemplate(s scene, _ calls) (plan []trial, _ error) {
	for _, t := range s.having(RoleTransportDestination) {
		good, err := sessionTemplate(carried[t.spec.Class], s.p, HowUnwrap)
		if err != nil {
			return nil, err
		}
		demand := unwrapTemplate(t.spec.Class, s.p)
		for _, w := range weaker(good, demand) {
			plan = append(plan, trial{t.name, "unwrap a recorded blob with " + w.words, "C_UnwrapKey", func(c calls) error {
				h, err := c.unwrapKey(rawMechanism{code: s.p.wrapMechanism()}, t.h, s.blobs[blobOf(t.spec, t.spec.Class)], w.t)
				return madeAs(c, h, err, demand)
			}})
		}
		for _, other := range Classes {
			if other == t.spec.Class {
				continue
			}
			as, err := sessionTemplate(carried[other], s.p, HowUnwrap)
			if err != nil {
				return nil, err
			}
			plan = append(plan,
				trial{t.name, fmt.Sprintf("unwrap a recorded blob as class %s", other), "C_UnwrapKey", func(c calls) error {
					h, err := c.unwrapKey(rawMechanism{code: s.p.wrapMechanism()}, t.h, s.blobs[blobOf(t.spec, t.spec.Class)], as)
					return made(c, h, err)
				}},
				trial{t.name, fmt.Sprintf("unwrap a recorded blob of class %s", other), "C_UnwrapKey", func(c calls) error {
					h, err := c.unwrapKey(rawMechanism{code: s.p.wrapMechanism()}, t.h, s.blobs[blobOf(t.spec, other)], good)
					return made(c, h, err)
				}})
		}
	}
	return plan, nil
}

// planUnwrapEstablishment opens a transport key with its establishment key as something
// else than a destination transport key. Only a self-test has such a key to attack: the
// real one is a session object of the accept process.
func planUnwrapEstablishment(s scene, c calls) (plan []trial, _ error) {
	codes, err := c.mechanisms(pkcs11.CKF_UNWRAP)
	if err != nil {
		return nil, wrapError("C_GetMechanismInfo", err)
	}
	for _, t := range s.having(RoleEstablishment) {
		good, err := sessionTemplate(Spec{Role: RoleTransportDestination, Algorithm: AES256, Class: ClassAES}, s.p, HowUnwrap)
		if err != nil {
			return nil, err
		}
		demand := destinationDemand(s.p)
		for _, pack := range s.packages[:1] { // the demand is the same for every class
			for _, w := range weaker(good, demand) {
				plan = append(plan, trial{t.name, "open a package with " + w.words, "C_UnwrapKey", func(c calls) error {
					h, err := c.unwrapKey(s.p.oaepMechanism(), t.h, pack, w.t)
					return madeAs(c, h, err, demand)
				}})
			}
			for _, code := range codes {
				if !isRSA(code) || code == pkcs11.CKM_RSA_PKCS_OAEP {
					continue
				}
				plan = append(plan, trial{t.name, fmt.Sprintf("open a package by mechanism 0x%X", code), "C_UnwrapKey", func(c calls) error {
					h, err := c.unwrapKey(s.p.parametrised(code), t.h, pack, good)
					return made(c, h, err)
				}})
			}
			plan = append(plan, trial{t.name, "decrypt a package as a message", "C_Decrypt", func(c calls) error {
				_, err := c.decrypt(s.p.oaepMechanism(), t.h, pack)
				return err
			}})
		}
	}
	return plan, nil
}

// planUnwrapImport opens what customers wrapped with the key that is for it, as something
// weaker or something else, and uses that key for anything besides.
func planUnwrapImport(s scene, c calls) (plan []trial, _ error) {
	codes, err := c.mechanisms(pkcs11.CKF_UNWRAP)
	if err != nil {
		return nil, wrapError("C_GetMechanismInfo", err)
	}
	for _, i := range s.imports {
		v, m := i.wrapping, s.p.importMechanism(i.wrapping.spec.Import.Scheme)
		good, demand, err := s.p.opening(v.spec)
		if err != nil {
			return nil, err
		}
		as := func(words string, m rawMechanism, t []Attribute) {
			plan = append(plan, trial{v.name, "open an import " + words, "C_UnwrapKey", func(c calls) error {
				h, err := c.unwrapKey(m, v.h, i.blob, t)
				return madeAs(c, h, err, demand)
			}})
		}
		for _, w := range weaker(good, demand) {
			as("with "+w.words, m, w.t)
		}
		for _, class := range Classes {
			other, err := sessionTemplate(carried[class], s.p, HowUnwrap)
			if err != nil {
				return nil, err
			}
			as("as multi-Region material of class "+string(class), m, other)
		}
		for _, code := range codes {
			if isRSA(code) && code != m.code {
				as(fmt.Sprintf("by mechanism 0x%X", code), s.p.parametrised(code), good)
			}
		}
		plan = append(plan,
			trial{v.name, "decrypt an import as a message", "C_Decrypt", func(c calls) error {
				_, err := c.decrypt(s.p.oaepMechanism(), v.h, i.blob)
				return err
			}},
			trial{v.name, "decrypt an import by RSA alone", "C_Decrypt", func(c calls) error {
				_, err := c.decrypt(rawMechanism{code: pkcs11.CKM_RSA_X_509}, v.h, i.blob)
				return err
			}})
	}
	return plan, nil
}

// opening returns the template by which the first step of an import is opened into a
// session object, and what the wrapping key demands of it.
func (p Profile) opening(wrapping Spec) (good, demand []Attribute, err error) {
	if p.twoSteps(wrapping.Import.Scheme) {
		good, err = Template(Spec{Role: RoleImportStep, Algorithm: AES256, Import: wrapping.Import}, NewID(), p, HowUnwrap)
		return good, stepDemand(p), err
	}
	good, err = sessionTemplate(wrapping.Import.Material(), p, HowUnwrap)
	return good, demandOf(wrapping.Import.Material(), p), err
}

// planOpenPackage opens recorded packages with every private key that is not the
// establishment key they were made for, and with one of the thief's own.
func planOpenPackage(s scene, _ calls) (plan []trial, _ error) {
	good, err := sessionTemplate(Spec{Role: RoleTransportDestination, Algorithm: AES256, Class: ClassAES}, s.p, HowUnwrap)
	if err != nil {
		return nil, err
	}
	keys := []victim{{name: "an RSA key of one's own", h: s.own.priv}}
	for _, v := range s.victims {
		if v.spec.Role != RoleEstablishment && shapeOf(v.spec, s.p).class == pkcs11.CKO_PRIVATE_KEY {
			keys = append(keys, v)
		}
	}
	for i, pack := range s.packages {
		for _, k := range keys {
			plan = append(plan, trial{k.name, fmt.Sprintf("open recorded package %d", i+1), "C_UnwrapKey", func(c calls) error {
				h, err := c.unwrapKey(s.p.oaepMechanism(), k.h, pack, good)
				return made(c, h, err)
			}})
		}
	}
	return plan, nil
}

// variation is a template that a token must refuse.
type variation struct {
	words string
	t     []Attribute
}

// weaker returns good with each demanded entry left out, contradicted and given twice, and
// with other key types and lengths.
func weaker(good, demand []Attribute) (out []variation) {
	for _, d := range demand {
		name := attributeName(d.Type)
		bad := contradiction(d)
		at := slices.IndexFunc(good, func(a Attribute) bool { return a.Type == d.Type })
		out = append(out,
			variation{name + " left out", without(good, d.Type)},
			variation{name + " contradicted", with(good, bad)},
			variation{name + " twice, the other value first", slices.Insert(slices.Clone(good), at, bad)},
			variation{name + " twice, the other value last", slices.Insert(slices.Clone(good), at+1, bad)})
	}
	out = append(out, variation{"CKA_TRUSTED besides", slices.Insert(slices.Clone(good), 2, flag(pkcs11.CKA_TRUSTED, true))})
	for _, k := range []uint{pkcs11.CKK_AES, pkcs11.CKK_GENERIC_SECRET, pkcs11.CKK_DES, pkcs11.CKK_DES2, pkcs11.CKK_DES3, pkcs11.CKK_SHA256_HMAC, pkcs11.CKK_RSA, pkcs11.CKK_EC, pkcs11.CKK_DSA} {
		a := number(pkcs11.CKA_KEY_TYPE, k)
		if i := slices.IndexFunc(good, func(g Attribute) bool { return g.Type == a.Type }); string(good[i].Value) != string(a.Value) {
			out = append(out, variation{fmt.Sprintf("key type 0x%X", k), with(good, a)})
		}
	}
	for _, n := range []uint{1, 16} {
		a := number(pkcs11.CKA_VALUE_LEN, n)
		t := slices.Insert(without(good, a.Type), 2, a)
		out = append(out, variation{fmt.Sprintf("length %d", n), t})
	}
	return out
}

// contradiction returns the attribute with another value.
func contradiction(a Attribute) Attribute {
	switch {
	case a.Type == pkcs11.CKA_CLASS && string(a.Value) == string(number(a.Type, pkcs11.CKO_SECRET_KEY).Value):
		return number(a.Type, pkcs11.CKO_PRIVATE_KEY)
	case a.Type == pkcs11.CKA_CLASS:
		return number(a.Type, pkcs11.CKO_SECRET_KEY)
	case a.Type == pkcs11.CKA_KEY_TYPE:
		switch string(a.Value) {
		case string(number(a.Type, pkcs11.CKK_EC).Value):
			return number(a.Type, pkcs11.CKK_RSA)
		case string(number(a.Type, pkcs11.CKK_RSA).Value):
			return number(a.Type, pkcs11.CKK_EC)
		}
		return number(a.Type, pkcs11.CKK_DES3)
	case a.Type == pkcs11.CKA_ALLOWED_MECHANISMS:
		return Attribute{Type: a.Type, Value: append(slices.Clone(a.Value), mechanisms([]uint{pkcs11.CKM_AES_CBC}).Value...)}
	case len(a.Value) == 1:
		return flag(a.Type, a.Value[0] == 0)
	}
	return octets(a.Type, append(slices.Clone(a.Value), 0))
}
