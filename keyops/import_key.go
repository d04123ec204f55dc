package keyops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/seal"
)

// ImportKeyMaterial unwraps key material inside the token, proves that it is what the key
// needs, and only then lets the key have it.
func (s *Service) ImportKeyMaterial(ctx context.Context, caller Caller, in ImportKeyMaterialInput) (ImportKeyMaterialOutput, error) {
	if in.ExpirationModel == "" {
		in.ExpirationModel = MaterialExpires
	}
	t := target{
		ref: in.KeyID, invalid: s.checkImport(in),
		says:    []say{{policy.ExpirationModel, string(in.ExpirationModel)}},
		details: map[string]string{"expirationModel": clip(string(in.ExpirationModel)), "importType": clip(string(in.ImportType))},
	}
	if !in.ValidTo.IsZero() {
		t.says = append(t.says, say{policy.ValidTo, in.ValidTo.UTC().Format(time.RFC3339)})
		t.details["validTo"] = in.ValidTo.UTC().Format(time.RFC3339)
	}
	return do(ctx, s, caller, "ImportKeyMaterial", t, func(ctx context.Context, c *call) (ImportKeyMaterialOutput, error) {
		id, err := s.importMaterial(ctx, c, in)
		if err != nil {
			return ImportKeyMaterialOutput{}, err
		}
		c.record.detail("keyMaterialId", id.String())
		return ImportKeyMaterialOutput{KeyID: c.key.arn, KeyMaterialID: id.String()}, nil
	})
}

// checkImport refuses what no import can have.
func (s *Service) checkImport(in ImportKeyMaterialInput) error {
	if err := size("importToken", in.ImportToken, maxImportToken); err != nil {
		return err
	}
	if err := size("encryptedKeyMaterial", in.EncryptedKeyMaterial, maxEncryptedMaterial); err != nil {
		return err
	}
	now := s.clock()
	switch in.ExpirationModel {
	case MaterialExpires:
		switch {
		case in.ValidTo.IsZero():
			return refuse(ErrValidation, "A validTo date must be set if the ExpirationModel is %s; for key material that does not expire, set the ExpirationModel to %s.", MaterialExpires, MaterialDoesNotExpire)
		case !now.Before(in.ValidTo):
			return refuse(ErrValidation, "The validTo date must be in the future.")
		case in.ValidTo.Sub(now) > maxValidity:
			return refuse(ErrValidation, "The validTo date must be within 365 days from now.")
		}
	case MaterialDoesNotExpire:
		if !in.ValidTo.IsZero() {
			return refuse(ErrValidation, "A validTo date must not be set if the ExpirationModel is %s.", MaterialDoesNotExpire)
		}
	default:
		return invalid("expirationModel", "satisfy enum value set: [%s, %s]", MaterialExpires, MaterialDoesNotExpire)
	}
	switch in.ImportType {
	case "", NewKeyMaterial, ExistingKeyMaterial:
	default:
		return invalid("importType", "satisfy enum value set: [%s, %s]", NewKeyMaterial, ExistingKeyMaterial)
	}
	if !utf8.ValidString(in.KeyMaterialDescription) || utf8.RuneCountInString(in.KeyMaterialDescription) > maxMaterialDescription {
		return invalid("keyMaterialDescription", "have length less than or equal to %d", maxMaterialDescription)
	}
	if in.KeyMaterialID != "" {
		if _, err := material.Parse(in.KeyMaterialID); err != nil {
			return invalid("keyMaterialId", "satisfy regular expression pattern: ^[a-f0-9]{64}$")
		}
		if in.ImportType == NewKeyMaterial {
			return refuse(ErrValidation, "KeyMaterialId names material that the key had; it cannot be given with ImportType %s.", NewKeyMaterial)
		}
	}
	return nil
}

