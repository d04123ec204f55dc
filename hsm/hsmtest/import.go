package hsmtest

import (
	"context"
	"crypto/rsa"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest/kwp"
	"github.com/keyferry/keyferry/hsm/spki"
)

// GenerateImportKey makes an import wrapping key.
func (f *Fake) GenerateImportKey(ctx context.Context, spec hsm.Spec, id hsm.ID) ([]byte, error) {
	return call(ctx, f, "GenerateImportKey", "C_GenerateKeyPair", id, func() ([]byte, error) {
		if err := spec.Check(); err != nil {
			return nil, err
		}
		if spec.Role != hsm.RoleImportWrapping {
			return nil, fmt.Errorf("role %q: %w", spec.Role, hsm.ErrCaller)
		}
		if !slices.Contains(f.opts.ImportSchemes, spec.Import.Scheme) || !slices.Contains(f.opts.Algorithms, spec.Import.Algorithm) {
			return nil, fmt.Errorf("import of %s by %s: %w", spec.Import.Algorithm, spec.Import.Scheme, hsm.ErrNotSupported)
		}
		if err := f.free(id); err != nil {
			return nil, err
		}
		o := &object{Object: hsm.Object{ID: id, Spec: spec, Local: true, AlwaysSensitive: true}}
		if err := f.fill(o); err != nil {
			return nil, err
		}
		f.objects[id] = o
		return spki.Marshal(o.private.public())
	})
}

// ImportUnwrap makes material of what was wrapped under an import wrapping key.
func (f *Fake) ImportUnwrap(ctx context.Context, wrapping hsm.ID, material hsm.Spec, id hsm.ID, blob []byte) ([]byte, error) {
	return call(ctx, f, "ImportUnwrap", "C_UnwrapKey", id, func() ([]byte, error) {
		w, err := f.find(wrapping)
		if err != nil {
			return nil, err
		}
		if err := hsm.CheckImport(w.Spec, material, blob); err != nil {
			return nil, err
		}
		if err := f.admit(material, id); err != nil {
			return nil, err
		}
		scheme, n := w.Spec.Import.Scheme, w.Spec.Algorithm.ModulusBits()/8
		key, err := rsa.DecryptOAEP(scheme.Hash().New(), nil, w.private.rsa, blob[:n], nil)
		if err != nil {
			return nil, hsm.ErrDataInvalid
		}
		if scheme.KeyWrap() {
			if len(key) != 32 {
				return nil, hsm.ErrDataInvalid
			}
			if key, err = kwp.Unwrap(key, blob[n:]); err != nil {
				return nil, hsm.ErrDataInvalid
			}
		}
		shared := material.Role == hsm.RoleSharedMaterial
		o := &object{Object: hsm.Object{ID: id, Spec: material, Extractable: shared, WrapWithTrusted: shared}}
		if err := o.take(key); err != nil {
			return nil, err
		}
		f.objects[id] = o
		if o.private == nil || o.private.rsa == nil {
			return nil, nil // elliptic-curve keys show no public half, as in SoftHSM
		}
		return spki.Marshal(o.private.public())
	})
}
