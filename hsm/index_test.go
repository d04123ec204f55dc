package hsm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"
)

// plant makes an object with the user PIN, as a thief can, and destroys it after the test.
func plant(t *testing.T, k *Token, template []Attribute) pkcs11.ObjectHandle {
	t.Helper()
	s := k.conn.Load().login
	h, err := k.module.list.createObject(s, template)
	if err != nil {
		t.Fatalf("planting: %v", err)
	}
	t.Cleanup(func() { _ = k.module.ctx.DestroyObject(s, h) }) // some tests destroy it themselves
	return h
}

// known is the template of a key of known bytes that copies every attribute of a role.
func known(t *testing.T, spec Spec, id ID, change ...Attribute) []Attribute {
	t.Helper()
	template, err := Template(spec, id, SoftHSM2(), HowUnwrap)
	if err != nil {
		t.Fatal(err)
	}
	// CKA_MODIFIABLE=false comes last: SoftHSM refuses whatever follows it.
	last := len(template) - 1
	template = slices.Insert(template, last, octets(pkcs11.CKA_VALUE, []byte("0123456789abcdef0123456789abcdef")))
	for _, c := range change {
		i := slices.IndexFunc(template, func(a Attribute) bool { return a.Type == c.Type })
		if i < 0 {
			template = slices.Insert(template, last, c)
			continue
		}
		template[i] = c
	}
	return template
}

// reasonFor returns why the object with this ID and label is in quarantine.
func reasonFor(k *Token, id ID) string {
	for _, q := range k.Quarantined() {
		if q.ID == id.String() {
			return q.Reason
		}
	}
	return ""
}

