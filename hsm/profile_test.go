package hsm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBuiltInProfiles(t *testing.T) {
	if diff := cmp.Diff([]string{"generic", "luna7", "softhsm2"}, Profiles()); diff != "" {
		t.Errorf("profiles (-want +got):\n%s", diff)
	}
	for _, name := range Profiles() {
		p, err := LoadProfile(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if p.Name != name {
			t.Errorf("profile %s is called %q", name, p.Name)
		}
	}
	want := Profile{
		Name:       "softhsm2",
		GCM:        GCM{Mechanism: 0x1087, IV: IVFromCaller, IVBytes: 12},
		Wrap:       Wrap{Mechanism: 0x210A, ValueLen: ValueLenOmit},
		OAEP:       OAEPSHA1,
		OAEPHashes: []OAEPHash{OAEPSHA1},
		Agree:      AgreeCall{Point: PointDER},
		RSAAESWrap: RSAAESTwoSteps,
		TrustedBy:  TrustedBySO,
		SelfTest:   SelfTest{RSABits: 1024},
		Sessions:   4,
		Login:      LoginUser,
		Layout:     LayoutOneToken,
		Backup:     BackupFiles,
	}
	if diff := cmp.Diff(want, SoftHSM2()); diff != "" {
		t.Errorf("softhsm2 (-want +got):\n%s", diff)
	}
}

func TestParseProfileRefuses(t *testing.T) {
	good, err := builtin.ReadFile("profiles/softhsm2.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, from, to, says string }{
		{"unknown field", "oaep: sha1", "oeap: sha1", "oeap"},
		{"unknown nested field", "iv_bytes: 12", "iv_length: 12", "iv_length"},
		{"unknown IV source", "iv: caller", "iv: hsm", "gcm.iv"},
		{"missing IV source", "iv: caller", "", "gcm.iv"},
		{"long IV from the host", "iv_bytes: 12", "iv_bytes: 16", "gcm.iv_bytes"},
		{"short IV", "iv_bytes: 12", "iv_bytes: 8", "gcm.iv_bytes"},
		{"negative limit", "max_bytes: 0", "max_bytes: -1", "gcm.max_bytes"},
		{"no wrap code", "mechanism: 0x210A", "", "wrap.mechanism"},
		{"wrapping by CBC with padding", "mechanism: 0x210A", "mechanism: 0x1085", "wrap.mechanism: 0x1085 is not RFC 5649"},
		{"wrapping without the length", "mechanism: 0x210A", "mechanism: 0x2109", "wrap.mechanism: 0x2109 is not RFC 5649"},
		{"counter mode for GCM", "mechanism: 0x1087", "mechanism: 0x1086", "gcm.mechanism: 0x1086 is not AES-GCM"},
		{"code as a name", "mechanism: 0x210A", "mechanism: CKM_AES_KEY_WRAP_PAD", "line 9"},
		{"value length", "value_len: omit", "value_len: maybe", "wrap.value_len"},
		{"OAEP hash", "oaep: sha1", "oaep: md5", "oaep"},
		{"trusted", "trusted_by: security-officer", "trusted_by: me", "trusted_by"},
		{"short self-test keys", "rsa_bits: 1024", "rsa_bits: 1023", "self_test.rsa_bits"},
		{"odd self-test keys", "rsa_bits: 1024", "rsa_bits: 1025", "self_test.rsa_bits"},
		{"long self-test keys", "rsa_bits: 1024", "rsa_bits: 8192", "self_test.rsa_bits"},
		{"no self-test keys", "  rsa_bits: 1024", "", "self_test.rsa_bits"},
		{"no sessions", "sessions: 4", "sessions: 0", "sessions"},
		{"too many sessions", "sessions: 4", "sessions: 1025", "sessions"},
		{"login", "login: user", "login: root", "login"},
		{"layout", "layout: one-token", "layout: many", "layout"},
		{"backup", "backup: files", "backup: tape", "backup"},
		{"no backup", "backup: files", "", "backup"},
		{"no name", "name: softhsm2", "name: ''", "name"},
		{"two documents", "layout: one-token", "layout: one-token\n---\nname: x", "more than one"},
		{"twice", "login: user", "login: user\nlogin: user", "already defined"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(string(good), c.from) {
				t.Fatalf("the profile does not contain %q", c.from)
			}
			_, err := ParseProfile([]byte(strings.Replace(string(good), c.from, c.to, 1)))
			if !errors.Is(err, ErrCaller) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want a refusal that names %q", err, c.says)
			}
		})
	}
}

func TestLoadProfileFromFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mine.yaml")
	b, err := builtin.ReadFile("profiles/generic.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := LoadProfile(file); err != nil || p.Name != "generic" {
		t.Errorf("got %q, %v", p.Name, err)
	}
	for _, name := range []string{"other", "/nowhere/x.yaml"} {
		if _, err := LoadProfile(name); !errors.Is(err, ErrCaller) || !strings.Contains(err.Error(), "softhsm2") {
			t.Errorf("%s: got %v, want a refusal that lists what there is", name, err)
		}
	}
}

func TestProfileForSoftHSM(t *testing.T) {
	soft, other := "SoftHSM project", "Thales"
	for _, name := range Profiles() {
		p, err := LoadProfile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.checkModule(other, ""); err != nil {
			t.Errorf("%s with another module: %v", name, err)
		}
		err = p.checkModule(soft, "Implementation of PKCS11")
		if makesIVs := p.GCM.IV != IVFromCaller; makesIVs != (err != nil) {
			t.Errorf("%s with SoftHSM: %v", name, err)
		}
	}
}
