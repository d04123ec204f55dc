package hsm

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Record wraps one shared material of each class under every source transport key of the
// token, as anybody with the user PIN can: it is what such keys are for. The blobs are
// what a thief would then try to open here and at the destinations.
func (t *Token) Record(ctx context.Context) (Blobs, error) {
	blobs := Blobs{}
	objects := t.Objects()
	for _, source := range objects {
		if source.Spec.Role != RoleTransportSource {
			continue
		}
		for _, m := range objects {
			if CheckWrap(source.Spec, m.Spec) != nil {
				continue
			}
			blob, err := t.Wrap(ctx, source.ID, m.ID)
			if err != nil {
				return nil, err
			}
			blobs[blobOf(source.Spec, source.Spec.Class)] = blob
		}
	}
	return blobs, nil
}

// Attack makes every attack of the table on the token's own objects, with the rights of
// the user PIN and what was recorded: blobs, and packages of past ceremonies. Where the
// token refuses, nothing is changed. It is an error if the blobs do not open with this
// token's destination keys in the way they are meant to, since refusals would prove
// nothing then.
func (t *Token) Attack(ctx context.Context, blobs Blobs, packages [][]byte) ([]Attempt, error) {
	return onOwnSession(ctx, t, "Attack", func(raw rawSession) ([]Attempt, error) {
		scene := scene{p: t.cfg.Profile, blobs: blobs, packages: packages}
		for _, o := range t.Objects() {
			if e, ok := t.index.get(o.ID); ok {
				scene.victims = append(scene.victims, victim{name: nameOf(o.Spec), spec: o.Spec, h: e.handle})
			}
		}
		slices.SortFunc(scene.victims, func(a, b victim) int { return strings.Compare(a.name, b.name) })
		if err := scene.control(raw); err != nil {
			return nil, err
		}
		return scene.run(raw)
	})
}

// control opens every recorded blob as it is meant to be opened.
func (s scene) control(c calls) error {
	for _, v := range s.having(RoleTransportSource, RoleTransportDestination) {
		for _, class := range Classes {
			if len(s.blobs[blobOf(v.spec, class)]) == 0 {
				return fmt.Errorf("no blob of class %s was recorded for %s: %w", class, v.spec.Name, ErrCaller)
			}
		}
		if v.spec.Role != RoleTransportDestination {
			continue
		}
		t, err := sessionTemplate(carried[v.spec.Class], s.p, HowUnwrap)
		if err != nil {
			return err
		}
		h, err := c.unwrapKey(rawMechanism{code: s.p.wrapMechanism()}, v.h, s.blobs[blobOf(v.spec, v.spec.Class)], t)
		if err != nil {
			return fmt.Errorf("opening the recorded blob of %s as it is meant: %w", v.name, wrapError("C_UnwrapKey", err))
		}
		if err := c.destroy(h); err != nil {
			return wrapError("C_DestroyObject", err)
		}
	}
	return nil
}