func TestPlantedKeyShowsItsHistory(t *testing.T) {
	k, _ := openFaulty(t, 1)
	id := NewID()
	plant(t, k, known(t, testAES, id))
	if err := k.Rescan(t.Context()); err != nil {
		t.Fatal(err)
	}
	o, err := k.Lookup(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if o.Local || o.AlwaysSensitive {
		t.Errorf("%+v: a key of known bytes passes for one made in the token", o)
	}
}

func TestQuarantine(t *testing.T) {
	k, _ := openFaulty(t, 1)
	other := Spec{Role: RoleMaterial, Algorithm: AES256, Usage: UsageSign, Name: "x"}
	for _, c := range []struct {
		name   string
		spec   Spec
		change []Attribute
		reason string
	}{
		{"another flag", testAES, []Attribute{flag(pkcs11.CKA_WRAP, true)}, "CKA_WRAP "},
		{"decrypting with a MAC key", testMAC, []Attribute{flag(pkcs11.CKA_DECRYPT, true)}, "CKA_DECRYPT"},
		{"extractable", testAES, []Attribute{flag(pkcs11.CKA_EXTRACTABLE, true)}, "CKA_EXTRACTABLE"},
		{"not sensitive", testAES, []Attribute{flag(pkcs11.CKA_SENSITIVE, false)}, "CKA_SENSITIVE"},
		{"modifiable", testAES, []Attribute{flag(pkcs11.CKA_MODIFIABLE, true)}, "CKA_MODIFIABLE"},
		{"another mechanism", testAES, []Attribute{mechanisms([]uint{pkcs11.CKM_AES_GCM, pkcs11.CKM_AES_ECB, pkcs11.CKM_AES_CBC})}, "CKA_ALLOWED_MECHANISMS"},
		{"another type", testAES, []Attribute{number(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET)}, "CKA_KEY_TYPE"},
		{"no label of ours", testAES, []Attribute{octets(pkcs11.CKA_LABEL, []byte("my key"))}, "label"},
		{"label of an impossible spec", testAES, []Attribute{octets(pkcs11.CKA_LABEL, []byte(other.Label()))}, "label"},
		{"label of another role", testAES, []Attribute{octets(pkcs11.CKA_LABEL, []byte(Spec{Role: RoleSeal, Algorithm: HMACSHA256}.Label()))}, "role \"seal\""},
		{"not private", testAES, []Attribute{flag(pkcs11.CKA_PRIVATE, false)}, "CKA_PRIVATE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := NewID()
			h := plant(t, k, known(t, c.spec, id, c.change...))
			if err := k.Rescan(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := reasonFor(k, id); !strings.Contains(got, c.reason) {
				t.Errorf("reason %q, want one about %q", got, c.reason)
			}
			if _, ok := k.index.get(id); ok {
				t.Error("it is in the index")
			}
			if private := c.name != "not private"; private {
				_, err := k.Lookup(t.Context(), id)
				if !errors.Is(err, ErrQuarantined) {
					t.Errorf("looking it up: %v, want %v", err, ErrQuarantined)
				}
				if err := k.Destroy(t.Context(), id); !errors.Is(err, ErrQuarantined) {
					t.Errorf("destroying it: %v, want %v", err, ErrQuarantined)
				}
			}
			if err := k.module.ctx.DestroyObject(k.conn.Load().login, h); err != nil {
				t.Errorf("it is not there any more: %v", err)
			}
		})
	}
	if err := k.Rescan(t.Context()); err != nil || len(k.Quarantined()) != 0 {
		t.Errorf("at the end: %v, %+v", err, k.Quarantined())
	}
}

// TestAnotherCurve plants a P-384 key under the label of a P-256 key. No attribute of the
// template says what curve it is.
func TestAnotherCurve(t *testing.T) {
	k, _ := openFaulty(t, 1)
	for curve, taken := range map[Algorithm]bool{ECP256: true, ECP384: false} {
		id := NewID()
		scalar := make([]byte, map[Algorithm]int{ECP256: 32, ECP384: 48}[curve])
		scalar[len(scalar)-1] = 7
		plant(t, k, known(t, testEC, id, octets(pkcs11.CKA_EC_PARAMS, ecKeys[curve].params), octets(pkcs11.CKA_VALUE, scalar)))
		if err := k.Rescan(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, ok := k.index.get(id); ok != taken {
			t.Errorf("%s labelled %s: in the index %v, want %v; reason %q", curve, testEC.Algorithm, ok, taken, reasonFor(k, id))
		}
	}
}

// TestOnlyTransportKeysAreTrusted looks at what is expected, since only the security officer
// could plant a trusted key.
func TestOnlyTransportKeysAreTrusted(t *testing.T) {
	k := &Token{cfg: Config{Profile: SoftHSM2()}}
	for _, spec := range everySpec() {
		if spec.Role == RoleEstablishment || spec.Role == RoleImportWrapping || !spec.Algorithm.Secret() {
			continue
		}
		for _, local := range []bool{true, false} {
			want, _, err := k.expected(Object{Spec: spec, Local: local})
			if err != nil {
				continue // not made in this way
			}
			if trusted := isTrue(want[pkcs11.CKA_TRUSTED]); trusted != (spec.Role == RoleTransportSource) || want[pkcs11.CKA_TRUSTED] == nil {
				t.Errorf("role %q, local %v: CKA_TRUSTED is expected to be %x", spec.Role, local, want[pkcs11.CKA_TRUSTED])
			}
		}
	}
}

// TestDuplicateID makes a second key under the ID of a good one.
func TestDuplicateID(t *testing.T) {
	k, _ := openFaulty(t, 1)
	id := material(t, k, testAES)
	h := plant(t, k, known(t, testAES, id))
	if err := k.Rescan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := reasonFor(k, id); !strings.Contains(got, "2 objects") {
		t.Errorf("reason %q", got)
	}
	if _, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), nil); !errors.Is(err, ErrQuarantined) {
		t.Errorf("encrypting: %v, want %v", err, ErrQuarantined)
	}
	if err := k.module.ctx.DestroyObject(k.conn.Load().login, h); err != nil {
		t.Fatal(err)
	}
	if err := k.Rescan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), nil); err != nil {
		t.Errorf("after the second was removed: %v", err)
	}
}

