package hsm

import (
	"bytes"
	"crypto"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"
	"go.yaml.in/yaml/v3"
)

// Profile holds what differs between vendors' modules. It is read strictly: an unknown
// field or value and a contradiction are refused, because a wrong guess here loses keys or
// repeats an IV. profiles/luna7.yaml shows every field with its reason.
type Profile struct {
	// Name is what Info reports.
	Name string `yaml:"name"`
	// GCM says where the IV of AES-GCM comes from.
	GCM GCM `yaml:"gcm"`
	// Wrap says how key material is wrapped from token to token.
	Wrap Wrap `yaml:"wrap"`
	// OAEP is the hash, for OAEP and MGF1 alike, under which transport keys travel.
	OAEP OAEPHash `yaml:"oaep"`
	// OAEPHashes are the hashes that its RSA-OAEP takes, OAEP among them. What a customer
	// wraps for import is opened inside the token, so it must take the customer's hash.
	OAEPHashes []OAEPHash `yaml:"oaep_hashes"`
	// Agree says how key agreement is called.
	Agree AgreeCall `yaml:"agree"`
	// RSAAESWrap says how imports by RSA_AES_KEY_WRAP are opened.
	RSAAESWrap RSAAESWrap `yaml:"rsa_aes_wrap"`
	// Templates holds what the module cannot take in a template.
	Templates Templates `yaml:"templates"`
	// TrustedBy says who can make a key with CKA_TRUSTED.
	TrustedBy TrustedBy `yaml:"trusted_by"`
	// Sessions is the size of the session pool, 1 to 1024, not counting the one session
	// that holds the login. More sessions make SoftHSM slower and a network HSM faster.
	Sessions int `yaml:"sessions"`
	// Login is the PKCS#11 user that the daemon logs in as.
	Login Login `yaml:"login"`
	// SelfTest says how the self-test is made cheap.
	SelfTest SelfTest `yaml:"self_test"`
	// Layout says whether single-Region and multi-Region material should share a token. A
	// token that is opened to hold both against its profile's advice works, with a warning.
	Layout Layout `yaml:"layout"`
	// Backup says what brings single-Region keys back when the token is lost.
	Backup Backup `yaml:"backup"`
}

// GCM is a profile's AES-GCM section.
type GCM struct {
	// Mechanism is the code of AES-GCM, CKM_AES_GCM unless the vendor has one of its own.
	Mechanism uint `yaml:"mechanism"`
	// IV is the source of the IV.
	IV IVSource `yaml:"iv"`
	// IVBytes is the IV's length: 12, or 16 for tokens that append one of that length.
	IVBytes int `yaml:"iv_bytes"`
	// MaxBytes bounds the plaintext of one call; 0 means that the module has no bound of its own.
	MaxBytes int `yaml:"max_bytes"`
}

// IVSource says who makes the IV of an AES-GCM encryption.
type IVSource string

// Sources of IVs. Whatever the source, decryption is given the IV that encryption used.
const (
	// IVFromCaller passes 12 random bytes from the host.
	IVFromCaller IVSource = "caller"
	// IVAppended passes no IV; the token makes one and appends it to the output, after the tag.
	IVAppended IVSource = "token-appended"
	// IVInPlace passes a buffer of zeros that the token overwrites with its IV.
	IVInPlace IVSource = "token-in-place"
)

// Wrap is a profile's wrapping section. The algorithm is always RFC 5649 (AES key wrap with
// padding), whose code differs among vendors. What is stored and sent names the algorithm.
type Wrap struct {
	// Mechanism is the code of RFC 5649 wrapping in this module.
	Mechanism uint `yaml:"mechanism"`
	// ValueLen says whether C_UnwrapKey of a secret key is given CKA_VALUE_LEN. SoftHSM
	// refuses it, Luna before firmware 7.9.3 requires it.
	ValueLen ValueLen `yaml:"value_len"`
}

// SelfTest is a profile's section on the self-test, which makes a dozen RSA keys that die
// with its session.
type SelfTest struct {
	// RSABits is their modulus: 1024, 2048, 3072 or 4096, the least that the module makes and
	// treats like any other.
	RSABits int `yaml:"rsa_bits"`
}

