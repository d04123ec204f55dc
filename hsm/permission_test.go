package hsm

import (
	"errors"
	"testing"
)

var (
	aesSource      = Spec{Role: RoleTransportSource, Algorithm: AES256, Class: ClassAES}
	aesDestination = Spec{Role: RoleTransportDestination, Algorithm: AES256, Class: ClassAES}
	keysSource     = Spec{Role: RoleTransportSource, Algorithm: AES256, Class: ClassECSign}
	keyDestination = Spec{Role: RoleTransportDestination, Algorithm: AES256, Class: ClassECSign}
	sharedAES      = Spec{Role: RoleSharedMaterial, Algorithm: AES256}
	sharedEC       = Spec{Role: RoleSharedMaterial, Algorithm: ECP256, Usage: UsageSign}
)

func TestCheckWrap(t *testing.T) {
	for _, c := range []struct {
		name                string
		transport, material Spec
		want                error
	}{
		{"AES", aesSource, sharedAES, nil},
		{"key pair", keysSource, sharedEC, nil},
		{"another class", aesSource, sharedEC, ErrCaller},
		{"single-Region material", aesSource, testAES, ErrCaller},
		{"seal key", aesSource, Spec{Role: RoleSeal, Algorithm: HMACSHA256}, ErrCaller},
		{"Region signing key", keysSource, Spec{Role: RoleRegionSigning, Algorithm: ECP384, Usage: UsageSign}, ErrCaller},
		{"a transport key", aesSource, aesSource, ErrCaller},
		{"under a destination key", aesDestination, sharedAES, ErrCaller},
		{"under material", sharedAES, sharedAES, ErrCaller},
		{"another usage", keysSource, Spec{Role: RoleSharedMaterial, Algorithm: ECP256, Usage: UsageAgree}, ErrCaller},
		{"another hash", Spec{Role: RoleTransportSource, Algorithm: AES256, Class: ClassMAC224}, ClassMAC256.Material(), ErrCaller},
	} {
		if err := CheckWrap(c.transport, c.material); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestCheckUnwrap(t *testing.T) {
	for _, c := range []struct {
		name                string
		transport, material Spec
		length              int
		want                error
	}{
		{"AES-256", aesDestination, sharedAES, 40, nil},
		{"AES-128, which SoftHSM takes in silence", aesDestination, sharedAES, 24, ErrDataInvalid},
		{"AES-192, likewise", aesDestination, sharedAES, 32, ErrDataInvalid},
		{"a longer secret", aesDestination, sharedAES, 48, ErrDataInvalid},
		{"empty", aesDestination, sharedAES, 0, ErrDataInvalid},
		{"no multiple of eight", keyDestination, sharedEC, 81, ErrDataInvalid},
		{"key pair", keyDestination, sharedEC, 80, nil},
		{"huge", keyDestination, sharedEC, maxWrapped + 8, ErrDataInvalid},
		{"another class", aesDestination, sharedEC, 40, ErrCaller},
		{"as single-Region material", aesDestination, testAES, 40, ErrCaller},
		{"with a source key", aesSource, sharedAES, 40, ErrCaller},
	} {
		if err := CheckUnwrap(c.transport, c.material, make([]byte, c.length)); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// TestUsesOfRoles types the table once more, from the design.
func TestUsesOfRoles(t *testing.T) {
	want := map[Role]map[Use]bool{
		RoleMaterial:             {UseGCM: true, UseBlocks: true, UseMAC: true, UseSign: true, UseDecrypt: true, UseAgree: true},
		RoleSharedMaterial:       {UseGCM: true, UseBlocks: true, UseMAC: true, UseSign: true, UseDecrypt: true, UseAgree: true},
		RoleTransportSource:      {UseWrap: true},
		RoleTransportDestination: {UseUnwrap: true},
		RoleRegionSigning:        {UseSign: true},
		RoleSeal:                 {UseMAC: true},
		RoleImportWrapping:       {UseImport: true},
	}
	got := map[Role]map[Use]bool{}
	for _, s := range everySpec() {
		for _, u := range []Use{UseGCM, UseBlocks, UseMAC, UseSign, UseDecrypt, UseAgree, UseWrap, UseUnwrap, UseImport} {
			if CheckUse(s, u) == nil {
				if got[s.Role] == nil {
					got[s.Role] = map[Use]bool{}
				}
				got[s.Role][u] = true
				if !want[s.Role][u] {
					t.Errorf("role %q may be used for %s", s.Role, u)
				}
			}
		}
	}
	for role, uses := range want {
		for u := range uses {
			if !got[role][u] {
				t.Errorf("role %q may not be used for %s", role, u)
			}
		}
	}
}