// TestPublicObjectSwitchesNothingOff makes what any local process can make without a PIN.
func TestPublicObjectSwitchesNothingOff(t *testing.T) {
	k, _ := openFaulty(t, 1)
	id := material(t, k, testAES)
	plant(t, k, []Attribute{
		number(pkcs11.CKA_CLASS, pkcs11.CKO_DATA), flag(pkcs11.CKA_TOKEN, true), flag(pkcs11.CKA_PRIVATE, false),
		octets(pkcs11.CKA_LABEL, []byte(testAES.Label())), octets(pkcs11.CKA_OBJECT_ID, id[:]),
	})
	plant(t, k, known(t, testAES, id, flag(pkcs11.CKA_PRIVATE, false)))
	if err := k.Rescan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := len(k.Quarantined()); got != 2 {
		t.Errorf("%d objects in quarantine, want 2: %+v", got, k.Quarantined())
	}
	if _, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), nil); err != nil {
		t.Errorf("the real key: %v", err)
	}
}

func TestUnknownTransportKey(t *testing.T) {
	k, _ := openFaulty(t, 1)
	var ids []ID
	for _, o := range k.Objects() {
		if o.Spec.Role == RoleTransportSource {
			ids = append(ids, o.ID)
		}
	}
	if len(ids) != len(Classes) {
		t.Fatalf("%d source transport keys, want %d", len(ids), len(Classes))
	}
	k.cfg.KnownTransport = func(id ID) bool { return id == ids[0] }
	if err := k.Rescan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := k.index.get(ids[0]); !ok {
		t.Error("the key that a transcript names is not in the index")
	}
	for _, id := range ids[1:] {
		if got := reasonFor(k, id); !strings.Contains(got, "no transcript") {
			t.Errorf("reason %q", got)
		}
	}
}

// TestCE22SearchesAreLimited asks for many objects that are not there.
func TestCE22SearchesAreLimited(t *testing.T) {
	k, _ := openFaulty(t, 1)
	id := material(t, k, testAES)
	before := k.Calls()["C_FindObjects"]
	answers := map[string]int{}
	for range 500 {
		_, err := k.Lookup(t.Context(), NewID())
		switch {
		case errors.Is(err, ErrNotFound):
			answers["not found"]++
		case errors.Is(err, ErrUnavailable):
			answers["unavailable"]++
		default:
			t.Fatalf("got %v", err)
		}
	}
	if got := k.Calls()["C_FindObjects"] - before; got < 1 || got > missBurst+10 {
		t.Errorf("the token was searched %d times", got)
	}
	if answers["not found"] == 0 || answers["unavailable"] == 0 {
		t.Errorf("answers %v: want both kinds", answers)
	}
	if k.conn.Load() == nil {
		t.Error("the limit was taken for a lost token")
	}
	if _, _, err := k.EncryptGCM(t.Context(), id, []byte("aad"), nil); err != nil {
		t.Errorf("a key that is there: %v", err)
	}
	if err := k.Destroy(t.Context(), NewID()); err != nil { // is not limited
		t.Errorf("destroying nothing: %v", err)
	}
}

func TestQuarantineKeepsLabelsPrintable(t *testing.T) {
	if got, want := loggable("a\nb\x1b[31m\xff"+strings.Repeat("x", 300)), "a?b?[31m?"; !strings.HasPrefix(got, want) || len(got) > 256 {
		t.Errorf("got %q", got)
	}
}

func TestSameAttribute(t *testing.T) {
	gcm, ecb := uint(pkcs11.CKM_AES_GCM), uint(pkcs11.CKM_AES_ECB)
	for _, c := range []struct {
		typ       uint
		got, want []byte
		same      bool
	}{
		{pkcs11.CKA_SIGN, []byte{0xFF}, []byte{1}, true},
		{pkcs11.CKA_SIGN, []byte{0}, []byte{1}, false},
		{pkcs11.CKA_SIGN, nil, []byte{0}, false},
		{pkcs11.CKA_SIGN, []byte{}, []byte{0}, false},
		{pkcs11.CKA_ALLOWED_MECHANISMS, mechanisms([]uint{gcm, ecb}).Value, mechanisms([]uint{ecb, gcm}).Value, true},
		{pkcs11.CKA_ALLOWED_MECHANISMS, mechanisms([]uint{gcm}).Value, mechanisms([]uint{ecb, gcm}).Value, false},
		{pkcs11.CKA_ALLOWED_MECHANISMS, []byte{}, mechanisms([]uint{gcm}).Value, false},
		{pkcs11.CKA_CLASS, number(pkcs11.CKA_CLASS, 4).Value, number(pkcs11.CKA_CLASS, 4).Value, true},
		{pkcs11.CKA_CLASS, number(pkcs11.CKA_CLASS, 4).Value, number(pkcs11.CKA_CLASS, 3).Value, false},
	} {
		t.Run(fmt.Sprintf("%s %x %x", attributeName(c.typ), c.got, c.want), func(t *testing.T) {
			if got := sameAttribute(c.typ, c.got, c.want); got != c.same {
				t.Errorf("got %v, want %v", got, c.same)
			}
		})
	}
}

