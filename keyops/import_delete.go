package keyops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/seal"
)

// DeleteImportedKeyMaterial takes imported material out of the token. The key keeps the
// material's ID, and can be given the same material again, but no other.
func (s *Service) DeleteImportedKeyMaterial(ctx context.Context, caller Caller, in DeleteImportedKeyMaterialInput) (DeleteImportedKeyMaterialOutput, error) {
	t := target{ref: in.KeyID}
	var named material.ID
	if in.KeyMaterialID != "" {
		var err error
		if named, err = material.Parse(in.KeyMaterialID); err != nil {
			t.invalid = invalid("keyMaterialId", "satisfy regular expression pattern: ^[a-f0-9]{64}$")
		}
	}
	return do(ctx, s, caller, "DeleteImportedKeyMaterial", t, func(ctx context.Context, c *call) (DeleteImportedKeyMaterialOutput, error) {
		id, err := s.deleteImported(ctx, c, named, in.KeyMaterialID == "")
		if err != nil {
			return DeleteImportedKeyMaterialOutput{}, err
		}
		out := DeleteImportedKeyMaterialOutput{KeyID: c.key.arn}
		if !id.IsZero() {
			out.KeyMaterialID = id.String()
			c.record.detail("keyMaterialId", id.String())
		}
		return out, nil
	})
}

func (s *Service) deleteImported(ctx context.Context, c *call, id material.ID, current bool) (material.ID, error) {
	entry := s.view.entry(c.key.ID)
	if entry == nil {
		return id, refuse(ErrNotFound, "Key '%s' does not exist", c.key.arn)
	}
	entry.install.Lock() // no import of the same material at the same time
	defer entry.install.Unlock()
	var object hsm.ID
	forgotten := false
	_, err := s.change(ctx, c.key.ID, func(k *Key) error {
		if err := s.still(c, k); err != nil {
			return err
		}
		if current {
			if id = k.Current; id.IsZero() {
				return ErrUnchanged // nothing was ever imported: AWS has no error for it
			}
		}
		m := k.Material(id)
		if m == nil {
			return refuse(ErrNotFound, "%s has no key material with ID %s in Region %s.", k.arn, id, s.self.Region)
		}
		object = m.Object
		if m.Import == MaterialPending {
			return ErrUnchanged
		}
		err := s.dropImported(ctx, k, id)
		forgotten = k.Material(id) == nil
		return err
	}, func(tx *seal.Tx) error {
		if !forgotten {
			return nil // the row says what becomes of the object
		}
		return s.intendDestruction(tx, c.key.ID, object)
	})
	if err != nil || object == (hsm.ID{}) {
		return id, err
	}
	s.wrappings.doom(object, forgotten)
	return id, s.destroyDoomed(ctx, object)
}

// dropImported makes the key forget that it holds a material. One that waited to become
// current never encrypted anything, and is forgotten altogether.
func (s *Service) dropImported(ctx context.Context, k *Key, id material.ID) error {
	pending := k.pendingImport()
	waits := pending != nil && pending.ID == id
	if k.Set != nil && waits && k.Set.Primary() == s.self.Region {
		if err := s.unlistImport(ctx, k); err != nil {
			return err
		}
	}
	m := k.Material(id)
	switch {
	case m == nil:
	case waits || k.unlisted(*m):
		k.Materials = slices.DeleteFunc(k.Materials, func(m Material) bool { return m.ID == id })
	default:
		m.Import, m.Lost, m.Expires, m.Expiration = MaterialPending, true, time.Time{}, ""
		m.watch = &watch{}
		m.watch.count.Store(m.Reserved)
	}
	k.followImports(s.clock())
	return nil
}

// destroyDoomed destroys an object of deleted or expired material. What fails now is done
// by the worker, or at the next start.
func (s *Service) destroyDoomed(ctx context.Context, id hsm.ID) error {
	if err := s.token.Destroy(ctx, id); err != nil {
		return fmt.Errorf("destroying object %s of imported material: %w", id, err)
	}
	if s.wrappings.intended(id) {
		if err := s.undoIntent(ctx, &write{intent: intent{object: id}}); err != nil {
			return err
		}
	}
	s.wrappings.gone(id)
	return nil
}

