package keyops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
)

const (
	// maxOnDemand is how often a key can be rotated on demand in its life, as in AWS.
	maxOnDemand = 25
	// rotationNear is how close an automatic rotation has to be for one on demand to be refused.
	rotationNear = 20 * time.Minute
)

// EventRotateKey is the audit event of a rotation that came due.
const EventRotateKey = "RotateKey"

// RotateKeyOnDemand gives a key new material now. What older material encrypted it still
// decrypts. A multi-Region key encrypts with the new material once every member holds it.
func (s *Service) RotateKeyOnDemand(ctx context.Context, caller Caller, in RotateKeyOnDemandInput) (RotateKeyOnDemandOutput, error) {
	t := target{ref: in.KeyID}
	if in.AcceptAlone {
		t.details = map[string]string{"acceptAlone": "true"}
	}
	return do(ctx, s, caller, "RotateKeyOnDemand", t, func(ctx context.Context, c *call) (RotateKeyOnDemandOutput, error) {
		still := func(k *Key) error {
			if err := s.still(c, k); err != nil {
				return err
			}
			return s.mayRotate(k)
		}
		out := RotateKeyOnDemandOutput{KeyID: c.key.arn}
		if c.key.Origin == OriginExternal {
			return out, s.rotateImported(ctx, c, still)
		}
		if in.AcceptAlone && c.key.Set != nil && !c.key.Set.Pending().IsZero() {
			return out, s.acceptAlone(ctx, c)
		}
		id, err := s.rotate(ctx, c.key.ID, RotationOnDemand, in.AcceptAlone, still)
		if err == nil {
			c.record.detail("keyMaterialId", id.String())
		}
		return out, err
	})
}

// rotatable refuses a key that has one material for life, or is managed elsewhere.
func (s *Service) rotatable(k *Key) error {
	if k.Spec != SymmetricDefault {
		return refuse(ErrUnsupportedOperation, "%s has key spec %s, and only symmetric encryption keys are rotated. Create a new key, and point its alias there.", k.arn, k.Spec)
	}
	return nil
}

// manages refuses the change of a shared property at a replica key.
func (s *Service) manages(k *Key) error {
	if k.Set != nil && k.Set.Primary() != s.self.Region {
		return refuse(ErrUnsupportedOperation, "%s is not a multi-region primary key. The primary key is in Region %s: call there.", k.arn, k.Set.Primary())
	}
	return nil
}

// mayRotate refuses a rotation on demand that the key has no right to now.
func (s *Service) mayRotate(k *Key) error {
	if err := s.rotatable(k); err != nil {
		return err
	}
	if err := s.manages(k); err != nil {
		return err
	}
	r := k.rotation()
	if r.OnDemand >= maxOnDemand {
		return refuse(ErrLimitExceeded, "The on-demand rotations limit has been reached for the given keyId. No more on-demand rotations can be performed for this key: %s", k.arn)
	}
	if due := k.nextRotation(); !due.IsZero() && due.Sub(s.now()) < rotationNear {
		return refuse(ErrConflict, "%s is rotated automatically within %d minutes; rotate it on demand afterwards, if you still want to.", k.arn, rotationNear/time.Minute)
	}
	return nil
}

// nextRotation returns when the key is to be rotated automatically, or the zero time. A key
// that is not enabled is rotated when it is enabled again, at once if its time has passed.
func (k *Key) nextRotation() time.Time {
	if k.State != keystate.Enabled || k.Set != nil && (!k.Set.Acting() || !k.Set.Pending().IsZero()) {
		return time.Time{}
	}
	return k.rotation().Next
}

// rotateDue rotates a key whose time has come.
func (s *Service) rotateDue(ctx context.Context, id arn.KeyID) error {
	k := s.view.key(id)
	if k == nil {
		return nil
	}
	still := func(k *Key) error {
		if due := k.nextRotation(); due.IsZero() || s.now().Before(due) {
			return ErrUnchanged
		}
		return s.rotatable(k)
	}
	cause, details := Cause{Event: EventRotateKey}, map[string]string{"rotationType": string(RotationAutomatic)}
	made, err := s.rotate(ctx, id, RotationAutomatic, false, still)
	if errors.Is(err, ErrUnchanged) {
		return nil
	}
	if err == nil {
		details["keyMaterialId"] = made.String()
	}
	return s.auditEvent(ctx, cause, k.Account, id, details, err)
}