// Templates is a profile's section on templates.
type Templates struct {
	// CopyableOnCopy says whether C_CopyObject takes CKA_COPYABLE=false, which SoftHSM does not.
	CopyableOnCopy bool `yaml:"copyable_on_copy"`
}

// ValueLen says how C_UnwrapKey treats CKA_VALUE_LEN.
type ValueLen string

// Treatments of CKA_VALUE_LEN.
const (
	ValueLenOmit    ValueLen = "omit"
	ValueLenRequire ValueLen = "require"
)

// OAEPHash is the hash of RSA-OAEP.
type OAEPHash string

// Hashes of RSA-OAEP.
const (
	OAEPSHA1   OAEPHash = "sha1"
	OAEPSHA256 OAEPHash = "sha256"
)

// AgreeCall is a profile's section on CKM_ECDH1_DERIVE.
type AgreeCall struct {
	// Point says how the peer's point is encoded.
	Point PointForm `yaml:"point"`
}

// PointForm is how a point is passed to the module.
type PointForm string

// Forms of points.
const (
	// PointRaw passes the uncompressed point as it is, as the standard says.
	PointRaw PointForm = "raw"
	// PointDER passes it in a DER OCTET STRING. SoftHSM takes both and guesses, wrongly for
	// some raw points.
	PointDER PointForm = "der"
)

// RSAAESWrap says how the module opens what is wrapped by RSA-OAEP and RFC 5649 together.
type RSAAESWrap string

// Ways to open it.
const (
	// RSAAESNative is CKM_RSA_AES_KEY_WRAP: the AES key never is an object.
	RSAAESNative RSAAESWrap = "native"
	// RSAAESTwoSteps unwraps the AES key into the session and then the material with it.
	RSAAESTwoSteps RSAAESWrap = "two-steps"
)

// TrustedBy says who can make a key with CKA_TRUSTED.
type TrustedBy string

// Makers of trusted keys.
const (
	// TrustedBySO means that C_GenerateKey in a security officer's session takes CKA_TRUSTED.
	TrustedBySO TrustedBy = "security-officer"
	// TrustedByVendorTool means that a vendor's tool makes the key and the ceremony adopts it.
	TrustedByVendorTool TrustedBy = "vendor-tool"
	// TrustedByNobody means that the module has no such attribute: no multi-Region keys.
	TrustedByNobody TrustedBy = "nobody"
)

// Login is a PKCS#11 user type.
type Login string

// Users.
const (
	LoginUser       Login = "user"
	LoginCryptoUser Login = "crypto-user" // vendor-defined CKU_CRYPTO_USER of Luna
)

// Layout says how many tokens a Region's material needs.
type Layout string

// Layouts.
const (
	LayoutOneToken  Layout = "one-token"
	LayoutTwoTokens Layout = "two-tokens"
)

// Backup says how what is in a token can be kept somewhere else as well.
type Backup string

// Ways to back a token up.
const (
	// BackupFiles means that the token is files on this host, which are copied like others.
	BackupFiles Backup = "files"
	// BackupClone means that the vendor's tool clones the token, or copies it to a device.
	BackupClone Backup = "clone"
	// BackupNone means that nothing does, or that the profile does not know: with the token
	// go the keys that no other Region holds.
	BackupNone Backup = "none"
)

const maxSessions = 1024

// mechanismKWP is CKM_AES_KEY_WRAP_KWP of PKCS #11 3.0, which the binding does not have.
const mechanismKWP = 0x210B

//go:embed profiles/*.yaml
var builtin embed.FS

// LoadProfile returns the built-in profile of that name or, if name contains a slash, reads
// the file at that path.
func LoadProfile(name string) (Profile, error) {
	var b []byte
	var err error
	if strings.Contains(name, "/") {
		b, err = os.ReadFile(filepath.Clean(name))
	} else {
		b, err = builtin.ReadFile("profiles/" + name + ".yaml")
	}
	if errors.Is(err, fs.ErrNotExist) {
		return Profile{}, fmt.Errorf("profile %q: want a file's path or one of %s: %w", name, strings.Join(Profiles(), ", "), ErrCaller)
	}
	if err != nil {
		return Profile{}, fmt.Errorf("reading profile: %w", err)
	}
	p, err := ParseProfile(b)
	if err != nil {
		return Profile{}, fmt.Errorf("profile %q: %w", name, err)
	}
	return p, nil
}

