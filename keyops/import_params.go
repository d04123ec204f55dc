package keyops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/seal"
)

// GetParametersForImport makes a wrapping key in the token and returns its public half, with
// the import token that an import of what is wrapped under it has to come with.
func (s *Service) GetParametersForImport(ctx context.Context, caller Caller, in GetParametersForImportInput) (GetParametersForImportOutput, error) {
	t := target{
		ref:     in.KeyID,
		says:    []say{{policy.WrappingAlgorithm, string(in.WrappingAlgorithm)}, {policy.WrappingKeySpec, string(in.WrappingKeySpec)}},
		details: map[string]string{"wrappingAlgorithm": clip(string(in.WrappingAlgorithm)), "wrappingKeySpec": clip(string(in.WrappingKeySpec))},
	}
	scheme, known := findScheme(in.WrappingAlgorithm)
	size, sized := findWrappingKey(in.WrappingKeySpec)
	switch {
	case !known:
		t.invalid = invalid("wrappingAlgorithm", "satisfy enum value set: [%s, %s, %s, %s]", WrapOAEPSHA1, WrapOAEPSHA256, WrapRSAAESKeyWrapSHA1, WrapRSAAESKeyWrapSHA256)
	case !sized:
		t.invalid = invalid("wrappingKeySpec", "satisfy enum value set: [%s, %s, %s]", WrappingRSA2048, WrappingRSA3072, WrappingRSA4096)
	}
	return do(ctx, s, caller, "GetParametersForImport", t, func(ctx context.Context, c *call) (GetParametersForImportOutput, error) {
		spec := hsm.Spec{Role: hsm.RoleImportWrapping, Algorithm: size, Import: c.key.purpose(scheme), Name: string(c.key.ID)}
		if err := s.wrappable(c.key, in, spec); err != nil {
			return GetParametersForImportOutput{}, err
		}
		return s.newWrapping(ctx, c, spec)
	})
}

// wrappable refuses a way of wrapping that does not fit the key, or that this token lacks.
func (s *Service) wrappable(k *Key, in GetParametersForImportInput, spec hsm.Spec) error {
	can := s.token.Capabilities().ImportSchemes
	if !slices.Contains(can, spec.Import.Scheme) {
		return refuse(ErrUnsupportedOperation, "This Region's token cannot unwrap %s; it can unwrap %v.", in.WrappingAlgorithm, can)
	}
	if spec.Import.Scheme.KeyWrap() || spec.Check() == nil {
		return nil
	}
	// Only the length can be wrong: RSA-OAEP carries less than the modulus has.
	more := []hsm.Algorithm{hsm.RSA3072, hsm.RSA4096}
	for _, size := range more {
		larger := spec
		if larger.Algorithm = size; larger.Check() == nil {
			return refuse(ErrUnsupportedOperation, "%s under a wrapping key of spec %s cannot carry key material of key spec %s; use wrapping key spec %s.", in.WrappingAlgorithm, in.WrappingKeySpec, k.Spec, size)
		}
	}
	return refuse(ErrUnsupportedOperation, "%s cannot carry key material of key spec %s, which is too long for it; use %s or %s.", in.WrappingAlgorithm, k.Spec, WrapRSAAESKeyWrapSHA256, WrapRSAAESKeyWrapSHA1)
}

// newWrapping makes a wrapping key in the write order.
func (s *Service) newWrapping(ctx context.Context, c *call, spec hsm.Spec) (GetParametersForImportOutput, error) {
	var none GetParametersForImportOutput
	if err := s.tidyWrappings(ctx); err != nil {
		s.log.WithError(err).Warn("import wrapping keys that are used up stay for now")
	}
	handed := wrapping{
		object: hsm.NewID(), key: c.key.ID, account: c.key.Account, scheme: spec.Import.Scheme,
		until: s.clock().UTC().Truncate(time.Second).Add(parametersValidity),
	}
	if err := s.wrappings.reserve(handed, c.key.arn); err != nil {
		return none, err
	}
	defer s.wrappings.made(handed.object)
	token, err := s.makeImportToken(ctx, c.key.ID, handed.object, handed.until)
	if err != nil {
		return none, err
	}
	w := &write{intent: intent{by: byParameters, key: c.key.ID, object: handed.object}}
	w.make = func(ctx context.Context) ([]byte, error) {
		spki, err := s.token.GenerateImportKey(ctx, spec, w.object)
		if err != nil {
			return nil, fmt.Errorf("generating an import wrapping key: %w", err)
		}
		return spki, nil
	}
	w.check = func(context.Context) (material.ID, error) { // it is no material
		if len(w.spki) == 0 {
			return material.ID{}, internal(errors.New("the token made a wrapping key without a public half"))
		}
		return material.ID{}, nil
	}
	w.settle = func(ctx context.Context, _ material.ID, _ []byte) error {
		k := s.view.key(c.key.ID)
		if k == nil {
			return refuse(ErrNotFound, "Key '%s' does not exist", c.key.arn)
		}
		if err := s.still(c, k); err != nil {
			return err
		}
		return s.update(ctx, func(tx *seal.Tx) error {
			if err := tx.Put(kindWrapping, handed.object.String(), handed.encode()); err != nil {
				return err
			}
			return tx.Delete(kindIntent, handed.object.String())
		})
	}
	if err := s.perform(ctx, w); err != nil {
		return none, err
	}
	s.wrappings.put(handed)
	return GetParametersForImportOutput{KeyID: c.key.arn, ImportToken: token, PublicKey: w.spki, ParametersValidTo: handed.until}, nil
}