// TestTransportTemplates plants transport keys that differ in their templates only. A
// destination transport key needs no trust, so that the user PIN makes one.
func TestTransportTemplates(t *testing.T) {
	k, _ := openFaulty(t, 1)
	spec := Spec{Role: RoleTransportDestination, Algorithm: AES256, Class: ClassAES, Name: "planted"}
	template := func(id ID) (all []Attribute, at int) {
		all = known(t, spec, id)
		return all, slices.IndexFunc(all, func(a Attribute) bool { return a.Type == pkcs11.CKA_UNWRAP_TEMPLATE })
	}
	for _, c := range []struct {
		name   string
		change func(all []Attribute, at int) []Attribute
		taken  bool
	}{
		{"as it should be", func(all []Attribute, _ int) []Attribute { return all }, true},
		{"no template", func(all []Attribute, at int) []Attribute { return slices.Delete(all, at, at+1) }, false},
		{"one entry less", func(all []Attribute, at int) []Attribute {
			all[at].Nested = all[at].Nested[1:]
			return all
		}, false},
		{"one value changed", func(all []Attribute, at int) []Attribute {
			nested := slices.Clone(all[at].Nested)
			i := slices.IndexFunc(nested, func(a Attribute) bool { return a.Type == pkcs11.CKA_WRAP_WITH_TRUSTED })
			nested[i] = flag(pkcs11.CKA_WRAP_WITH_TRUSTED, false)
			all[at].Nested = nested
			return all
		}, false},
		{"one entry more", func(all []Attribute, at int) []Attribute {
			all[at].Nested = append(slices.Clone(all[at].Nested), flag(pkcs11.CKA_TOKEN, true))
			return all
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := NewID()
			plant(t, k, c.change(template(id)))
			if err := k.Rescan(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, ok := k.index.get(id); ok != c.taken {
				t.Errorf("in the index: %v, want %v; reason %q", ok, c.taken, reasonFor(k, id))
			}
			if got := reasonFor(k, id); !c.taken && !strings.Contains(got, "CKA_UNWRAP_TEMPLATE") {
				t.Errorf("reason %q", got)
			}
		})
	}
}

// Objects come and go while the token is read, whoever makes them. One that goes between two
// calls is left out; the others are found.
func TestObjectsThatGoWhileRead(t *testing.T) {
	k, f := openFaulty(t, 1)
	ids := []ID{material(t, k, testAES), material(t, k, testMAC)}
	all := len(k.Objects())
	calls := 0
	counting := func(string) error { calls++; return nil }
	f.set(counting)
	if err := k.Rescan(t.Context()); err != nil {
		t.Fatal(err)
	}
	reads := calls
	for gone := range reads {
		calls = 0
		hit := false
		f.set(func(function string) error {
			calls++
			if function != "C_GetAttributeValue" || calls != gone+1 {
				return nil
			}
			hit = true
			return wrapError(function, pkcs11.Error(pkcs11.CKR_OBJECT_HANDLE_INVALID))
		})
		err := k.Rescan(t.Context())
		f.set(nil)
		if err != nil {
			t.Fatalf("call %d of %d met an object that is gone: %v", gone+1, reads, err)
		}
		if got := len(k.Objects()); hit && got != all-1 || !hit && got != all {
			t.Errorf("call %d of %d: %d objects, want all but one of %d", gone+1, reads, got, all)
		}
	}
	if err := k.Rescan(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if _, ok := k.index.get(id); !ok {
			t.Errorf("%s is not found again", id)
		}
	}
}
