package hsm

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"fmt"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"
)

// CeremonyConfig says how a ceremony opens its token.
type CeremonyConfig struct {
	Config
	// SOPINFile holds the security officer's PIN. It is read only if Trusted is not empty.
	SOPINFile string
	// Trusted lists source transport keys, one per class at most, that the security officer
	// makes before the user logs in. They are session objects of this process.
	Trusted []Spec
	// Adopt, if not empty, takes trusted keys that the token vendor's own tool made in place
	// of making them: the token objects labelled ADOPT-CLASS.
	Adopt string
}

// Ceremony is a token in a process of its own, in which the security officer and the user
// are logged in one after the other: a token has one login per process, and a logout would
// end every session of a daemon. It can do what [Token] does and, besides, make transport
// keys. What is not yet kept in the token dies with the process.
//
// A Ceremony is used by one goroutine.
type Ceremony struct {
	*Token
	raw     rawSession
	profile Profile
	signers *crypto11.Context // keeps the library loaded between the two logins
	trusted map[Class]pkcs11.ObjectHandle
	opener  pkcs11.ObjectHandle // the establishment key, 0 if there is none
}

// OpenCeremony logs in as security officer if keys are to be made, makes them, logs out and
// opens the token as the user.
func OpenCeremony(ctx context.Context, cfg CeremonyConfig) (_ *Ceremony, err error) {
	m, signers, err := openModule(cfg.Module, selector{label: cfg.TokenLabel, serial: cfg.TokenSerial})
	if err != nil {
		return nil, err
	}
	c := &Ceremony{profile: cfg.Profile, signers: signers, trusted: map[Class]pkcs11.ObjectHandle{}}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	slot, _, err := m.findSlot(selector{label: cfg.TokenLabel, serial: cfg.TokenSerial})
	if err != nil {
		return nil, err
	}
	s, err := m.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return nil, wrapError("C_OpenSession", err)
	}
	c.raw = rawSession{ctx: m.ctx, list: m.list, slot: slot, s: s}
	if len(cfg.Trusted) > 0 && cfg.Adopt == "" {
		if err := c.makeTrusted(cfg); err != nil {
			return nil, err
		}
	}
	if c.Token, err = Open(ctx, cfg.Config); err != nil {
		return nil, err
	}
	if cfg.Adopt != "" {
		if err := c.adopt(cfg); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Close ends the ceremony. Session objects, the establishment key among them, are gone.
func (c *Ceremony) Close() {
	if c.Token != nil {
		c.Token.Close()
	}
	if c.raw.ctx != nil {
		_ = c.raw.ctx.CloseSession(c.raw.s) // the process ends next and takes the session with it
	}
}

// makeTrusted runs the security officer's part: one login, one key per class, one logout.
func (c *Ceremony) makeTrusted(cfg CeremonyConfig) error {
	if cfg.Profile.TrustedBy != TrustedBySO {
		return fmt.Errorf("profile %q: trusted keys are made by %s, adopt them: %w", cfg.Profile.Name, cfg.Profile.TrustedBy, ErrNotSupported)
	}
	p, err := readPIN(cfg.SOPINFile, false)
	if err != nil {
		return fmt.Errorf("security officer: %w", err)
	}
	defer p.wipe()
	if err := c.raw.list.login(c.raw.s, pkcs11.CKU_SO, p); err != nil {
		return fmt.Errorf("security officer: %w", wrapError("C_Login", err))
	}
	for _, spec := range cfg.Trusted {
		t, err := Template(spec, NewID(), cfg.Profile, HowGenerate)
		if err != nil {
			return err
		}
		if spec.Role != RoleTransportSource || c.trusted[spec.Class] != 0 {
			return fmt.Errorf("trusted key of role %q, class %q: %w", spec.Role, spec.Class, ErrCaller)
		}
		h, err := c.raw.generateKey(rawMechanism{code: pkcs11.CKM_AES_KEY_GEN}, t)
		if err != nil {
			return fmt.Errorf("making trusted key of class %q: %w", spec.Class, wrapError("C_GenerateKey", err))
		}
		c.trusted[spec.Class] = h
	}
	return wrapError("C_Logout", c.raw.ctx.Logout(c.raw.s))
}

// adopt finds the keys that a vendor's tool made and checks that each is, but for its
// place, what makeTrusted would have made.
func (c *Ceremony) adopt(cfg CeremonyConfig) error {
	for _, spec := range cfg.Trusted {
		label := cfg.Adopt + "-" + string(spec.Class)
		h, err := c.raw.findOne(octets(pkcs11.CKA_LABEL, []byte(label)), number(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY))
		if err != nil {
			return fmt.Errorf("adopting key labelled %q: %w", label, err)
		}
		want, err := Template(spec, ID{}, cfg.Profile, HowGenerate)
		if err != nil {
			return err
		}
		if err := c.raw.check(h, want, pkcs11.CKA_ID, pkcs11.CKA_LABEL, pkcs11.CKA_TOKEN, pkcs11.CKA_PRIVATE,
			pkcs11.CKA_CHECK_VALUE, pkcs11.CKA_WRAP_TEMPLATE, pkcs11.CKA_UNWRAP_TEMPLATE); err != nil {
			return fmt.Errorf("adopting key labelled %q: %w", label, err)
		}
		c.trusted[spec.Class] = h
	}
	return nil
}

// NewEstablishment makes the establishment key of an accept process and returns its SPKI.
func (c *Ceremony) NewEstablishment(name string) (spki []byte, err error) {
	spec := Spec{Role: RoleEstablishment, Algorithm: RSA3072, Name: name}
	t, err := Template(spec, NewID(), c.profile, HowGenerate)
	if err != nil {
		return nil, err
	}
	c.opener, spki, err = generate(c.raw, spec, c.profile, t, 0)
	return spki, err
}

// WrapTrusted wraps the trusted key of one class under another token's establishment key.
func (c *Ceremony) WrapTrusted(class Class, establishmentSPKI []byte) ([]byte, error) {
	key, err := parseEstablishment(establishmentSPKI)
	if err != nil {
		return nil, err
	}
	pub, err := c.raw.createObject(rsaWrappingKey(key))
	if err != nil {
		return nil, wrapError("C_CreateObject", err)
	}
	wrapped, err := c.raw.wrapKey(c.profile.oaepMechanism(), pub, c.trusted[class])
	if err != nil {
		return nil, fmt.Errorf("wrapping transport key of class %q: %w", class, wrapError("C_WrapKey", err))
	}
	return wrapped, wrapError("C_DestroyObject", c.raw.destroy(pub))
}

// KeepTrusted copies the trusted key of one class into the token, private and for good, and
// destroys what it was copied from. From then on nothing can wrap that key.
func (c *Ceremony) KeepTrusted(ctx context.Context, spec Spec, id ID) error {
	t, err := Template(spec, id, c.profile, HowCopy)
	if err != nil {
		return err
	}
	from := c.trusted[spec.Class]
	err = c.make(ctx, "KeepTrusted", spec, id, func(_ *connection, s pkcs11.SessionHandle) (pkcs11.ObjectHandle, error) {
		h, err := c.raw.list.copyObject(s, from, t)
		return h, wrapError("C_CopyObject", err)
	})
	if err != nil {
		return fmt.Errorf("keeping transport key of class %q: %w", spec.Class, err)
	}
	delete(c.trusted, spec.Class)
	return wrapError("C_DestroyObject", c.raw.destroy(from))
}

// OpenTransport unwraps one transport key with the establishment key, as a destination
// transport key of this token.
func (c *Ceremony) OpenTransport(ctx context.Context, spec Spec, id ID, wrapped []byte) error {
	if c.opener == 0 {
		return fmt.Errorf("no establishment key in this process: %w", ErrCaller)
	}
	t, err := Template(spec, id, c.profile, HowUnwrap)
	if err != nil {
		return err
	}
	err = c.make(ctx, "OpenTransport", spec, id, func(_ *connection, s pkcs11.SessionHandle) (pkcs11.ObjectHandle, error) {
		h, err := c.raw.list.unwrapKey(s, c.profile.oaepMechanism(), c.opener, wrapped, t)
		return h, wrapError("C_UnwrapKey", err)
	})
	if err != nil {
		return fmt.Errorf("opening transport key of class %q: %w", spec.Class, err)
	}
	return nil
}

// handle returns the handle of an object of the index.
func (c *Ceremony) handle(id ID) (pkcs11.ObjectHandle, error) {
	e, ok := c.index.get(id)
	if !ok {
		return 0, fmt.Errorf("object %s: %w", id, ErrNotFound)
	}
	return e.handle, nil
}

func parseEstablishment(spki []byte) (*rsa.PublicKey, error) {
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fmt.Errorf("parsing establishment key: %w: %w", ErrCaller, err)
	}
	key, ok := pub.(*rsa.PublicKey)
	if !ok || key.N.BitLen() != int(rsaBits[RSA3072]) || key.E != 65537 {
		return nil, fmt.Errorf("establishment key: want RSA-3072 with exponent 65537: %w", ErrCaller)
	}
	return key, nil
}

// rsaWrappingKey is the template of somebody else's public key, for one wrap.
func rsaWrappingKey(key *rsa.PublicKey) []Attribute {
	t := []Attribute{
		number(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
		number(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
		flag(pkcs11.CKA_TOKEN, false),
		flag(pkcs11.CKA_PRIVATE, true),
	}
	t = append(t, flags(publicFlags, []uint{pkcs11.CKA_WRAP})...)
	return append(t, octets(pkcs11.CKA_MODULUS, key.N.Bytes()), octets(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}))
}
