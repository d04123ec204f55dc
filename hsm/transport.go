package hsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Wrap wraps shared material under a source transport key, by RFC 5649. Roles and classes
// are checked here first, and again by the token.
func (t *Token) Wrap(ctx context.Context, transport, material ID) ([]byte, error) {
	return use(ctx, t, "Wrap", transport, UseWrap, func(s pkcs11.SessionHandle, key entry) ([]byte, error) {
		c, err := t.connected()
		if err != nil {
			return nil, err
		}
		m, err := t.resolve(ctx, c, s, material)
		if err != nil {
			return nil, err
		}
		if err := CheckWrap(key.Spec, m.Spec); err != nil {
			return nil, err
		}
		wrapped, err := t.driver.WrapKey(s, t.cfg.Profile.wrapMechanism(), key.handle, m.handle)
		if errors.Is(err, ErrNotFound) {
			t.index.forget(material, m.handle) // use forgets the transport key; either may be the stale one
		}
		return wrapped, err
	})
}

// Unwrap makes shared material of a blob that was wrapped under the other end of the
// transport key. What it makes is not believed yet: the caller recomputes its material ID.
// A blob that does not fit is [ErrDataInvalid] and leaves nothing behind.
func (t *Token) Unwrap(ctx context.Context, transport ID, spec Spec, id ID, wrapped []byte) error {
	if err := spec.Check(); err != nil {
		return err
	}
	template, err := Template(spec, id, t.cfg.Profile, HowUnwrap)
	if err != nil {
		return err
	}
	wrapped = bytes.Clone(wrapped) // the caller may leave and reuse it while the token reads
	return t.make(ctx, "Unwrap", spec, id, func(c *connection, s pkcs11.SessionHandle) (pkcs11.ObjectHandle, error) {
		key, err := t.resolve(ctx, c, s, transport)
		if err != nil {
			return 0, fmt.Errorf("transport key: %w", err)
		}
		if err := CheckUnwrap(key.Spec, spec, wrapped); err != nil {
			return 0, err
		}
		return t.driver.UnwrapKey(s, rawMechanism{code: t.cfg.Profile.wrapMechanism()}, key.handle, wrapped, template)
	})
}