// acceptAlone lets a rotation end that others have left since it began.
func (s *Service) acceptAlone(ctx context.Context, c *call) error {
	_, err := s.change(ctx, c.key.ID, func(k *Key) error {
		if err := s.still(c, k); err != nil {
			return err
		}
		if err := s.acting(k); err != nil {
			return err
		}
		if p, ok := k.Set.Progress(); !ok || !p.Alone {
			return refuse(ErrConflict, "No rotation of %s waits for an acceptance: GetKeyRotationStatus names the Regions that hold the material and those that are awaited.", k.arn)
		}
		c.record.detail("keyMaterialId", k.Set.Pending().String())
		return k.Set.AcceptAlone()
	}, nil)
	if err == nil {
		s.marks.wake()
	}
	return s.unmanaged(c.key, err)
}

// rotate makes new material in the write order. still is asked before anything is done, and
// again in the transaction that takes the material. alone accepts that the material of a
// multi-Region key may become current while it is here only.
func (s *Service) rotate(ctx context.Context, id arn.KeyID, why RotationType, alone bool, still func(*Key) error) (material.ID, error) {
	e := s.view.entry(id)
	if e == nil {
		return material.ID{}, fmt.Errorf("key %s: %w", id, ErrNotFound)
	}
	may := func() (*Key, error) {
		k := e.key.Load()
		if k == nil {
			return nil, fmt.Errorf("key %s: %w", id, ErrNotFound)
		}
		return k, still(k)
	}
	if _, err := may(); err != nil { // a replica key is refused as such while it takes material in
		return material.ID{}, err
	}
	if !e.install.TryLock() {
		return material.ID{}, refuse(ErrConflict, "A rotation of key %s, or an import, is under way; repeat the call once it is done.", id)
	}
	defer e.install.Unlock()
	k, err := may()
	if err != nil {
		return material.ID{}, err
	}
	if k.Set != nil && !k.Set.Pending().IsZero() {
		return material.ID{}, rotating(k)
	}
	if len(k.Materials) >= maxMaterials {
		return material.ID{}, refuse(ErrLimitExceeded, "%s has %d key materials, which is the limit. Create a new key, and point its alias there.", k.arn, maxMaterials)
	}
	row := k.use()
	w := &write{intent: intent{by: byRotate, key: id, object: hsm.NewID()}, spec: k.Spec, use: row}
	spec := hsm.Spec{Role: k.role(), Algorithm: row.token, Usage: row.tokenUsage, Name: label(id, material.ID{})}
	w.make = func(ctx context.Context) ([]byte, error) {
		spki, err := s.token.Generate(ctx, spec, w.object)
		if err != nil {
			return nil, fmt.Errorf("generating material: %w", err)
		}
		return spki, nil
	}
	w.settle = func(ctx context.Context, made material.ID, spki []byte) error {
		_, err := s.change(ctx, id, func(k *Key) error {
			if err := still(k); err != nil {
				return failed(err)
			}
			m := Material{ID: made, Object: w.object, SPKI: spki, Created: s.now(), Local: true, Reserved: countStep, watch: &watch{}}
			m.watch.proven.Store(true) // identify has just computed it
			k.hold(m)
			return s.turnTo(ctx, k, m, why, alone)
		}, func(tx *seal.Tx) error {
			return tx.Delete(kindIntent, w.object.String())
		})
		return err
	}
	if err := s.perform(ctx, w); err != nil {
		return material.ID{}, err
	}
	if k.Set != nil {
		s.marks.wake() // the other Regions are told, and the rotation goes on when they have answered
	}
	return w.id, nil
}

// failed keeps a change that has become needless from being taken for one that was made:
// the material is in the token already, and has to be undone.
func failed(err error) error {
	if errors.Is(err, ErrUnchanged) {
		return fmt.Errorf("%w: the key is not to be rotated any more", errNeedless)
	}
	return err
}

var errNeedless = &Error{Reason: ErrConflict, Message: "The key was rotated, or its rotation switched off, meanwhile."}

