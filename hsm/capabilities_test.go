package hsm

import (
	"strings"
	"testing"

	"github.com/miekg/pkcs11"
)

// everything offers all that the softhsm2 profile needs.
func everything() offers {
	p := SoftHSM2()
	o := offers{p.wrapMechanism(): {Flags: pkcs11.CKF_WRAP | pkcs11.CKF_UNWRAP}}
	for _, row := range p.mechanismTable() {
		o[row.generate] = pkcs11.MechanismInfo{MinKeySize: 112, MaxKeySize: 521, Flags: row.generateFlag()}
		for _, m := range row.use {
			o[m] = pkcs11.MechanismInfo{Flags: row.useFlags}
		}
	}
	return o
}

func TestCapabilities(t *testing.T) {
	type can struct{ generate, use, wrap bool }
	for _, c := range []struct {
		name   string
		change func(o offers, p *Profile)
		aes    can
		p384   can
		says   string // of AES
	}{
		{"everything", func(offers, *Profile) {}, can{true, true, true}, can{true, true, true}, ""},
		{"no GCM", func(o offers, _ *Profile) { delete(o, pkcs11.CKM_AES_GCM) }, can{true, false, true}, can{true, true, true}, "CKM_AES_GCM"},
		{"GCM encrypts only", func(o offers, _ *Profile) { o[pkcs11.CKM_AES_GCM] = pkcs11.MechanismInfo{Flags: pkcs11.CKF_ENCRYPT} },
			can{true, false, true}, can{true, true, true}, "CKM_AES_GCM"},
		{"no AES keys", func(o offers, _ *Profile) { delete(o, pkcs11.CKM_AES_KEY_GEN) }, can{false, true, true}, can{true, true, true}, "CKM_AES_KEY_GEN"},
		{"no wrapping", func(o offers, _ *Profile) { delete(o, 0x210A) }, can{true, true, false}, can{true, true, false}, "0x210A"},
		{"wraps but does not unwrap", func(o offers, _ *Profile) { o[0x210A] = pkcs11.MechanismInfo{Flags: pkcs11.CKF_WRAP} },
			can{true, true, false}, can{true, true, false}, "0x210A"},
		{"nobody is trusted", func(_ offers, p *Profile) { p.TrustedBy = TrustedByNobody }, can{true, true, false}, can{true, true, false}, "CKA_TRUSTED"},
		{"small curves only", func(o offers, _ *Profile) {
			o[pkcs11.CKM_EC_KEY_PAIR_GEN] = pkcs11.MechanismInfo{MinKeySize: 112, MaxKeySize: 256, Flags: pkcs11.CKF_GENERATE_KEY_PAIR}
		}, can{true, true, true}, can{false, true, true}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, p := everything(), SoftHSM2()
			c.change(o, &p)
			got := capabilities(p, o)
			for _, x := range []struct {
				k    Capability
				want can
			}{{got.Of(AES256, UsageNone), c.aes}, {got.Of(ECP384, UsageSign), c.p384}} {
				if (can{x.k.Generate, x.k.Use, x.k.Wrap}) != x.want {
					t.Errorf("got %+v, want %+v", x.k, x.want)
				}
				if complete := x.k.Generate && x.k.Use && x.k.Wrap; complete != (x.k.Limit == "") {
					t.Errorf("%+v: limit and capability do not agree", x.k)
				}
			}
			if limit := got.Of(AES256, UsageNone).Limit; !strings.Contains(limit, c.says) {
				t.Errorf("limit %q does not name %q", limit, c.says)
			}
		})
	}
}

// TestGenerateRefusesWhatTheTokenCannotWrap makes nothing that could never be replicated.
func TestGenerateRefusesWhatTheTokenCannotWrap(t *testing.T) {
	k, _ := openFaulty(t, 1)
	o := everything()
	delete(o, k.cfg.Profile.wrapMechanism())
	k.known = capabilities(k.cfg.Profile, o)
	shared := testAES
	shared.Role = RoleSharedMaterial
	if _, err := k.Generate(t.Context(), shared, NewID()); err == nil || !strings.Contains(err.Error(), "0x210A") {
		t.Errorf("multi-Region: got %v, want a refusal that names the token's limit", err)
	}
	material(t, k, testAES)
}

// TestBoundary holds SoftHSM down, whatever it refused.
func TestBoundary(t *testing.T) {
	k, _ := openFaulty(t, 1)
	if got := k.Capabilities().Boundary; got != BoundaryNone {
		t.Errorf("before a self-test: %q", got)
	}
	if got := k.setBoundary(true); got != BoundaryAPIOnly || k.Capabilities().Boundary != got {
		t.Errorf("after one that was passed: %q", got)
	}
	if got := k.setBoundary(false); got != BoundaryNone {
		t.Errorf("after one that was failed: %q", got)
	}
}

func TestBoundaryOf(t *testing.T) {
	for _, c := range []struct {
		refusedAll, hardware bool
		want                 Boundary
	}{
		{true, true, BoundaryToken}, {true, false, BoundaryAPIOnly}, {false, true, BoundaryNone}, {false, false, BoundaryNone},
	} {
		if got := boundaryOf(c.refusedAll, c.hardware); got != c.want {
			t.Errorf("all refused %v, hardware %v: boundary %s, want %s", c.refusedAll, c.hardware, got, c.want)
		}
	}
	k, _ := openFaulty(t, 1)
	if k.hardware {
		t.Error("SoftHSM's slot is taken for hardware")
	}
}
