package hsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/pkcs11"
)

// Report is the result of a self-test.
type Report struct {
	Boundary Boundary
	// Failures says what did not work that must; empty if all did.
	Failures []string
	// Attempts are the attacks that were made on stand-ins, and the token's answers.
	Attempts []Attempt
	Took     time.Duration
}

// Err returns nil if everything worked that must and every attack was refused.
func (r Report) Err() error {
	var errs []error
	for _, f := range r.Failures {
		errs = append(errs, errors.New(f))
	}
	for _, a := range Broken(r.Attempts) {
		errs = append(errs, fmt.Errorf("attack %s not refused: %s: %s: %s answered %s", a.Attack, a.Victim, a.Words, a.Function, a.Answer))
	}
	return errors.Join(errs...)
}

// SelfTest makes stand-ins with the real templates as session objects, uses them for what
// they are for, attacks them, and destroys them. Transport keys of the token are attacked
// as well, in ways that change nothing even where they work. The boundary that it finds is
// part of Capabilities from then on.
//
// A stand-in of a source transport key cannot be trusted, since that takes the security
// officer; what depends on trust is tested with the token's own, where it has some.
//
// An error means that the test could not be made; a token that failed it has a Report
// with BoundaryNone.
func (t *Token) SelfTest(ctx context.Context) (Report, error) {
	start := time.Now()
	report, err := onOwnSession(ctx, t, "SelfTest", func(raw rawSession) (Report, error) {
		return selfTest(raw, t.cfg.Profile, t.established(), func(h pkcs11.ObjectHandle) error { return t.roundTripGCM(raw.s, h) })
	})
	if err != nil {
		t.setBoundary(false)
		return Report{Boundary: BoundaryNone}, err
	}
	report.Took = time.Since(start)
	report.Boundary = t.setBoundary(report.Err() == nil)
	return report, nil
}

// onOwnSession runs fn on a session that is closed afterwards and takes its objects with
// it: a refused C_UnwrapKey leaves an empty object behind in SoftHSM, whose handle nobody has.
func onOwnSession[T any](ctx context.Context, t *Token, op string, fn func(raw rawSession) (T, error)) (T, error) {
	return do(ctx, t, call{op: op}, func(c *connection, _ pkcs11.SessionHandle) (v T, err error) {
		s, err := t.driver.OpenSession(c.slot)
		if err != nil {
			return v, err
		}
		defer func() { err = errors.Join(err, t.driver.CloseSession(s)) }()
		return fn(rawSession{ctx: t.module.ctx, list: t.module.list, slot: c.slot, s: s})
	})
}

// roundTripGCM encrypts as requests do, with the profile's source of IVs, and decrypts.
func (t *Token) roundTripGCM(s pkcs11.SessionHandle, h pkcs11.ObjectHandle) error {
	text, aad := []byte("keyferry/self-test"), []byte("stand-in")
	iv, sealed, err := t.encryptGCM(s, h, aad, text)
	if err != nil {
		return err
	}
	params := pkcs11.NewGCMParams(iv, aad, gcmTag*8)
	defer params.Free()
	got, err := t.driver.Decrypt(s, pkcs11.NewMechanism(t.cfg.Profile.gcmMechanism(), params), h, sealed)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, text) {
		return fmt.Errorf("decrypted to something else: %w", ErrModuleBroken)
	}
	return nil
}

// established returns the source transport keys of the index.
func (t *Token) established() (keys []victim) {
	for _, o := range t.Objects() {
		if e, ok := t.index.get(o.ID); ok && o.Spec.Role == RoleTransportSource {
			keys = append(keys, victim{name: nameOf(o.Spec), spec: o.Spec, h: e.handle})
		}
	}
	return keys
}

func nameOf(s Spec) string {
	name := string(s.Role)
	for _, part := range []string{string(s.Algorithm), string(s.Usage), string(s.Class), s.Import.word(), s.Name} {
		if part != "" {
			name += " " + part
		}
	}
	return name
}

// selfTest is SelfTest on bare calls; gcm is the round trip of an AES key.
func selfTest(c calls, p Profile, established []victim, gcm func(pkcs11.ObjectHandle) error) (Report, error) {
	b := bench{c: c, p: p}
	defer b.clear()
	s, err := b.build()
	if err != nil {
		return Report{}, err
	}
	b.rehearse(s, gcm)
	attempts, err := s.run(c)
	if err != nil {
		return Report{}, err
	}
	onReal, err := s.tryEstablished(c, established)
	if err != nil {
		return Report{}, err
	}
	return Report{Failures: b.failures, Attempts: append(attempts, onReal...)}, nil
}

// tryEstablished asks the token's own source keys for what they must not wrap. No answer
// changes them.
func (s scene) tryEstablished(c calls, established []victim) (all []Attempt, err error) {
	if len(established) == 0 {
		return nil, nil
	}
	victims := s.victims
	s.victims = append(append([]victim(nil), victims...), established...)
	plan, err := planWrapTransport(s, c)
	if err != nil {
		return nil, err
	}
	for _, t := range plan {
		all = append(all, t.run(c, "wrap-transport"))
	}
	return all, nil
}
