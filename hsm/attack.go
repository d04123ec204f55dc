package hsm

import (
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// Attempt is one thing that somebody with the user PIN tried, and the token's answer.
type Attempt struct {
	Attack   string // the row of the attack table
	Victim   string // what it was tried on
	Words    string // what was tried, in plain words
	Function string // the PKCS#11 function that had to refuse
	Answer   string // the CKR that it answered
	Refused  bool   // false if it worked, or failed in a way that proves nothing
}

// attack is a row of the table: every attempt that it makes must be refused.
type attack struct {
	name  string
	words string
	plan  func(s scene, c calls) ([]trial, error)
}

// trial is one call that must not work. It destroys what it makes.
type trial struct {
	victim string
	words  string
	op     string
	do     func(c calls) error
}

// attacks is the one table. The self-test runs it on stand-ins at every start, and the
// boundary test and the thief of the demonstration run it on a ceremony's real objects.
var attacks = []attack{
	{"read-value", "read the bytes of a key", planRead},
	{"make-trusted", "make a key that the token trusts with wrapping", planMakeTrusted},
	{"wrap-untrusted", "wrap a key under a key of one's own", planWrapUntrusted},
	{"wrap-transport", "misuse a transport key to wrap", planWrapTransport},
	{"set-attribute", "change an attribute", planSet},
	{"copy-attribute", "change an attribute in a copy", planCopy},
	{"cipher-transport", "encrypt or decrypt with a transport key", planCipher},
	{"unwrap-mechanism", "unwrap by another mechanism or at the wrong end", planUnwrapMechanism},
	{"unwrap-template", "unwrap a recorded blob as something weaker", planUnwrapTemplate},
	{"unwrap-establishment", "open a ceremony's package as something weaker", planUnwrapEstablishment},
	{"unwrap-import", "open a recorded import as something weaker", planUnwrapImport},
	{"open-package", "open a recorded ceremony package", planOpenPackage},
	{"derive", "derive a readable key from a protected one", planDerive},
}

// scene is what the thief finds.
type scene struct {
	p       Profile
	victims []victim
	blobs   Blobs
	// packages are recorded transport keys, wrapped for an establishment key.
	packages [][]byte
	imports  []recordedImport
	own      loot
}

// recordedImport is what a customer wrapped and the key that is to open it.
type recordedImport struct {
	wrapping victim
	blob     []byte
}

// Blobs are recorded: material of each class, wrapped under a transport key set.
type Blobs map[BlobKey][]byte

// BlobKey says under which transport key a blob was wrapped.
type BlobKey struct {
	Set   string // the name that both ends have in their specs
	Class Class
}

func blobOf(transport Spec, c Class) BlobKey { return BlobKey{Set: transport.Name, Class: c} }

// victim is one protected object.
type victim struct {
	name string
	spec Spec
	h    pkcs11.ObjectHandle
	spki []byte // of stand-ins that are pairs
}

// loot is what anybody with the user PIN can make: keys with every usage, one of them of
// known bytes.
type loot struct {
	fresh, known pkcs11.ObjectHandle // AES
	pub, priv    pkcs11.ObjectHandle // RSA
}

func (s scene) having(roles ...Role) []victim {
	var out []victim
	for _, v := range s.victims {
		if slices.Contains(roles, v.spec.Role) {
			out = append(out, v)
		}
	}
	return out
}

// run makes every attempt of every attack. An error means that an attack could not even be
// prepared, so that nothing is known.
func (s scene) run(c calls) ([]Attempt, error) {
	var err error
	if s.own, err = arm(c); err != nil {
		return nil, fmt.Errorf("preparing attacks: %w", err)
	}
	defer s.own.drop(c)
	return s.try(c, attacks)
}

// try makes the attempts of these attacks, with the keys that the scene is armed with.
func (s scene) try(c calls, rows []attack) (all []Attempt, err error) {
	for _, a := range rows {
		plan, err := a.plan(s, c)
		if err != nil {
			return all, fmt.Errorf("preparing attack %q: %w", a.name, err)
		}
		for _, t := range plan {
			all = append(all, t.run(c, a.name))
		}
	}
	return all, nil
}

func (t trial) run(c calls, name string) Attempt {
	err := t.try(c)
	out := Attempt{Attack: name, Victim: t.victim, Words: t.words, Function: t.op, Answer: "CKR_OK"}
	out.Refused = refused(t.op, err) || errors.Is(err, errAsDemanded)
	if err != nil {
		out.Answer = err.Error()
		var code pkcs11.Error
		if errors.As(err, &code) {
			out.Answer = codeName(uint(code))
		}
	}
	return out
}

func (t trial) try(c calls) (err error) {
	defer recovered(t.op, &err)
	return t.do(c)
}

// AttackWords says in plain words what an attack of the table tries.
func AttackWords(name string) string {
	for _, a := range attacks {
		if a.name == name {
			return a.words
		}
	}
	return name
}

// Broken returns the attempts that were not refused.
func Broken(all []Attempt) []Attempt {
	var out []Attempt
	for _, a := range all {
		if !a.Refused {
			out = append(out, a)
		}
	}
	return out
}

// arm makes the thief's own keys, as session objects.
func arm(c calls) (l loot, err error) {
	common := []Attribute{
		flag(pkcs11.CKA_TOKEN, false),
		flag(pkcs11.CKA_PRIVATE, true),
		flag(pkcs11.CKA_SENSITIVE, false),
		flag(pkcs11.CKA_EXTRACTABLE, true),
	}
	aes := append([]Attribute{number(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), number(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES)}, common...)
	aes = append(aes, flags(secretFlags, secretFlags)...)
	if l.fresh, err = c.generateKey(rawMechanism{code: pkcs11.CKM_AES_KEY_GEN}, append(slices.Clone(aes), number(pkcs11.CKA_VALUE_LEN, 32))); err != nil {
		return l, wrapError("C_GenerateKey", err)
	}
	if l.known, err = c.createObject(append(slices.Clone(aes), octets(pkcs11.CKA_VALUE, make([]byte, 32)))); err != nil {
		return l, wrapError("C_CreateObject", err)
	}
	public := append([]Attribute{number(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), number(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA), flag(pkcs11.CKA_TOKEN, false),
		number(pkcs11.CKA_MODULUS_BITS, 2048), octets(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})}, flags(publicFlags, publicFlags[:4])...)
	private := append([]Attribute{number(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), number(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA)}, common...)
	private = append(private, flags(privateFlags, privateFlags[:4])...)
	l.pub, l.priv, err = c.generateKeyPair(rawMechanism{code: pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN}, public, private)
	return l, wrapError("C_GenerateKeyPair", err)
}

