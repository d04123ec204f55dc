package hsm

import (
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// How says by which call an object comes into being, since not every token takes every
// attribute in every call.
type How int

// Ways in which an object is made.
const (
	HowGenerate   How = iota // C_GenerateKey, or the private half of C_GenerateKeyPair
	HowPublicHalf            // the public half of C_GenerateKeyPair: a session object, read once and destroyed
	HowUnwrap                // C_UnwrapKey
	HowCopy                  // C_CopyObject, which makes source transport keys only
)

// Attribute is one entry of a template. Exactly one of Value and Nested is used: Nested is
// the content of CKA_WRAP_TEMPLATE and CKA_UNWRAP_TEMPLATE.
type Attribute struct {
	Type   uint
	Value  []byte
	Nested []Attribute
}

// Template returns the attributes of the object that spec describes, for the call how.
//
// Every usage flag of the object's class is stated, because a flag left out takes the
// token's default, and SoftHSM's default allows. CKA_MODIFIABLE=false comes last, because
// SoftHSM applies entries in order and refuses what follows it. Without it the user PIN
// switches flags on afterwards, and CKA_DECRYPT or CKA_UNWRAP at either end of a wrapping
// key yields every key that it ever wrapped.
func Template(spec Spec, id ID, p Profile, how How) ([]Attribute, error) {
	if err := spec.Check(); err != nil {
		return nil, err
	}
	build, ok := roleTemplates[spec.Role][how]
	if !ok {
		return nil, fmt.Errorf("role %q is not made by call %d: %w", spec.Role, how, ErrCaller)
	}
	named := []Attribute{octets(pkcs11.CKA_ID, id[:]), octets(pkcs11.CKA_LABEL, []byte(spec.Label()))}
	return build(spec, p, shapeOf(spec, p), named), nil
}

// roleTemplates is the one list of what is made how.
var roleTemplates map[Role]map[How]func(spec Spec, p Profile, s shape, named []Attribute) []Attribute

func init() { // a literal would refer to itself: source templates contain destination templates
	roleTemplates = map[Role]map[How]func(Spec, Profile, shape, []Attribute) []Attribute{
		RoleMaterial:             {HowGenerate: generatedLocal, HowPublicHalf: publicHalf, HowUnwrap: imported},
		RoleSharedMaterial:       {HowGenerate: generatedShared, HowPublicHalf: publicHalf, HowUnwrap: unwrappedShared},
		RoleTransportSource:      {HowGenerate: transportSession, HowCopy: transportSource},
		RoleTransportDestination: {HowUnwrap: transportDestination},
		RoleEstablishment:        {HowGenerate: establishment, HowPublicHalf: publicHalf},
		RoleRegionSigning:        {HowGenerate: generatedLocal, HowPublicHalf: publicHalf},
		RoleSeal:                 {HowGenerate: generatedLocal},
		RoleImportWrapping:       {HowGenerate: importWrapping, HowPublicHalf: publicHalf},
		RoleImportStep:           {HowUnwrap: importStep},
	}
}

// generatedLocal makes a key that never leaves its token: single-Region material, the
// Region signing key and the seal key.
func generatedLocal(_ Spec, _ Profile, s shape, named []Attribute) []Attribute {
	return s.key(named, fate{token: true, made: true, unique: true})
}

// imported makes single-Region material of what a customer wrapped.
func imported(_ Spec, _ Profile, s shape, named []Attribute) []Attribute {
	return s.key(named, fate{token: true, unique: true})
}

// generatedShared makes multi-Region material: it may leave, but under a trusted key only.
func generatedShared(_ Spec, _ Profile, s shape, named []Attribute) []Attribute {
	return s.key(named, fate{token: true, made: true, extractable: true, wrapWithTrusted: true, unique: true})
}

// unwrappedShared makes multi-Region material of a blob from another Region; it is what
// the destination transport key's unwrap template demands, entry for entry.
func unwrappedShared(_ Spec, _ Profile, s shape, named []Attribute) []Attribute {
	return s.key(named, fate{token: true, extractable: true, wrapWithTrusted: true, unique: true})
}

// transportSession makes a transport key as the security officer, in the ceremony's
// memory: trusted, which only the officer may say; not private, because an officer's
// session cannot hold private objects; extractable, because the establishment key must
// wrap it; and still modifiable, because transportSource must change those two.
func transportSession(spec Spec, p Profile, s shape, named []Attribute) []Attribute {
	return s.key(named, fate{made: true, public: true, extractable: true, modifiable: true,
		nested: append([]Attribute{flag(pkcs11.CKA_TRUSTED, true)}, transportTemplates(spec.Class, p)...)})
}

// transportSource names only what changes when the user copies the session key into the
// token. CKA_COPYABLE=false is left out where the token refuses it in a copy; a copy of
// the copy is no better than the copy itself, since CKA_MODIFIABLE=false holds in both.
func transportSource(_ Spec, p Profile, _ shape, named []Attribute) []Attribute {
	t := []Attribute{
		flag(pkcs11.CKA_TOKEN, true),
		flag(pkcs11.CKA_PRIVATE, true),
		flag(pkcs11.CKA_EXTRACTABLE, false), // it left once, under the establishment key, and never again
	}
	t = append(t, named...)
	if p.Templates.CopyableOnCopy {
		t = append(t, flag(pkcs11.CKA_COPYABLE, false))
	}
	return append(t, flag(pkcs11.CKA_MODIFIABLE, false))
}

// transportDestination makes the unwrapping end: it can neither wrap nor decrypt, and what
// it unwraps must be what its unwrap template says.
func transportDestination(spec Spec, p Profile, s shape, named []Attribute) []Attribute {
	s.usage = []uint{pkcs11.CKA_UNWRAP}
	return s.key(named, fate{token: true, unique: true,
		nested: []Attribute{nested(pkcs11.CKA_UNWRAP_TEMPLATE, unwrapTemplate(spec.Class, p))}})
}

// establishment makes the RSA key of one accept process. It is a session object, so that
// what was wrapped for it can be opened by nobody after that process has ended, and its
// unwrap template makes every key that it opens a destination transport key. The inner
// unwrap template cannot be demanded here, since tokens refuse a template in a template.
func establishment(_ Spec, p Profile, s shape, named []Attribute) []Attribute {
	return s.key(named, fate{made: true, unique: true,
		nested: []Attribute{nested(pkcs11.CKA_UNWRAP_TEMPLATE, destinationDemand(p))}})
}

// importWrapping makes the RSA key under which a customer wraps material for import. It
// opens what it was made for and nothing else: the demand is the material's template, or
// that of the AES key between.
func importWrapping(spec Spec, p Profile, s shape, named []Attribute) []Attribute {
	demand := demandOf(spec.Import.Material(), p)
	if p.twoSteps(spec.Import.Scheme) {
		demand = stepDemand(p)
	}
	return s.key(named, fate{token: true, made: true, unique: true,
		nested: []Attribute{nested(pkcs11.CKA_UNWRAP_TEMPLATE, demand)}})
}

// importStep makes the AES key between a customer's RSA and the material, where the token
// does both steps apart. It lives for one call and opens what the import is for.
func importStep(spec Spec, p Profile, s shape, named []Attribute) []Attribute {
	s.usage = []uint{pkcs11.CKA_UNWRAP}
	return s.key(named, fate{unique: true,
		nested: []Attribute{nested(pkcs11.CKA_UNWRAP_TEMPLATE, demandOf(spec.Import.Material(), p))}})
}

// publicHalf makes the public half of a pair for as long as it takes to read it. It is
// never a token object: without any PIN those can be replaced.
func publicHalf(_ Spec, _ Profile, s shape, named []Attribute) []Attribute {
	t := []Attribute{
		number(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
		number(pkcs11.CKA_KEY_TYPE, s.keyType),
		flag(pkcs11.CKA_TOKEN, false),
		flag(pkcs11.CKA_PRIVATE, true),
	}
	t = append(t, flags(publicFlags, s.publicUsage)...)
	t = append(t, s.public...)
	t = append(t, named...)
	return append(t, flag(pkcs11.CKA_MODIFIABLE, false))
}

// fate is what differs between keys of one shape.
type fate struct {
	token           bool        // kept in the token; otherwise it dies with the session
	made            bool        // generated here, so that its length and check value are ours to state
	public          bool        // CKA_PRIVATE=false: only for the security officer's session key
	extractable     bool        // may leave wrapped
	wrapWithTrusted bool        // and then only under a key that the security officer trusted
	unique          bool        // CKA_COPYABLE=false; the officer's session key must be copied once
	nested          []Attribute // what the role adds: trust and templates
	modifiable      bool        // only for the security officer's session key
}

// key builds the template of a secret or private key. Flags and numbers come first, since
// SoftHSM decrypts byte strings to compare them and stops at the first difference.
func (s shape) key(named []Attribute, f fate) []Attribute {
	t := []Attribute{
		number(pkcs11.CKA_CLASS, s.class),
		number(pkcs11.CKA_KEY_TYPE, s.keyType),
		flag(pkcs11.CKA_TOKEN, f.token),
		flag(pkcs11.CKA_PRIVATE, !f.public), // a key that is not private works without login
		flag(pkcs11.CKA_SENSITIVE, true),    // the value cannot be read
		flag(pkcs11.CKA_EXTRACTABLE, f.extractable),
		flag(pkcs11.CKA_WRAP_WITH_TRUSTED, f.wrapWithTrusted), // SoftHSM lets nobody strip it later
	}
	if s.class == pkcs11.CKO_SECRET_KEY {
		t = append(t, flags(secretFlags, s.usage)...)
		if f.made || s.tellLen {
			t = append(t, number(pkcs11.CKA_VALUE_LEN, s.valueLen))
		}
		if f.made {
			// The default check value is the start of AES(0), of which GCM's hash key is the whole.
			t = append(t, octets(pkcs11.CKA_CHECK_VALUE, nil))
		}
	} else {
		t = append(t, flags(privateFlags, s.usage)...)
	}
	t = append(t, mechanisms(s.allowed)) // binds even where a flag is too wide, and cannot be changed
	t = append(t, f.nested...)
	t = append(t, named...)
	t = append(t, flag(pkcs11.CKA_COPYABLE, !f.unique)) // copies would multiply what must be destroyed
	return append(t, flag(pkcs11.CKA_MODIFIABLE, f.modifiable))
}

// shape is what a key is by its algorithm and usage.
type shape struct {
	class       uint
	keyType     uint
	valueLen    uint   // secret keys, bytes
	tellLen     bool   // CKA_VALUE_LEN goes into unwrap templates too
	usage       []uint // the flags of the secret or private key that are true
	publicUsage []uint // the flags of the public half that are true
	allowed     []uint // CKA_ALLOWED_MECHANISMS, in the order that unwrap templates compare
	public      []Attribute
}

// shapeOf returns the shape of what spec describes, which must have passed [Spec.Check].
func shapeOf(spec Spec, p Profile) shape {
	wrapping := spec.Role == RoleTransportSource || spec.Role == RoleTransportDestination || spec.Role == RoleImportStep
	switch spec.Algorithm {
	case AES256:
		s := shape{class: pkcs11.CKO_SECRET_KEY, keyType: pkcs11.CKK_AES, valueLen: 32, tellLen: p.Wrap.ValueLen == ValueLenRequire,
			usage: []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT},
			// ECB for check values only; it opens nothing that GCM sealed without the
			// use of the key, which the holder of the PIN has anyway.
			allowed: []uint{p.gcmMechanism(), pkcs11.CKM_AES_ECB}}
		if wrapping {
			s.usage, s.allowed = []uint{pkcs11.CKA_WRAP}, []uint{p.wrapMechanism()}
		}
		return s
	case HMACSHA224, HMACSHA256, HMACSHA384, HMACSHA512:
		k := secretKeys[spec.Algorithm]
		return shape{class: pkcs11.CKO_SECRET_KEY, keyType: pkcs11.CKK_GENERIC_SECRET, valueLen: uint(k.bytes), tellLen: p.Wrap.ValueLen == ValueLenRequire,
			usage:   []uint{pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY},
			allowed: []uint{k.mac}}
	case ECP256, ECP384, ECP521, ECSecp256k1:
		s := shape{class: pkcs11.CKO_PRIVATE_KEY, keyType: pkcs11.CKK_EC, public: []Attribute{octets(pkcs11.CKA_EC_PARAMS, ecKeys[spec.Algorithm].params)}}
		switch spec.Usage {
		case UsageSign:
			s.usage, s.publicUsage, s.allowed = []uint{pkcs11.CKA_SIGN}, []uint{pkcs11.CKA_VERIFY}, []uint{pkcs11.CKM_ECDSA}
			return s
		case UsageAgree:
			s.usage, s.allowed = []uint{pkcs11.CKA_DERIVE}, []uint{pkcs11.CKM_ECDH1_DERIVE}
			return s
		}
	case RSA2048, RSA3072, RSA4096:
		s := shape{class: pkcs11.CKO_PRIVATE_KEY, keyType: pkcs11.CKK_RSA, public: []Attribute{
			number(pkcs11.CKA_MODULUS_BITS, rsaBits[spec.Algorithm]),
			octets(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})}}
		switch {
		case spec.Role == RoleImportWrapping:
			s.usage, s.publicUsage, s.allowed = []uint{pkcs11.CKA_UNWRAP}, []uint{pkcs11.CKA_WRAP}, []uint{p.importMechanism(spec.Import.Scheme).code}
			return s
		case spec.Role == RoleEstablishment:
			s.usage, s.publicUsage, s.allowed = []uint{pkcs11.CKA_UNWRAP}, []uint{pkcs11.CKA_WRAP}, []uint{pkcs11.CKM_RSA_PKCS_OAEP}
			return s
		case spec.Usage == UsageSign:
			s.usage, s.publicUsage, s.allowed = []uint{pkcs11.CKA_SIGN}, []uint{pkcs11.CKA_VERIFY}, []uint{pkcs11.CKM_RSA_PKCS, pkcs11.CKM_RSA_PKCS_PSS}
			return s
		case spec.Usage == UsageDecrypt:
			s.usage, s.publicUsage, s.allowed = []uint{pkcs11.CKA_DECRYPT}, []uint{pkcs11.CKA_ENCRYPT}, p.decryptMechanisms()
			return s
		}
	}
	return shape{}
}