// Profiles lists the names of the built-in profiles.
func Profiles() []string {
	files, _ := builtin.ReadDir("profiles") // embedded: cannot fail
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(path.Base(f.Name()), ".yaml"))
	}
	return names
}

// SoftHSM2 returns the built-in profile of SoftHSMv2.
func SoftHSM2() Profile {
	p, err := LoadProfile("softhsm2")
	if err != nil {
		panic(err) // embedded and covered by a test
	}
	return p
}

// ParseProfile reads one YAML document and checks it.
func ParseProfile(b []byte) (Profile, error) {
	var p Profile
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&p); err != nil {
		return Profile{}, fmt.Errorf("parsing: %w: %w", ErrCaller, err)
	}
	if err := d.Decode(new(yaml.Node)); err == nil {
		return Profile{}, fmt.Errorf("parsing: more than one document: %w", ErrCaller)
	}
	return p, p.Check()
}

// Check reports the first field that is missing, unknown or contradicted by another.
func (p Profile) Check() error {
	oneOf := func(field, value string, allowed ...string) error {
		for _, a := range allowed {
			if value == a {
				return nil
			}
		}
		return fmt.Errorf("%s: %q, want one of %s: %w", field, value, strings.Join(allowed, ", "), ErrCaller)
	}
	if p.Name == "" || len(p.Name) > 64 {
		return fmt.Errorf("name: %d bytes, want 1 to 64: %w", len(p.Name), ErrCaller)
	}
	if p.GCM.Mechanism == 0 || p.Wrap.Mechanism == 0 {
		return fmt.Errorf("gcm.mechanism and wrap.mechanism: want the module's codes: %w", ErrCaller)
	}
	// The mechanism that a profile names is the one that no attack tries. AES-CBC in the place
	// of RFC 5649, for instance, opens a blob to anybody who may unwrap and looks at errors.
	if m := p.GCM.Mechanism; m != pkcs11.CKM_AES_GCM && m < pkcs11.CKM_VENDOR_DEFINED {
		return fmt.Errorf("gcm.mechanism: 0x%X is not AES-GCM: %w", m, ErrCaller)
	}
	if m := p.Wrap.Mechanism; m != pkcs11.CKM_AES_KEY_WRAP_PAD && m != mechanismKWP && m < pkcs11.CKM_VENDOR_DEFINED {
		return fmt.Errorf("wrap.mechanism: 0x%X is not RFC 5649: %w", m, ErrCaller)
	}
	for _, err := range []error{
		oneOf("gcm.iv", string(p.GCM.IV), string(IVFromCaller), string(IVAppended), string(IVInPlace)),
		oneOf("wrap.value_len", string(p.Wrap.ValueLen), string(ValueLenOmit), string(ValueLenRequire)),
		oneOf("oaep", string(p.OAEP), string(OAEPSHA1), string(OAEPSHA256)),
		oneOf("agree.point", string(p.Agree.Point), string(PointRaw), string(PointDER)),
		oneOf("rsa_aes_wrap", string(p.RSAAESWrap), string(RSAAESNative), string(RSAAESTwoSteps)),
		oneOf("trusted_by", string(p.TrustedBy), string(TrustedBySO), string(TrustedByVendorTool), string(TrustedByNobody)),
		oneOf("login", string(p.Login), string(LoginUser), string(LoginCryptoUser)),
		oneOf("layout", string(p.Layout), string(LayoutOneToken), string(LayoutTwoTokens)),
		oneOf("backup", string(p.Backup), string(BackupFiles), string(BackupClone), string(BackupNone)),
	} {
		if err != nil {
			return err
		}
	}
	for _, h := range p.OAEPHashes {
		if err := oneOf("oaep_hashes", string(h), string(OAEPSHA1), string(OAEPSHA256)); err != nil {
			return err
		}
	}
	if !slices.Contains(p.OAEPHashes, p.OAEP) {
		return fmt.Errorf("oaep_hashes: %v lacks %q, which oaep names: %w", p.OAEPHashes, p.OAEP, ErrCaller)
	}
	// A 16-byte IV is hashed into GCM's counter block, which shortens its birthday bound; it
	// is taken only from tokens that leave no choice.
	if p.GCM.IVBytes != 12 && !(p.GCM.IVBytes == 16 && p.GCM.IV == IVAppended) {
		return fmt.Errorf("gcm.iv_bytes: %d with iv %q, want 12, or 16 with %q: %w", p.GCM.IVBytes, p.GCM.IV, IVAppended, ErrCaller)
	}
	if p.GCM.MaxBytes < 0 {
		return fmt.Errorf("gcm.max_bytes: %d is negative: %w", p.GCM.MaxBytes, ErrCaller)
	}
	if !slices.Contains([]int{1024, 2048, 3072, 4096}, p.SelfTest.RSABits) {
		return fmt.Errorf("self_test.rsa_bits: %d, want 1024, 2048, 3072 or 4096: %w", p.SelfTest.RSABits, ErrCaller)
	}
	if p.Sessions < 1 || p.Sessions > maxSessions {
		return fmt.Errorf("sessions: %d, want 1 to %d: %w", p.Sessions, maxSessions, ErrCaller)
	}
	return nil
}

