package hsm

import (
	"crypto"
	"fmt"

	"github.com/miekg/pkcs11"
)

// bench is where stand-ins are made and used.
type bench struct {
	c        calls
	p        Profile
	made     []pkcs11.ObjectHandle
	failures []string
}

func (b *bench) clear() {
	for _, h := range b.made {
		_ = b.c.destroy(h) // session objects: the session's end takes what is left
	}
}

func (b *bench) fail(format string, args ...any) {
	b.failures = append(b.failures, fmt.Sprintf(format, args...))
}

// keep notes a stand-in for clear.
func (b *bench) keep(h pkcs11.ObjectHandle, err error) (pkcs11.ObjectHandle, error) {
	if err == nil {
		b.made = append(b.made, h)
	}
	return h, err
}

// standInSpecs are made from their templates as they are, but for RSA keys' length: the
// quickest that the profile names stands in for all, and nothing else differs. Single-Region
// material is there for one class of each way to be used: its templates differ from the
// multi-Region ones in the same two entries for all.
var standInSpecs = standIns()

func standIns() (all []Spec) {
	for _, class := range Classes {
		spec := carried[class]
		spec.Name = "stand-in"
		all = append(all, spec)
		if class == ClassAES || class == ClassMAC256 || class == ClassECSign {
			spec.Role = RoleMaterial
			all = append(all, spec)
		}
	}
	return append(all,
		Spec{Role: RoleRegionSigning, Algorithm: ECP384, Usage: UsageSign, Name: "stand-in"},
		Spec{Role: RoleSeal, Algorithm: HMACSHA256, Name: "stand-in"},
		Spec{Role: RoleEstablishment, Algorithm: RSA3072, Name: "stand-in"},
	)
}

// build makes the scene: every role, a transport key per class at both ends, and a
// recorded blob of each class.
func (b *bench) build() (scene, error) {
	s := scene{p: b.p, blobs: Blobs{}}
	var pub, opener pkcs11.ObjectHandle
	for _, spec := range standInSpecs {
		var h pkcs11.ObjectHandle
		var spki []byte
		var err error
		if spec.Role == RoleEstablishment {
			pub, h, err = b.rsaPair(spec)
			opener = h
		} else {
			h, spki, err = standIn(b.c, spec, b.p, b.p.SelfTest.RSABits)
			_, err = b.keep(h, err)
		}
		if err != nil {
			return s, fmt.Errorf("making stand-in for %s: %w", nameOf(spec), err)
		}
		s.victims = append(s.victims, victim{name: nameOf(spec), spec: spec, h: h, spki: spki})
	}
	for _, class := range Classes {
		if err := b.transportPair(&s, class, pub, opener); err != nil {
			return s, fmt.Errorf("making stand-in for transport key of class %s: %w", class, err)
		}
	}
	for _, spec := range b.p.importStandIns() {
		if err := b.importKey(&s, spec); err != nil {
			return s, fmt.Errorf("making stand-in for %s: %w", nameOf(spec), err)
		}
	}
	return s, nil
}

func (b *bench) rsaPair(spec Spec) (pub, priv pkcs11.ObjectHandle, err error) {
	public, err := Template(spec, NewID(), b.p, HowPublicHalf)
	if err != nil {
		return 0, 0, err
	}
	private, err := Template(spec, NewID(), b.p, HowGenerate)
	if err != nil {
		return 0, 0, err
	}
	public = with(public, number(pkcs11.CKA_MODULUS_BITS, uint(b.p.SelfTest.RSABits)))
	pub, priv, err = b.c.generateKeyPair(rawMechanism{code: pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN}, public, private)
	if err != nil {
		return 0, 0, wrapError("C_GenerateKeyPair", err)
	}
	b.made = append(b.made, pub, priv)
	return pub, priv, nil
}

// importStandIns is an import wrapping key for a secret key and one for a private key.
func (p Profile) importStandIns() []Spec {
	one, two := OAEPSHA256Import, RSAAESKeyWrapSHA256
	if !p.takesOAEP(crypto.SHA256) {
		one, two = OAEPSHA1Import, RSAAESKeyWrapSHA1
	}
	return []Spec{
		{Role: RoleImportWrapping, Algorithm: RSA2048, Name: "stand-in", Import: ImportFor{one, RoleMaterial, AES256, UsageNone}},
		{Role: RoleImportWrapping, Algorithm: RSA2048, Name: "stand-in", Import: ImportFor{two, RoleMaterial, ECP256, UsageSign}},
	}
}

// importKey makes an import wrapping key and wraps for it what a customer would, and opens
// that as it is meant.
func (b *bench) importKey(s *scene, spec Spec) error {
	pub, h, err := b.rsaPair(spec)
	if err != nil {
		return err
	}
	loose, err := b.keep(b.c.generateKey(rawMechanism{code: pkcs11.CKM_AES_KEY_GEN}, customersKey()))
	if err != nil {
		return wrapError("C_GenerateKey", err)
	}
	scheme := spec.Import.Scheme
	blob, err := b.c.wrapKey(oaepMechanism(importSchemes[scheme].hash), pub, loose)
	if err != nil {
		return wrapError("C_WrapKey", err)
	}
	if m := b.p.importMechanism(scheme); scheme.KeyWrap() && !b.p.twoSteps(scheme) {
		t, err := sessionTemplate(spec.Import.Material(), b.p, HowGenerate)
		if err != nil {
			return err
		}
		key, _, err := generate(b.c, spec.Import.Material(), b.p, with(t, flag(pkcs11.CKA_EXTRACTABLE, true)), b.p.SelfTest.RSABits)
		if _, err = b.keep(key, err); err != nil {
			return err
		}
		if blob, err = b.c.wrapKey(m, pub, key); err != nil {
			return wrapError("C_WrapKey", err)
		}
	}
	good, _, err := b.p.opening(spec)
	if err != nil {
		return err
	}
	opened, err := b.c.unwrapKey(b.p.importMechanism(scheme), h, blob, good)
	if _, err = b.keep(opened, err); err != nil {
		return wrapError("C_UnwrapKey", err)
	}
	v := victim{name: nameOf(spec), spec: spec, h: h}
	s.victims = append(s.victims, v)
	s.imports = append(s.imports, recordedImport{wrapping: v, blob: blob})
	return nil
}