// Usage flags by object class. Each template states every one of its class.
var (
	secretFlags = []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY,
		pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE}
	privateFlags = []uint{pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN, pkcs11.CKA_SIGN_RECOVER,
		pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE}
	publicFlags = []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_VERIFY, pkcs11.CKA_VERIFY_RECOVER,
		pkcs11.CKA_WRAP, pkcs11.CKA_DERIVE}
)

func flags(all, on []uint) []Attribute {
	t := make([]Attribute, 0, len(all))
	for _, f := range all {
		t = append(t, flag(f, slices.Contains(on, f)))
	}
	return t
}

func flag(typ uint, v bool) Attribute {
	return Attribute{Type: typ, Value: pkcs11.NewAttribute(typ, v).Value}
}
func number(typ, v uint) Attribute {
	return Attribute{Type: typ, Value: pkcs11.NewAttribute(typ, v).Value}
}
func octets(typ uint, v []byte) Attribute { return Attribute{Type: typ, Value: v} }
func nested(typ uint, t []Attribute) Attribute {
	return Attribute{Type: typ, Nested: t}
}

func mechanisms(list []uint) Attribute {
	a := Attribute{Type: pkcs11.CKA_ALLOWED_MECHANISMS}
	for _, m := range list {
		a.Value = append(a.Value, pkcs11.NewAttribute(a.Type, m).Value...)
	}
	return a
}