// checkModule refuses a profile that is known to be wrong for the module that was loaded.
func (p Profile) checkModule(manufacturer, description string) error {
	soft := strings.Contains(manufacturer, "SoftHSM") || strings.Contains(description, "SoftHSM")
	if soft && p.GCM.IV != IVFromCaller {
		// SoftHSM replaces an empty IV by sixteen zero bytes, every time: with one key, two
		// messages under one IV give away their sum and the authentication key.
		return fmt.Errorf("profile %q: gcm.iv %q with SoftHSM, which makes no IVs: %w", p.Name, p.GCM.IV, ErrCaller)
	}
	if soft && p.Wrap.ValueLen != ValueLenOmit {
		return fmt.Errorf("profile %q: wrap.value_len %q with SoftHSM, which refuses it: %w", p.Name, p.Wrap.ValueLen, ErrCaller)
	}
	return nil
}

// wrapMechanism returns the code of RFC 5649 wrapping.
func (p Profile) wrapMechanism() uint { return p.Wrap.Mechanism }

// gcmMechanism returns the code of AES-GCM.
func (p Profile) gcmMechanism() uint { return p.GCM.Mechanism }

// takesOAEP reports whether the module's RSA-OAEP takes the hash.
func (p Profile) takesOAEP(hash crypto.Hash) bool {
	return hash == crypto.SHA1 && slices.Contains(p.OAEPHashes, OAEPSHA1) || hash == crypto.SHA256 && slices.Contains(p.OAEPHashes, OAEPSHA256)
}

// decryptMechanisms are the mechanisms of keys that decrypt: RSA-OAEP and, where that does
// not take every hash, RSA alone. The holder of the PIN gains nothing by the second: it
// computes what the first computes, and more of it was never promised.
func (p Profile) decryptMechanisms() []uint {
	if p.takesOAEP(crypto.SHA1) && p.takesOAEP(crypto.SHA256) {
		return []uint{pkcs11.CKM_RSA_PKCS_OAEP}
	}
	return []uint{pkcs11.CKM_RSA_PKCS_OAEP, pkcs11.CKM_RSA_X_509}
}

// twoSteps reports whether an import by this scheme is opened in two steps.
func (p Profile) twoSteps(s ImportScheme) bool {
	return s.KeyWrap() && p.RSAAESWrap == RSAAESTwoSteps
}

// importMechanism is what an import wrapping key does.
func (p Profile) importMechanism(s ImportScheme) rawMechanism {
	m := oaepMechanism(importSchemes[s].hash)
	if !s.KeyWrap() || p.twoSteps(s) {
		return m
	}
	// CK_RSA_AES_KEY_WRAP_PARAMS: the AES key's bits and the place of the OAEP parameters.
	return rawMechanism{code: pkcs11.CKM_RSA_AES_KEY_WRAP, param: words(256, 0), refs: []ref{{at: 8, data: m.param}}}
}
