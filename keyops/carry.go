package keyops

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/transport"
)

// wrapAlgorithm names how material travels: AES key wrap with padding, RFC 5649. Codes
// differ between vendors, so the name travels.
const wrapAlgorithm = "AES_KEY_WRAP_PAD"

// UseTransport takes the transport keys of ceremonies that were held meanwhile, and forgets
// those that were retired. The token knows their objects already.
func (s *Service) UseTransport(set transport.Set) { s.transport.Store(&set) }

// UnwrapEpochs returns the epochs of the transport keys from a Region whose other ends are
// here, for the materials of one key, newest first: under these it may send them.
func (s *Service) UnwrapEpochs(id arn.KeyID, from region.Descriptor) []uint64 {
	k, err := s.SharedKey(id)
	if err != nil || s.severedFrom(from.Region, from.Instance) {
		return nil
	}
	return s.transport.Load().Epochs(transport.EndOf(from), transport.EndOf(s.self), k.use().class())
}

// WrapMaterial wraps one material for another Region, inside the token, under the newest
// transport key towards it: of these epochs, if any are given, and else of all that are
// here, of which the destination need not have each. The blob is made to be sent, and is
// audited before it leaves.
func (s *Service) WrapMaterial(ctx context.Context, id arn.KeyID, m material.ID, to region.Descriptor, epochs ...uint64) (mrk.Blob, error) {
	blob, err := s.wrap(ctx, id, m, to, epochs)
	cause := Cause{Event: "SynchronizeMultiRegionKey", Peer: to.Region}
	if err := s.auditEvent(ctx, cause, "", id, map[string]string{"wrappedMaterialId": m.String()}, err); err != nil {
		return mrk.Blob{}, err
	}
	return blob, nil
}

func (s *Service) wrap(ctx context.Context, id arn.KeyID, mid material.ID, to region.Descriptor, epochs []uint64) (mrk.Blob, error) {
	k, err := s.SharedKey(id)
	if err != nil {
		return mrk.Blob{}, err
	}
	m := k.Material(mid)
	if m == nil || m.Lost {
		return mrk.Blob{}, fmt.Errorf("material %s: %w", mid, ErrNotHeld)
	}
	// Whoever asks: material goes to members only, and what is not the material that it is
	// called never leaves under its name.
	entry := k.Set.Entry(to.Region)
	if !entry.Status.In() && k.Set.Primary() != to.Region {
		return mrk.Blob{}, fmt.Errorf("wrapping material %s for %s: %w", mid, to.Region, mrk.ErrNotMember)
	}
	if err := s.maySend(k.Account, to.Region); err != nil {
		return mrk.Blob{}, err
	}
	if err := s.prove(ctx, k, m); err != nil {
		return mrk.Blob{}, err
	}
	class := k.use().class()
	key, ok := s.wrapsFor(to, class, epochs)
	if !ok || key.Role != hsm.RoleTransportSource {
		return mrk.Blob{}, fmt.Errorf("wrapping %s material for %s: %w", class, to.Region, ErrNoTransportKey)
	}
	wrapped, err := s.token.Wrap(ctx, key.ID, m.Object)
	if err != nil && s.transportGone(ctx, key, err) {
		return mrk.Blob{}, fmt.Errorf("wrapping %s material with %s, which is not in the token: %w", class, key.Name, ErrNoTransportKey)
	}
	if err != nil {
		return mrk.Blob{}, s.tokenFailed(m, fmt.Errorf("wrapping material %s: %w", mid, fromToken(err)))
	}
	blob := mrk.Blob{
		Key: id, Material: mid, Source: s.self.Region, Instance: s.self.Instance,
		Destination: to.Region, ToInstance: to.Instance, Incarnation: entry.Incarnation,
		Class: string(class), Epoch: key.Name.Epoch, Algorithm: wrapAlgorithm, Wrapped: wrapped,
	}
	if class.Secret() {
		blob.Length = uint64(k.use().token.SecretBytes())
	}
	return blob, nil
}

// wrapsFor returns the newest transport key towards a Region, of these epochs if any are
// given.
func (s *Service) wrapsFor(to region.Descriptor, class hsm.Class, epochs []uint64) (transport.Key, bool) {
	name := transport.Name{Source: transport.EndOf(s.self), Destination: transport.EndOf(to)}
	if s.severedFrom(to.Region, to.Instance) {
		return transport.Key{}, false
	}
	if len(epochs) == 0 {
		return s.transport.Load().Newest(name.Source, name.Destination, class)
	}
	for _, name.Epoch = range slices.Backward(slices.Sorted(slices.Values(epochs))) {
		if key, ok := s.transport.Load().At(name, class); ok {
			return key, true
		}
	}
	return transport.Key{}, false
}

// transportGone reports whether a call has failed because a transport key that a transcript names
// is not in the token: one was destroyed there, or an older token was put back.
func (s *Service) transportGone(ctx context.Context, key transport.Key, failed error) bool {
	if !errors.Is(failed, hsm.ErrNotFound) {
		return false
	}
	_, err := s.token.Present(ctx, key.ID)
	return errors.Is(err, hsm.ErrNotFound)
}

