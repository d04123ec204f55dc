package hsmtest

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest/kwp"
	"github.com/keyferry/keyferry/hsm/spki"
)

// Generate makes a key.
func (f *Fake) Generate(ctx context.Context, spec hsm.Spec, id hsm.ID) ([]byte, error) {
	function := "C_GenerateKey"
	if !spec.Algorithm.Secret() {
		function = "C_GenerateKeyPair"
	}
	return call(ctx, f, "Generate", function, id, func() ([]byte, error) {
		switch spec.Role {
		case hsm.RoleMaterial, hsm.RoleSharedMaterial, hsm.RoleRegionSigning, hsm.RoleSeal:
		default:
			return nil, fmt.Errorf("role %q is made in ceremonies or for an import: %w", spec.Role, hsm.ErrCaller)
		}
		if err := f.admit(spec, id); err != nil {
			return nil, err
		}
		shared := spec.Role == hsm.RoleSharedMaterial
		o := &object{Object: hsm.Object{
			ID: id, Spec: spec, Local: true, AlwaysSensitive: true, Extractable: shared, WrapWithTrusted: shared,
		}}
		if err := f.fill(o); err != nil {
			return nil, err
		}
		f.objects[id] = o
		if o.private == nil {
			return nil, nil
		}
		return spki.Marshal(o.private.public())
	})
}

// admit checks a write under id.
func (f *Fake) admit(spec hsm.Spec, id hsm.ID) error {
	if err := spec.Check(); err != nil {
		return err
	}
	if !slices.Contains(f.opts.Algorithms, spec.Algorithm) {
		return fmt.Errorf("%s %s: %w", spec.Algorithm, spec.Usage, hsm.ErrNotSupported)
	}
	return f.free(id)
}

// free checks that id can be written.
func (f *Fake) free(id hsm.ID) error {
	if f.objects[id] != nil {
		return fmt.Errorf("object %s: %w", id, hsm.ErrExists)
	}
	if f.destroyed[id] {
		f.violated("object %s is written after it was destroyed: IDs are never used again", id)
	}
	return nil
}

// fill makes the object's key.
func (f *Fake) fill(o *object) error {
	curve := o.Spec.Algorithm.Curve()
	switch {
	case o.Spec.Algorithm.Secret():
		o.secret = f.random(o.Spec.Algorithm.SecretBytes())
		return nil
	case curve == nil:
		var err error
		o.private, err = rsaPrivate(o.Spec.Algorithm)
		return err
	}
	for {
		// Rejection sampling of the scalar, so that a seeded reader decides the key.
		scalar := f.random((curve.Params().BitSize + 7) / 8)
		scalar[0] &= byte(1<<((curve.Params().BitSize-1)%8+1) - 1)
		if k, err := ecPrivate(curve, scalar); err == nil {
			o.private = k
			return nil
		}
	}
}

// take makes the object of bytes that were unwrapped.
func (o *object) take(key []byte) error {
	if a := o.Spec.Algorithm; a.Secret() {
		if len(key) != a.SecretBytes() {
			return hsm.ErrDataInvalid
		}
		o.secret = key
		return nil
	}
	k, err := parsePrivate(key)
	if err != nil || !k.fits(o.Spec.Algorithm) {
		return hsm.ErrDataInvalid
	}
	o.private = k
	return nil
}

func (f *Fake) random(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(f.opts.Rand, b); err != nil {
		panic(fmt.Sprintf("hsmtest: Options.Rand: %v", err))
	}
	return b
}

// Destroy removes an object; it succeeds if there is none.
func (f *Fake) Destroy(ctx context.Context, id hsm.ID) error {
	_, err := call(ctx, f, "Destroy", "C_DestroyObject", id, func() (any, error) {
		if f.objects[id] != nil {
			delete(f.objects, id)
			f.destroyed[id] = true
		}
		return nil, nil
	})
	return err
}

// Wrap wraps shared material under a source transport key, by RFC 5649.
func (f *Fake) Wrap(ctx context.Context, transport, material hsm.ID) ([]byte, error) {
	return call(ctx, f, "Wrap", "C_WrapKey", material, func() ([]byte, error) {
		t, err := f.find(transport)
		if err != nil {
			return nil, err
		}
		m, err := f.find(material)
		if err != nil {
			return nil, err
		}
		if err := hsm.CheckWrap(t.Spec, m.Spec); err != nil {
			return nil, err
		}
		key := m.secret
		if m.private != nil {
			if key, err = m.private.marshal(); err != nil {
				return nil, err
			}
		}
		return kwp.Wrap(t.secret, key)
	})
}

// Unwrap makes shared material of a blob that the other end of the transport key wrapped.
func (f *Fake) Unwrap(ctx context.Context, transport hsm.ID, spec hsm.Spec, id hsm.ID, wrapped []byte) error {
	_, err := call(ctx, f, "Unwrap", "C_UnwrapKey", id, func() (any, error) {
		t, err := f.find(transport)
		if err != nil {
			return nil, err
		}
		if err := hsm.CheckUnwrap(t.Spec, spec, wrapped); err != nil {
			return nil, err
		}
		if err := f.admit(spec, id); err != nil {
			return nil, err
		}
		o := &object{Object: hsm.Object{ID: id, Spec: spec, Extractable: true, WrapWithTrusted: true}}
		key, err := kwp.Unwrap(t.secret, wrapped)
		if err != nil {
			return nil, hsm.ErrDataInvalid
		}
		if err := o.take(key); err != nil {
			return nil, err
		}
		f.objects[id] = o
		return nil, nil
	})
	return err
}

// find returns the object with this ID. The caller holds the lock.
func (f *Fake) find(id hsm.ID) (*object, error) {
	o := f.objects[id]
	if o == nil {
		return nil, fmt.Errorf("object %s: %w", id, hsm.ErrNotFound)
	}
	return o, nil
}

// Transport is one transport key as its two ends know it.
type Transport struct{ Source, Destination hsm.ID }

// Establish does what a ceremony does: one new transport key per class, which source wraps
// under and destination unwraps with. name becomes the Name of both ends' specs.
func Establish(source, destination *Fake, name string) map[hsm.Class]Transport {
	keys := map[hsm.Class]Transport{}
	for _, class := range hsm.Classes {
		secret := source.randomLocked(32)
		spec := hsm.Spec{Algorithm: hsm.AES256, Class: class, Name: name}
		spec.Role = hsm.RoleTransportSource
		s := source.place(&object{Object: hsm.Object{Spec: spec, Local: true, AlwaysSensitive: true}, secret: secret})
		spec.Role = hsm.RoleTransportDestination
		d := destination.place(&object{Object: hsm.Object{Spec: spec}, secret: secret})
		keys[class] = Transport{Source: s, Destination: d}
	}
	return keys
}

func (f *Fake) randomLocked(n int) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.random(n)
}

func (f *Fake) place(o *object) hsm.ID {
	f.mu.Lock()
	defer f.mu.Unlock()
	o.ID = hsm.ID(f.random(16))
	f.objects[o.ID] = o
	return o.ID
}