// customersKey is what somebody else would wrap.
func customersKey() []Attribute {
	return []Attribute{
		number(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), number(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		flag(pkcs11.CKA_TOKEN, false), flag(pkcs11.CKA_PRIVATE, true), flag(pkcs11.CKA_EXTRACTABLE, true), number(pkcs11.CKA_VALUE_LEN, 32)}
}

// transportPair goes through a ceremony in miniature. What the user cannot do is left out
// of the session key: trust, and CKA_PRIVATE=false, which the security officer needs.
func (b *bench) transportPair(s *scene, class Class, pub, opener pkcs11.ObjectHandle) error {
	source := Spec{Role: RoleTransportSource, Algorithm: AES256, Class: class, Name: "stand-in"}
	t, err := sessionTemplate(source, b.p, HowGenerate)
	if err != nil {
		return err
	}
	t = with(without(t, pkcs11.CKA_TRUSTED), flag(pkcs11.CKA_PRIVATE, true))
	from, err := b.keep(b.c.generateKey(rawMechanism{code: pkcs11.CKM_AES_KEY_GEN}, t))
	if err != nil {
		return wrapError("C_GenerateKey", err)
	}
	copied, err := sessionTemplate(source, b.p, HowCopy)
	if err != nil {
		return err
	}
	h, err := b.keep(b.c.copyObject(from, copied))
	if err != nil {
		return wrapError("C_CopyObject", err)
	}
	s.victims = append(s.victims, victim{name: nameOf(source), spec: source, h: h})

	// An untrusted key wraps nothing that is protected, so the recorded blob is wrapped under
	// another key, which has no wrap template, and holds material that demands no trust.
	loose, err := b.keep(b.c.generateKey(rawMechanism{code: pkcs11.CKM_AES_KEY_GEN}, without(t, pkcs11.CKA_WRAP_TEMPLATE)))
	if err != nil {
		return wrapError("C_GenerateKey", err)
	}
	pack, err := b.c.wrapKey(b.p.oaepMechanism(), pub, loose)
	if err != nil {
		return wrapError("C_WrapKey", err)
	}
	s.packages = append(s.packages, pack)
	destination := Spec{Role: RoleTransportDestination, Algorithm: AES256, Class: class, Name: "stand-in"}
	opened, err := sessionTemplate(destination, b.p, HowUnwrap)
	if err != nil {
		return err
	}
	d, err := b.keep(b.c.unwrapKey(b.p.oaepMechanism(), opener, pack, opened))
	if err != nil {
		return wrapError("C_UnwrapKey", err)
	}
	s.victims = append(s.victims, victim{name: nameOf(destination), spec: destination, h: d})
	s.blobs[blobOf(source, class)], err = b.carry(class, loose, d)
	return err
}

// carry wraps material of a class, unwraps it as the class demands and compares.
func (b *bench) carry(class Class, source, destination pkcs11.ObjectHandle) (blob []byte, err error) {
	t, err := sessionTemplate(carried[class], b.p, HowGenerate)
	if err != nil {
		return nil, err
	}
	key, spki, err := generate(b.c, carried[class], b.p, with(t, flag(pkcs11.CKA_WRAP_WITH_TRUSTED, false)), b.p.SelfTest.RSABits)
	if _, err = b.keep(key, err); err != nil {
		return nil, err
	}
	if blob, err = b.c.wrapKey(rawMechanism{code: b.p.wrapMechanism()}, source, key); err != nil {
		return nil, wrapError("C_WrapKey", err)
	}
	if t, err = sessionTemplate(carried[class], b.p, HowUnwrap); err != nil {
		return nil, err
	}
	arrived, err := b.keep(b.c.unwrapKey(rawMechanism{code: b.p.wrapMechanism()}, destination, blob, t))
	if err != nil {
		return nil, wrapError("C_UnwrapKey", err)
	}
	want, err := answerOf(b.c, carried[class], key, spki)
	if err != nil {
		return nil, err
	}
	same, err := isKey(b.c, b.p, carried[class], arrived, want)
	if err != nil {
		return nil, err
	}
	if !same {
		b.fail("material of class %s is another key after wrapping and unwrapping", class)
	}
	return blob, nil
}

// rehearse uses each stand-in for what it is for.
func (b *bench) rehearse(s scene, gcm func(pkcs11.ObjectHandle) error) {
	for _, v := range s.victims {
		same, err := true, error(nil)
		switch {
		case CheckUse(v.spec, UseGCM) == nil:
			err = gcm(v.h)
		case CheckUse(v.spec, UseMAC) == nil:
			_, err = answerOf(b.c, v.spec, v.h, nil)
		case v.spec.Usage != UsageNone:
			same, err = isKey(b.c, b.p, v.spec, v.h, v.spki)
		}
		if err != nil {
			b.fail("%s does not work: %v", v.name, err)
		} else if !same {
			b.fail("%s does not fit its public key", v.name)
		}
	}
}
