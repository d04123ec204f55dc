package hsm

import (
	"bytes"
	"crypto"
	goflag "flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/pkcs11"
)

var updateGolden = goflag.Bool("update", false, "write testdata/templates.txt")

// templateSpecs is one spec for each role, algorithm, usage and class.
func templateSpecs() (all []Spec) {
	for role, algorithms := range roles {
		for a, usages := range algorithms {
			for _, u := range usages {
				s := Spec{Role: role, Algorithm: a, Usage: u, Name: "name"}
				if role == RoleImportWrapping || role == RoleImportStep {
					// The wrapping key's length and hash show nowhere else.
					all = append(all, slices.DeleteFunc(importSpecs(s), func(s Spec) bool {
						return s.Import.Scheme.Hash() != crypto.SHA1 || s.Algorithm == RSA3072 || s.Algorithm == RSA4096
					})...)
					continue
				}
				if role != RoleTransportSource && role != RoleTransportDestination {
					all = append(all, s)
					continue
				}
				for _, s.Class = range Classes {
					all = append(all, s)
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b Spec) int { return strings.Compare(a.Label(), b.Label()) })
	return all
}

// importSpecs is the spec for every scheme and kind of material that fits.
func importSpecs(s Spec) (all []Spec) {
	for _, scheme := range ImportSchemes {
		for _, role := range materialRoles {
			for a, usages := range materials {
				for _, u := range usages {
					if s.Import = (ImportFor{scheme, role, a, u}); s.Check() == nil {
						all = append(all, s)
					}
				}
			}
		}
	}
	return all
}

var hows = []struct {
	how  How
	name string
}{{HowGenerate, "generate"}, {HowPublicHalf, "public half"}, {HowUnwrap, "unwrap"}, {HowCopy, "copy"}}

// each calls fn for every template that there is.
func each(t *testing.T, fn func(name string, s Spec, how How, template []Attribute)) {
	t.Helper()
	for _, s := range templateSpecs() {
		for _, h := range hows {
			if _, ok := roleTemplates[s.Role][h.how]; !ok {
				continue
			}
			if shapeOf(s, SoftHSM2()).class == pkcs11.CKO_SECRET_KEY && h.how == HowPublicHalf {
				continue
			}
			template, err := Template(s, ID{1, 2, 3}, SoftHSM2(), h.how)
			if err != nil {
				t.Fatal(err)
			}
			fn(s.Label()+", "+h.name, s, h.how, template)
		}
	}
}

// The full list of every template, entry by entry and in order, is reviewed as a file: a
// change here changes what tokens enforce.
func TestTemplatesAreThoseReviewed(t *testing.T) {
	var b bytes.Buffer
	each(t, func(name string, _ Spec, _ How, template []Attribute) {
		fmt.Fprintf(&b, "%s\n", name)
		render(&b, "  ", template)
	})
	const path = "testdata/templates.txt"
	if *updateGolden {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("templates differ from %s (-want +got):\n%s", path, d)
	}
}

func render(b *bytes.Buffer, indent string, template []Attribute) {
	for _, a := range template {
		name := templateNames[a.Type]
		if name == "" {
			name = attributeName(a.Type)
		}
		if a.Nested != nil {
			fmt.Fprintf(b, "%s%s\n", indent, name)
			render(b, indent+"  ", a.Nested)
			continue
		}
		v := fmt.Sprintf("%x", a.Value)
		if len(a.Value) == 1 {
			v = fmt.Sprint(a.Value[0] == 1)
		}
		if a.Type == pkcs11.CKA_LABEL {
			v = string(a.Value)
		}
		fmt.Fprintf(b, "%s%s %s\n", indent, name, v)
	}
}

var templateNames = map[uint]string{
	pkcs11.CKA_WRAP_TEMPLATE: "CKA_WRAP_TEMPLATE", pkcs11.CKA_UNWRAP_TEMPLATE: "CKA_UNWRAP_TEMPLATE",
	pkcs11.CKA_VALUE_LEN: "CKA_VALUE_LEN", pkcs11.CKA_CHECK_VALUE: "CKA_CHECK_VALUE",
	pkcs11.CKA_MODULUS_BITS: "CKA_MODULUS_BITS", pkcs11.CKA_PUBLIC_EXPONENT: "CKA_PUBLIC_EXPONENT",
	pkcs11.CKA_VERIFY_RECOVER: "CKA_VERIFY_RECOVER", pkcs11.CKA_EC_PARAMS: "CKA_EC_PARAMS",
}

// What every template has in common, whatever its role.
func TestTemplatesStateEverything(t *testing.T) {
	each(t, func(name string, s Spec, how How, template []Attribute) {
		value := map[uint][]byte{}
		for _, a := range template {
			if _, twice := value[a.Type]; twice {
				t.Errorf("%s: %s twice", name, attributeName(a.Type))
			}
			value[a.Type] = a.Value
		}
		is := func(typ uint, want bool) {
			t.Helper()
			if got, ok := value[typ]; !ok || isTrue(got) != want {
				t.Errorf("%s: %s is %v (stated %v), want %v", name, attributeName(typ), isTrue(got), ok, want)
			}
		}
		if last := template[len(template)-1]; last.Type != pkcs11.CKA_MODIFIABLE {
			t.Errorf("%s: %s comes last, want CKA_MODIFIABLE", name, attributeName(last.Type))
		}
		// The security officer's session key is the one exception; it is copied and destroyed.
		officers := s.Role == RoleTransportSource && how == HowGenerate
		is(pkcs11.CKA_PRIVATE, !officers)
		is(pkcs11.CKA_MODIFIABLE, officers)
		if how == HowCopy {
			return // a copy states what it changes
		}
		is(pkcs11.CKA_TOKEN, s.Role != RoleEstablishment && s.Role != RoleImportStep && how != HowPublicHalf && !officers)
		shape := shapeOf(s, SoftHSM2())
		all, on := secretFlags, shape.usage
		switch {
		case how == HowPublicHalf:
			all, on = publicFlags, shape.publicUsage
		case shape.class == pkcs11.CKO_PRIVATE_KEY:
			all = privateFlags
		}
		if s.Role == RoleTransportDestination || s.Role == RoleImportStep {
			on = []uint{pkcs11.CKA_UNWRAP}
		}
		for _, f := range all {
			is(f, slices.Contains(on, f))
		}
		if how == HowPublicHalf {
			return
		}
		is(pkcs11.CKA_SENSITIVE, true)
		is(pkcs11.CKA_COPYABLE, officers)
		is(pkcs11.CKA_EXTRACTABLE, s.Role == RoleSharedMaterial || officers)
		is(pkcs11.CKA_WRAP_WITH_TRUSTED, s.Role == RoleSharedMaterial)
		if len(value[pkcs11.CKA_ALLOWED_MECHANISMS]) == 0 {
			t.Errorf("%s: any mechanism is allowed", name)
		}
		if v, ok := value[pkcs11.CKA_CHECK_VALUE]; shape.class == pkcs11.CKO_SECRET_KEY && (ok != (how == HowGenerate) || len(v) != 0) {
			t.Errorf("%s: CKA_CHECK_VALUE is %x (stated %v)", name, v, ok)
		}
	})
}

// Nobody both wraps and unwraps, and nobody who does either also encrypts or decrypts.
func TestNoTemplateCombinesPowers(t *testing.T) {
	each(t, func(name string, s Spec, how How, template []Attribute) {
		on := func(typ uint) bool {
			return slices.ContainsFunc(template, func(a Attribute) bool { return a.Type == typ && isTrue(a.Value) })
		}
		powers := 0
		for _, typ := range []uint{pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE} {
			if on(typ) {
				powers++
			}
		}
		uses := on(pkcs11.CKA_ENCRYPT) || on(pkcs11.CKA_DECRYPT) || on(pkcs11.CKA_SIGN) || on(pkcs11.CKA_VERIFY)
		if powers > 1 || powers == 1 && uses {
			t.Errorf("%s combines powers", name)
		}
		if on(pkcs11.CKA_TRUSTED) && s.Role != RoleTransportSource {
			t.Errorf("%s is trusted", name)
		}
	})
}

// The demand of each destination key is met, entry for entry, by the template of the
// material that it carries, and says no template inside a template, which SoftHSM refuses.
func TestDemandsAreMet(t *testing.T) {
	for _, c := range Classes {
		got, err := Template(carried[c], NewID(), SoftHSM2(), HowUnwrap)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range unwrapTemplate(c, SoftHSM2()) {
			if d.Nested != nil {
				t.Errorf("class %s: a template inside a template", c)
			}
			if !slices.ContainsFunc(got, func(a Attribute) bool { return a.Type == d.Type && bytes.Equal(a.Value, d.Value) }) {
				t.Errorf("class %s: %s is demanded and not given", c, attributeName(d.Type))
			}
		}
		if cls, err := ClassOf(carried[c].Algorithm, carried[c].Usage); err != nil || cls != c {
			t.Errorf("class %s carries what ClassOf says belongs to %q (%v)", c, cls, err)
		}
	}
	if len(carried) != len(Classes) {
		t.Errorf("%d classes carry something, of %d", len(carried), len(Classes))
	}
}

// Everything that ClassOf sends through a class has the shape that the class demands.
func TestClassesAreOfOneShape(t *testing.T) {
	for _, s := range templateSpecs() {
		if s.Role != RoleSharedMaterial {
			continue
		}
		c, err := ClassOf(s.Algorithm, s.Usage)
		if err != nil {
			continue // made in one Region only
		}
		got := shapeOf(s, SoftHSM2())
		want := shapeOf(carried[c], SoftHSM2())
		if got.class != want.class || !slices.Equal(got.usage, want.usage) || !slices.Equal(got.allowed, want.allowed) ||
			got.class == pkcs11.CKO_SECRET_KEY && got.keyType != want.keyType {
			t.Errorf("%s %s does not fit class %s", s.Algorithm, s.Usage, c)
		}
	}
}

func TestTemplateRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		s   Spec
		how How
	}{
		"a spec that is none":           {Spec{Role: RoleSeal, Algorithm: AES256}, HowGenerate},
		"a transport key without class": {Spec{Role: RoleTransportSource, Algorithm: AES256}, HowGenerate},
		"a source by unwrap":            {Spec{Role: RoleTransportSource, Algorithm: AES256, Class: ClassAES}, HowUnwrap},
		"a destination by generation":   {Spec{Role: RoleTransportDestination, Algorithm: AES256, Class: ClassAES}, HowGenerate},
		"material by copy":              {Spec{Role: RoleMaterial, Algorithm: AES256}, HowCopy},
		"a seal key by unwrap":          {Spec{Role: RoleSeal, Algorithm: HMACSHA256}, HowUnwrap},
	} {
		if got, err := Template(c.s, NewID(), SoftHSM2(), c.how); err == nil {
			t.Errorf("%s: %d attributes", name, len(got))
		}
	}
}
