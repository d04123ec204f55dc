package keyops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
)

// errNotOurs means that the object under a material's CKA_ID is not that material. With the
// user PIN anybody can put a key of known bytes there.
var errNotOurs = errors.New("object in the token is not the key's material")

// identify recomputes a material's ID inside the token. For a key pair the ID follows from
// the public key alone, which is somebody's word, so the object has to prove that it is the
// other half (challenge.go).
func (s *Service) identify(ctx context.Context, key arn.KeyID, spec KeySpec, row use, object hsm.ID, spki []byte) (material.ID, error) {
	var check []byte
	var err error
	switch {
	case row.token == hsm.AES256:
		blocks := material.AESBlocks(string(key))
		check, err = s.token.EncryptBlocks(ctx, object, blocks[:])
	case row.token.Secret():
		check, err = s.token.MAC(ctx, object, material.MACMessage(string(key)))
	default:
		check, err = spki, s.challenge(ctx, row, object, spki)
	}
	if unusable(err) {
		return material.ID{}, fmt.Errorf("recomputing a material ID: %w: %w", errNotOurs, err)
	}
	if err != nil {
		return material.ID{}, fmt.Errorf("recomputing a material ID: %w", err)
	}
	return material.Compute(string(spec), string(key), check), nil
}

// unusable tells what is wrong with an object from what is wrong with the token. SoftHSM makes
// an object first and gives it its value in a second write, so a process that dies between
// the two leaves one that looks right, and with which no call succeeds, nor ever will.
func unusable(err error) bool {
	return errors.Is(err, hsm.ErrCaller) || errors.Is(err, hsm.ErrNotSupported) ||
		errors.Is(err, hsm.ErrDataInvalid) || errors.Is(err, hsm.ErrModuleBroken)
}

// prove makes sure, once per process, that the object under the material's CKA_ID is the
// material that the sealed row means.
func (s *Service) prove(ctx context.Context, k *Key, m *Material) error {
	if !m.Expires.IsZero() && m.expired(s.clock()) {
		return refuse(ErrInvalidState, "%s is pending import.", k.arn)
	}
	if m.watch.proven.Load() {
		return nil
	}
	err := s.proveNow(ctx, k, m)
	switch {
	case err == nil:
		m.watch.proven.Store(true)
		m.watch.missing.Store(false)
	case errors.Is(err, errNotOurs):
		m.watch.missing.Store(true)
		s.log.WithError(err).WithField("key", k.ID).WithField("object", m.Object).
			Error("ALARM: the token holds another object in the place of a key's material")
		return internal(err)
	}
	return err
}

func (s *Service) proveNow(ctx context.Context, k *Key, m *Material) error {
	o, err := s.token.Lookup(ctx, m.Object)
	if err != nil {
		return fmt.Errorf("looking up material %s: %w", m.ID, err)
	}
	if err := k.expects(o, m.Local); err != nil {
		return fmt.Errorf("material %s: %w: %w", m.ID, errNotOurs, err)
	}
	id, err := s.identify(ctx, k.ID, k.Spec, k.use(), m.Object, m.SPKI)
	if err != nil {
		return fmt.Errorf("material %s: %w", m.ID, err)
	}
	if id != m.ID {
		return fmt.Errorf("material %s: %w: its ID is %s", m.ID, errNotOurs, id)
	}
	return nil
}

// expects compares what the token says of an object with what the key's material has to
// be. Material that was made here was never outside this token.
func (k *Key) expects(o hsm.Object, local bool) error {
	row, shared := k.use(), k.role() == hsm.RoleSharedMaterial
	switch want := (hsm.Spec{Role: k.role(), Algorithm: row.token, Usage: row.tokenUsage, Name: o.Spec.Name}); {
	case o.Spec != want:
		return errors.New("role, algorithm or usage differs")
	case local && !(o.Local && o.AlwaysSensitive):
		return errors.New("not made in this token")
	case shared != o.Extractable || shared != o.WrapWithTrusted:
		return errors.New("extractability differs")
	}
	return nil
}

// tokenFailed looks at a failed use of a material. If the object is gone, what was proven
// of it is not believed any more: the next object under this CKA_ID has to prove itself.
func (s *Service) tokenFailed(m *Material, err error) error {
	if errors.Is(err, hsm.ErrNotFound) {
		m.watch.proven.Store(false)
		m.watch.missing.Store(true)
	}
	return err
}

// presenceTimeout bounds how long a description waits for the token.
const presenceTimeout = time.Second

// deprived reports whether what the key encrypts and signs with is no longer in the token, or
// another object is in its place. A token that does not answer changes nothing of that.
func (s *Service) deprived(ctx context.Context, k *Key) bool {
	m := k.Material(k.Current)
	if m == nil || m.Lost {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, presenceTimeout)
	defer cancel()
	o, err := s.token.Present(ctx, m.Object)
	switch {
	case errors.Is(err, hsm.ErrNotFound):
		s.tokenFailed(m, err)
		return true
	case err != nil:
		return m.watch.missing.Load()
	case k.expects(o, m.Local) != nil:
		return true
	case m.watch.missing.Load():
		return s.prove(ctx, k, m) != nil // what is there now has to prove itself
	}
	return false
}

// mayArrive reports whether a material that this Region has never heard of may be on its
// way here: the key is shared, and somebody else decides what is listed.
func (s *Service) mayArrive(k *Key, prefix [material.PrefixSize]byte) bool {
	if k.Set == nil {
		return false
	}
	for _, l := range k.Set.Listed() {
		if l.ID.Prefix() == prefix {
			return true
		}
	}
	if k.Set.Acting() {
		return false
	}
	primary := k.Set.Primary()
	c, ok := s.peers.(Contacts)
	fresh := ok && s.clock().Sub(c.LastContact(primary)) < s.freshness
	return !fresh || k.Set.Entry(s.self.Region).Status != mrk.Active
}
