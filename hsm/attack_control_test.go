package hsm

import (
	"context"
	"slices"
	"testing"

	"github.com/miekg/pkcs11"
)

// RunOnUnprotected makes every attack on keys that are protected in nothing, so that the
// refusals of protected ones mean something. It is called from the outside tests, which
// have a token.
func RunOnUnprotected(t *testing.T, tok *Token) []Attempt {
	t.Helper()
	attempts, err := onOwnSession(context.Background(), tok, "control", func(raw rawSession) (all []Attempt, err error) {
		changes := func(a attack) bool { return a.name == "set-attribute" || a.name == "copy-attribute" }
		for _, changing := range []bool{false, true} {
			rows := slices.DeleteFunc(slices.Clone(attacks), func(a attack) bool { return changes(a) != changing })
			slices.Reverse(rows) // copies first: what is set stays set
			b := &bench{c: raw, p: tok.cfg.Profile}
			scene := unprotected(b, changing)
			if scene.own, err = arm(raw); err != nil {
				return nil, err
			}
			some, err := scene.try(raw, rows)
			if err != nil {
				return nil, err
			}
			all = append(all, some...)
		}
		return all, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return attempts
}

// lax returns the template with every protection off, or only with those against changes.
func lax(template []Attribute, changesOnly bool) []Attribute {
	var out []Attribute
	for _, a := range template {
		switch {
		case a.Type == pkcs11.CKA_TOKEN:
			a = flag(a.Type, false)
		case a.Type == pkcs11.CKA_EXTRACTABLE, a.Type == pkcs11.CKA_MODIFIABLE, a.Type == pkcs11.CKA_COPYABLE:
			a = flag(a.Type, true)
		case a.Type == pkcs11.CKA_TRUSTED, a.Nested != nil:
			continue
		case changesOnly:
		case slices.Contains(secretFlags, a.Type) || slices.Contains(privateFlags, a.Type):
			a = flag(a.Type, a.Type != pkcs11.CKA_SIGN_RECOVER)
		case a.Type == pkcs11.CKA_SENSITIVE, a.Type == pkcs11.CKA_WRAP_WITH_TRUSTED:
			a = flag(a.Type, false)
		case a.Type == pkcs11.CKA_ALLOWED_MECHANISMS:
			continue
		}
		out = append(out, a)
	}
	return out
}

// unprotected builds a scene of such keys. It panics, because it runs inside do, which turns
// that into an error, and where t.Fatal would end the wrong goroutine.
func unprotected(b *bench, changesOnly bool) scene {
	s := scene{p: b.p, blobs: Blobs{}}
	must := func(h pkcs11.ObjectHandle, err error) pkcs11.ObjectHandle {
		if err != nil {
			panic(err)
		}
		b.made = append(b.made, h)
		return h
	}
	template := func(spec Spec, how How) []Attribute {
		a, err := Template(spec, NewID(), b.p, how)
		if err != nil {
			panic(err)
		}
		return lax(a, changesOnly)
	}
	var opener, pub pkcs11.ObjectHandle
	for _, spec := range standInSpecs {
		var h pkcs11.ObjectHandle
		var err error
		if spec.Role == RoleEstablishment {
			public, perr := Template(spec, NewID(), b.p, HowPublicHalf)
			if perr != nil {
				panic(perr)
			}
			pub, h, err = b.c.generateKeyPair(rawMechanism{code: pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN},
				with(public, number(pkcs11.CKA_MODULUS_BITS, uint(b.p.SelfTest.RSABits))), template(spec, HowGenerate))
			opener = h
			b.made = append(b.made, pub)
		} else {
			h, _, err = generate(b.c, spec, b.p, template(spec, HowGenerate), b.p.SelfTest.RSABits)
		}
		s.victims = append(s.victims, victim{name: nameOf(spec), spec: spec, h: must(h, err)})
	}
	for _, spec := range b.p.importStandIns() {
		public, err := Template(spec, NewID(), b.p, HowPublicHalf)
		if err != nil {
			panic(err)
		}
		public = with(public, number(pkcs11.CKA_MODULUS_BITS, uint(b.p.SelfTest.RSABits)))
		pub, priv, err := b.c.generateKeyPair(rawMechanism{code: pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN}, public, template(spec, HowGenerate))
		if err != nil {
			panic(err)
		}
		b.made = append(b.made, pub, priv)
		blob, err := b.c.wrapKey(b.p.oaepMechanism(), pub, must(b.c.generateKey(rawMechanism{code: pkcs11.CKM_AES_KEY_GEN}, customersKey())))
		if err != nil {
			panic(err)
		}
		v := victim{name: nameOf(spec), spec: spec, h: priv}
		s.victims = append(s.victims, v)
		s.imports = append(s.imports, recordedImport{v, blob})
	}
	for _, class := range Classes {
		source := Spec{Role: RoleTransportSource, Algorithm: AES256, Class: class, Name: "control"}
		destination := Spec{Role: RoleTransportDestination, Algorithm: AES256, Class: class, Name: "control"}
		h := must(b.c.generateKey(rawMechanism{code: pkcs11.CKM_AES_KEY_GEN}, with(template(source, HowGenerate), flag(pkcs11.CKA_PRIVATE, true))))
		pack, err := b.c.wrapKey(b.p.oaepMechanism(), pub, h)
		if err != nil {
			panic(err)
		}
		s.packages = append(s.packages, pack)
		d := must(b.c.unwrapKey(b.p.oaepMechanism(), opener, pack, template(destination, HowUnwrap)))
		s.victims = append(s.victims, victim{name: nameOf(source), spec: source, h: h}, victim{name: nameOf(destination), spec: destination, h: d})
		if changesOnly {
			continue // set and copy need no blobs
		}
		for _, v := range s.victims {
			if c, err := ClassOf(v.spec.Algorithm, v.spec.Usage); err == nil && c == class && v.spec.Role == RoleSharedMaterial {
				blob, err := b.c.wrapKey(rawMechanism{code: b.p.wrapMechanism()}, h, v.h)
				if err != nil {
					panic(err)
				}
				s.blobs[blobOf(source, class)] = blob
			}
		}
	}
	return s
}