// turnTo makes a new material current: at once for a single-Region key, and when every
// member holds it for a multi-Region key (rules 7 and 8).
func (s *Service) turnTo(ctx context.Context, k *Key, m Material, why RotationType, alone bool) error {
	if k.Set == nil {
		k.makeCurrent(m.ID)
		k.Rotations = append(k.Rotations, RotationEntry{Date: m.Created, Type: why, Material: m.ID})
		if why == RotationOnDemand {
			k.Rotation.OnDemand++
			return nil
		}
		k.Rotation.Last, k.Rotation.Next = m.Created, m.Created.Add(time.Duration(k.Rotation.Days)*day)
		return nil
	}
	reason := mrk.ReasonOnDemand
	if why == RotationAutomatic {
		reason = mrk.ReasonAutomatic
		r := k.Set.State().Rotation
		r.Last = m.Created.Unix()
		if err := k.Set.SetRotation(ctx, s.Signer(), r); err != nil {
			return s.unmanaged(k, err)
		}
	}
	rotate := k.Set.Rotate
	if alone {
		rotate = k.Set.RotateAlone
	}
	if err := rotate(ctx, s.Signer(), mrk.Listed{ID: m.ID, SPKI: m.SPKI, Created: m.Created.Unix(), Reason: reason}); err != nil {
		return s.unmanaged(k, err)
	}
	if s.peers != nil {
		return nil // package replication releases it
	}
	_, _, err := k.Set.Step(ctx, s.Signer(), mrk.Contact{
		Heard: func(region.Name) bool { return false }, Now: func() int64 { return m.Created.Unix() },
	})
	return err
}

// rotating refuses a second rotation beside one that waits for Regions.
func rotating(k *Key) error {
	return refuse(ErrConflict, "A rotation of %s is under way, and waits for Regions that GetKeyRotationStatus names.", k.arn)
}

// unmanaged says why the set of a multi-Region key takes no change now.
func (s *Service) unmanaged(k *Key, err error) error {
	switch {
	case errors.Is(err, mrk.ErrPending):
		return rotating(k)
	case errors.Is(err, mrk.ErrNotPrimary):
		return &Error{Reason: ErrInvalidState, Message: fmt.Sprintf("%s does not act as the primary key until Region %s has heard from the other Regions.", k.arn, s.self.Region), cause: err}
	case errors.Is(err, mrk.ErrNotEnabled):
		return &Error{Reason: ErrInvalidState, Message: fmt.Sprintf("%s is not enabled.", k.arn), cause: err}
	case errors.Is(err, mrk.ErrAlone):
		return &Error{Reason: ErrInvalidState, Message: fmt.Sprintf("No replica key of %s is up to date now, so its new key material would exist in one token only; repeat the call once one is, or accept that (--accept-alone).", k.arn), cause: err}
	case errors.Is(err, mrk.ErrNotHeard):
		return &Error{Reason: ErrInvalidState, Message: fmt.Sprintf("Region %s has not heard from every other Region since its start. Try again when they answer, or suspend the replica keys in Regions that are lost.", s.self.Region), cause: err}
	case errors.Is(err, mrk.ErrOffered):
		return &Error{Reason: ErrInvalidState, Message: fmt.Sprintf("%s is updating.", k.arn), cause: err}
	case errors.Is(err, mrk.ErrFrozen):
		return &Error{Reason: ErrInvalidState, Message: fmt.Sprintf("The management of %s is frozen because of contradictory messages; its operators have to look at it.", k.arn), cause: err}
	case errors.Is(err, mrk.ErrFull):
		return refuse(ErrLimitExceeded, "%s has as many members or key materials as it may.", k.arn)
	}
	return err
}

// rotateImported makes imported material current that was imported to that end. Material of
// a key's owner is made nowhere here.
func (s *Service) rotateImported(ctx context.Context, c *call, still func(*Key) error) error {
	_, err := s.change(ctx, c.key.ID, func(k *Key) error {
		if err := still(k); err != nil {
			return err
		}
		m := k.pendingImport()
		if m == nil {
			return refuse(ErrInvalidState, "No available key material pending rotation for the key: %s.", k.arn)
		}
		if k.Set != nil {
			c.record.detail("keyMaterialId", m.ID.String())
			return s.releaseImport(ctx, k)
		}
		k.makeCurrent(m.ID)
		k.Rotations = append(k.Rotations, RotationEntry{Date: s.now(), Type: RotationOnDemand, Material: m.ID})
		k.Rotation.OnDemand++
		c.record.detail("keyMaterialId", m.ID.String())
		return nil
	}, nil)
	return err
}