func (l loot) drop(c calls) {
	for _, h := range []pkcs11.ObjectHandle{l.fresh, l.known, l.pub, l.priv} {
		_ = c.destroy(h) // session objects: the session's end takes what is left
	}
}

// errAsDemanded is the answer to an unwrap with a contradictory or shortened template that
// the token accepted, and from which it made an object exactly as demanded. SoftHSM takes
// the last of two values of CKA_CLASS, CKA_KEY_TYPE and CKA_PRIVATE, for instance.
var errAsDemanded = errors.New("CKR_OK, but the object is as the unwrap template demands")

// madeAs is made for unwraps: what was made counts only if it differs from the demand.
func madeAs(c calls, h pkcs11.ObjectHandle, err error, demand []Attribute) error {
	if err != nil {
		return err
	}
	for _, d := range demand {
		got, err := c.attribute(h, d.Type)
		if err != nil || !sameAttribute(d.Type, got, d.Value) {
			return made(c, h, nil)
		}
	}
	return joinDestroy(c, h, errAsDemanded)
}

// made is how an attempt that makes an object ends: the object, if there is one, is
// destroyed and the answer returned.
func made(c calls, h pkcs11.ObjectHandle, err error) error {
	if err == nil {
		_ = c.destroy(h) // the attack worked; what is left over does not matter then
	}
	return err
}