// importMaterial makes one attempt with an import token. Attempts on one key follow each
// other, so that no two of them count as one.
func (s *Service) importMaterial(ctx context.Context, c *call, in ImportKeyMaterialInput) (material.ID, error) {
	object, err := s.openImportToken(ctx, c.key, in.ImportToken)
	if err != nil {
		return material.ID{}, err
	}
	entry := s.view.entry(c.key.ID)
	if entry == nil {
		return material.ID{}, refuse(ErrNotFound, "Key '%s' does not exist", c.key.arn)
	}
	entry.install.Lock()
	defer entry.install.Unlock()
	k := entry.key.Load()
	if err := s.still(c, k); err != nil {
		return material.ID{}, err
	}
	if in.ImportType == "" {
		in.ImportType = NewKeyMaterial
		if len(k.expected()) > 0 {
			in.ImportType = ExistingKeyMaterial
		}
	}
	if err := s.mayImport(k, in); err != nil {
		return material.ID{}, err
	}
	handed, err := s.attempt(ctx, k, object)
	if err != nil {
		return material.ID{}, err
	}
	w := s.importWrite(c, k, in, handed)
	err = s.perform(ctx, w)
	if errors.Is(err, errRepeated) {
		err = nil // only the words about the material changed; perform has destroyed the second object
	}
	handed.spent = err == nil
	s.wrappings.put(handed)
	s.wrappings.release(object)
	if tidy := s.tidyWrappings(context.WithoutCancel(ctx)); tidy != nil {
		s.log.WithError(tidy).WithField("key", k.ID).Warn("an import wrapping key that is used up stays for now")
	}
	return w.id, err
}

// mayImport refuses, before an attempt is made, what the material could not change.
func (s *Service) mayImport(k *Key, in ImportKeyMaterialInput) error {
	expected := k.expected()
	switch {
	case in.ImportType == ExistingKeyMaterial && len(expected) == 0:
		return refuse(ErrIncorrectKeyMaterial, "No key material was ever imported into %s; import it with ImportType %s.", k.arn, NewKeyMaterial)
	case in.ImportType == NewKeyMaterial && len(expected) > 0 && k.Spec != SymmetricDefault:
		return refuse(ErrUnsupportedOperation, "%s has key spec %s, and so one key material for life; import the same again with ImportType %s.", k.arn, k.Spec, ExistingKeyMaterial)
	case in.ImportType == NewKeyMaterial && k.Set != nil && k.Set.Primary() != s.self.Region:
		return refuse(ErrUnsupportedOperation, "New key material of %s is imported first in Region %s, where the primary key is; then import the same here with ImportType %s.", k.arn, k.Set.Primary(), ExistingKeyMaterial)
	}
	if in.KeyMaterialID == "" {
		return nil
	}
	if id, err := material.Parse(in.KeyMaterialID); err != nil || !slices.Contains(expected, id) {
		return refuse(ErrIncorrectKeyMaterial, "%s has no key material with ID %s.", k.arn, in.KeyMaterialID)
	}
	return nil
}

// attempt counts an attempt, durably, before it is made: a crash in the middle of one gives
// nobody another.
func (s *Service) attempt(ctx context.Context, k *Key, object hsm.ID) (wrapping, error) {
	w, ok := s.wrappings.take(object, s.clock())
	if !ok || w.key != k.ID {
		return wrapping{}, refuse(ErrInvalidImportToken, "The import token was used: it serves one import, and %d attempts. Get new parameters, and wrap the key material again.", maxImportAttempts)
	}
	w.attempts++
	err := s.update(ctx, func(tx *seal.Tx) error { return tx.Put(kindWrapping, object.String(), w.encode()) })
	if err != nil {
		s.wrappings.release(object)
		return wrapping{}, fmt.Errorf("counting an attempt to import: %w", err)
	}
	s.wrappings.put(w)
	return w, nil
}

// errUnwrapping is what every import hears whose material does not come out of the blob as
// what the key needs: which step of the unwrapping failed, and how, is nobody's to know.
func errUnwrapping(k *Key, why error) error {
	e := refuse(ErrInvalidCiphertext, "The encrypted key material cannot be unwrapped as key material of %s. Wrap %s with the wrapping algorithm and the public key that came with this import token.", k.arn, k.what())
	e.cause = why
	return e
}

// errRepeated ends a write whose material the key holds already.
var errRepeated = errors.New("the key holds this material already")