// InstallMaterial takes a material that a peer wrapped (rule 4): intent, C_UnwrapKey, the
// material ID recomputed in this token, and the row that holds it, in the write order. What
// is held already is not unwrapped again. An object that is not the promised material is
// destroyed, and the error is ErrMaterialMismatch.
func (s *Service) InstallMaterial(ctx context.Context, id arn.KeyID, blob mrk.Blob) error {
	e := s.view.entry(id)
	if e == nil {
		return fmt.Errorf("multi-Region key %s: %w", id, ErrNotFound)
	}
	// One at a time for each key, or a blob that arrives twice would be unwrapped twice.
	e.install.Lock()
	defer e.install.Unlock()
	k, err := s.SharedKey(id)
	if err != nil {
		return err
	}
	if m := k.Material(blob.Material); m != nil && !m.Lost {
		return nil
	}
	cause := Cause{Event: "SynchronizeMultiRegionKey", Peer: blob.Source}
	details := map[string]string{"installedMaterialId": blob.Material.String()}
	err = s.install(ctx, k, blob, func() error { return s.auditBegun(ctx, cause, "", id, details) })
	return s.auditEvent(ctx, cause, "", id, details, err)
}

// install calls begin once the blob was let in, before the token is asked.
func (s *Service) install(ctx context.Context, k *Key, blob mrk.Blob, begin func() error) error {
	listed, err := k.Set.Accepts(blob)
	if err != nil {
		return fmt.Errorf("installing a material of key %s: %w", k.ID, err)
	}
	if err := s.underMaterialQuota(k); err != nil {
		return err
	}
	if other := k.byPrefix(blob.Material.Prefix()); other != nil && other.ID != blob.Material {
		return fmt.Errorf("installing material %s: %w: another one begins like it", blob.Material, mrk.ErrMaterial)
	}
	row := k.use()
	key, err := s.unwrapsWith(blob, row.class())
	if err != nil {
		return err
	}
	w := &write{
		intent: intent{by: byInstall, key: k.ID, object: hsm.NewID(), want: blob.Material, spki: listed.SPKI},
		spec:   k.Spec,
		use:    row,
	}
	spec := hsm.Spec{Role: k.role(), Algorithm: row.token, Usage: row.tokenUsage, Name: label(k.ID, blob.Material)}
	w.make = func(ctx context.Context) ([]byte, error) {
		err := s.token.Unwrap(ctx, key.ID, spec, w.object, blob.Wrapped)
		if err != nil && s.transportGone(ctx, key, err) {
			return nil, fmt.Errorf("unwrapping %s material with %s, which is not in the token: %w", row.class(), key.Name, ErrNoTransportKey)
		}
		if err != nil {
			return nil, fmt.Errorf("unwrapping material %s: %w", blob.Material, fromToken(err))
		}
		return nil, nil
	}
	w.settle = func(ctx context.Context, id material.ID, spki []byte) error {
		return s.holdInstalled(ctx, w.intent)
	}
	if err := begin(); err != nil {
		return err
	}
	return s.perform(ctx, w)
}

// unwrapsWith finds the transport key whose other end wrapped the blob.
func (s *Service) unwrapsWith(blob mrk.Blob, class hsm.Class) (transport.Key, error) {
	name := transport.Name{
		Source:      transport.End{Region: blob.Source, Instance: blob.Instance},
		Destination: transport.EndOf(s.self),
		Epoch:       blob.Epoch,
	}
	key, ok := s.transport.Load().At(name, class)
	switch {
	case blob.Class != string(class) || blob.Algorithm != wrapAlgorithm:
		return key, fmt.Errorf("unwrapping a blob of class %q and algorithm %q: %w", clip(blob.Class), clip(blob.Algorithm), ErrMaterialMismatch)
	case !ok || key.Role != hsm.RoleTransportDestination || s.severedFrom(blob.Source, blob.Instance):
		return key, fmt.Errorf("unwrapping %s material with %s: %w", class, name, ErrNoTransportKey)
	}
	return key, nil
}

// holdInstalled makes the outcome of an install durable: the key holds the material, and
// the intent is gone.
func (s *Service) holdInstalled(ctx context.Context, i intent) error {
	_, err := s.change(ctx, i.key, func(k *Key) error {
		if k.State == keystate.PendingDeletion && k.Set.Told() {
			return fmt.Errorf("key %s: %w: it is deleted here", k.ID, mrk.ErrForeign)
		}
		m := Material{ID: i.want, Object: i.object, SPKI: i.spki, Created: s.clock().UTC(), Reserved: countStep, watch: &watch{}}
		m.watch.proven.Store(true) // its ID was recomputed just before
		k.hold(m)
		return nil
	}, func(tx *seal.Tx) error {
		return tx.Delete(kindIntent, i.object.String())
	})
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("key %s has gone: %w", i.key, err)
	}
	return err
}