// intendDestruction names an object that no row names any more, so that the next start
// destroys it if this process does not.
func (s *Service) intendDestruction(tx *seal.Tx, key arn.KeyID, object hsm.ID) error {
	return tx.Put(kindIntent, object.String(), intent{by: byImport, key: key, object: object, begun: s.clock()}.encode())
}

// tidyImports does what time or a failure has left to do: wrapping keys that serve nothing
// any more go, and objects that could not be destroyed when their material was deleted.
func (s *Service) tidyImports(ctx context.Context) error {
	errs := []error{s.tidyWrappings(ctx)}
	for _, id := range s.wrappings.dooms() {
		errs = append(errs, s.destroyDoomed(ctx, id))
	}
	return errors.Join(errs...)
}

// Audit events of imported material that leaves the token without a call: because it has
// expired, or because the primary key's Region gave it up while it was pending.
const (
	EventDeleteExpired  = "DeleteExpiredKeyMaterial"
	EventDeleteUnlisted = "DeleteUnlistedKeyMaterial"
)

// expiryDue returns when the first of the key's materials is to leave the token, or the zero
// time: a day after it expired.
func (k *Key) expiryDue() (due time.Time) {
	for _, m := range k.Materials {
		if m.Import == MaterialImported && !m.Expires.IsZero() {
			if d := m.Expires.Add(expiryGrace); due.IsZero() || d.Before(due) {
				due = d
			}
		}
	}
	return due
}

// unlistedDue returns when an import that was given up before it was ever used came here,
// or the zero time: it is to leave the token at once.
func (k *Key) unlistedDue() time.Time {
	for _, m := range k.Materials {
		if k.unlisted(m) {
			return m.Created
		}
	}
	return time.Time{}
}

// expireDue takes out of the token what expired a day ago.
func (s *Service) expireDue(ctx context.Context, id arn.KeyID) error {
	return s.dropDue(ctx, id, EventDeleteExpired, func(_ *Key, m Material) bool {
		return m.Import == MaterialImported && m.expired(s.clock().Add(-expiryGrace))
	})
}

// dropUnlisted takes out of the token what the primary key's Region has given up.
func (s *Service) dropUnlisted(ctx context.Context, id arn.KeyID) error {
	return s.dropDue(ctx, id, EventDeleteUnlisted, (*Key).unlisted)
}

func (s *Service) dropDue(ctx context.Context, id arn.KeyID, event string, due func(*Key, Material) bool) error {
	entry := s.view.entry(id)
	if entry == nil {
		return nil
	}
	entry.install.Lock()
	defer entry.install.Unlock()
	gone := map[material.ID]hsm.ID{}
	var forgotten []hsm.ID
	k, err := s.change(ctx, id, func(k *Key) error {
		for _, m := range slices.Clone(k.Materials) {
			if !due(k, m) {
				continue
			}
			gone[m.ID] = m.Object
			if err := s.dropImported(ctx, k, m.ID); err != nil {
				return err
			}
			if k.Material(m.ID) == nil {
				forgotten = append(forgotten, m.Object)
			}
		}
		if len(gone) == 0 {
			return ErrUnchanged
		}
		return nil
	}, func(tx *seal.Tx) error {
		for _, object := range forgotten {
			if err := s.intendDestruction(tx, id, object); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("dropping imported material of key %s: %w", id, err)
	}
	var errs []error
	for m, object := range gone {
		s.wrappings.doom(object, slices.Contains(forgotten, object))
		err := s.destroyDoomed(ctx, object)
		errs = append(errs, s.auditEvent(ctx, Cause{Event: event}, k.Account, id, map[string]string{"keyMaterialId": m.String()}, err))
	}
	return errors.Join(errs...)
}

// tidyWrappings destroys wrapping keys that are spent or expired, then forgets them.
func (s *Service) tidyWrappings(ctx context.Context) error {
	var errs []error
	for _, w := range s.wrappings.over(s.clock()) {
		if err := s.token.Destroy(ctx, w.object); err != nil {
			errs = append(errs, fmt.Errorf("destroying import wrapping key %s: %w", w.object, err))
			continue
		}
		err := s.update(ctx, func(tx *seal.Tx) error { return tx.Delete(kindWrapping, w.object.String()) })
		if err != nil {
			errs = append(errs, fmt.Errorf("forgetting import wrapping key %s: %w", w.object, err))
			continue
		}
		s.wrappings.drop(w.object)
	}
	return errors.Join(errs...)
}