// importWrite is the import in the write order.
func (s *Service) importWrite(c *call, k *Key, in ImportKeyMaterialInput, handed wrapping) *write {
	row := k.use()
	w := &write{intent: intent{by: byImport, key: k.ID, object: hsm.NewID()}, spec: k.Spec, use: row}
	spec := hsm.Spec{Role: k.role(), Algorithm: row.token, Usage: row.tokenUsage, Name: importLabel(k.ID)}
	w.make = func(ctx context.Context) ([]byte, error) {
		spki, err := s.token.ImportUnwrap(ctx, handed.object, spec, w.object, in.EncryptedKeyMaterial)
		switch {
		case errors.Is(err, hsm.ErrDataInvalid):
			return nil, errUnwrapping(k, err)
		case errors.Is(err, hsm.ErrNotFound):
			return nil, refuse(ErrInvalidImportToken, "The wrapping key of this import token is gone from the token of Region %s; get new parameters, and wrap the key material again.", s.self.Region)
		case err != nil:
			return nil, fmt.Errorf("unwrapping imported material: %w", err)
		}
		return spki, nil
	}
	w.check = func(ctx context.Context) (id material.ID, err error) {
		if row.pair() && len(w.spki) == 0 {
			w.spki, err = s.recoverPublic(ctx, row, w.object)
		}
		if row.pair() && err == nil {
			err = proveImport(k, w.spki)
		}
		if err == nil {
			id, err = s.identify(ctx, k.ID, k.Spec, row, w.object, w.spki)
		}
		if errors.Is(err, errNotOurs) {
			err = errUnwrapping(k, err)
		}
		return id, err
	}
	w.settle = func(ctx context.Context, id material.ID, spki []byte) error {
		handed.spent = true
		repeated := false
		_, err := s.change(ctx, k.ID, func(k *Key) error {
			if err := s.still(c, k); err != nil {
				return err
			}
			var err error
			repeated, err = s.takeImport(ctx, k, in, Material{
				ID: id, Object: w.object, SPKI: spki, Created: s.clock().UTC(), Reserved: countStep,
				Import: MaterialImported, Expires: in.ValidTo.UTC(), Expiration: in.ExpirationModel, Description: in.KeyMaterialDescription,
				watch: &watch{},
			})
			return err
		}, func(tx *seal.Tx) error {
			if err := tx.Put(kindWrapping, handed.object.String(), handed.encode()); err != nil || repeated {
				return err // the second object of a held material is destroyed by its intent
			}
			return tx.Delete(kindIntent, w.object.String())
		})
		if err == nil && repeated {
			return errRepeated
		}
		return err
	}
	return w
}

// takeImport gives imported material to a key, or only its new expiry if the key holds the
// material already.
func (s *Service) takeImport(ctx context.Context, k *Key, in ImportKeyMaterialInput, m Material) (repeated bool, err error) {
	if in.ValidTo.IsZero() {
		m.Expires = time.Time{}
	}
	if err := s.fits(k, in, m.ID); err != nil {
		return false, err
	}
	if old := k.Material(m.ID); old != nil {
		if m.Description == "" {
			m.Description = old.Description
		}
		if !old.Lost {
			old.Import, old.Expires, old.Expiration, old.Description = m.Import, m.Expires, m.Expiration, m.Description
			k.followImports(s.clock())
			return true, nil
		}
	}
	m.watch.proven.Store(true) // identify has just computed it
	k.hold(m)
	switch {
	case k.Set != nil:
		if err := s.listImport(ctx, k, m, in.ImportType); err != nil {
			return false, err
		}
	case k.Current.IsZero():
		k.makeCurrent(m.ID)
	}
	k.followImports(s.clock())
	return false, nil
}

// fits decides, by the material's ID, whether the key may have it.
func (s *Service) fits(k *Key, in ImportKeyMaterialInput, id material.ID) error {
	expected := k.expected()
	if in.ImportType == ExistingKeyMaterial {
		if in.KeyMaterialID != "" && in.KeyMaterialID != id.String() || !slices.Contains(expected, id) {
			return refuse(ErrIncorrectKeyMaterial, "The key material is not the one that was imported into %s before; import exactly the same bytes.", k.arn)
		}
		return nil
	}
	if p := k.pendingImport(); p != nil {
		return refuse(ErrInvalidState, "New key material (id: %s) cannot be imported into KMS key %s, because another key material (id: %s) is pending rotation.", id, k.arn, p.ID)
	}
	for _, x := range expected {
		if x.Prefix() == id.Prefix() {
			return refuse(ErrIncorrectKeyMaterial, "%s has this key material already; import it with ImportType %s.", k.arn, ExistingKeyMaterial)
		}
	}
	if len(k.Materials) >= maxMaterials {
		return refuse(ErrLimitExceeded, "%s has %d key materials, which is the limit.", k.arn, maxMaterials)
	}
	return nil
}
