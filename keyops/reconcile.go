package keyops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/guard"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/store"
)

// Reconciliation is what the start found and did. Each entry names an object by its CKA_ID,
// and the key that it belongs to.
type Reconciliation struct {
	Finished  []string // intents whose object was there and right: the key holds it now
	Undone    []string // intents whose object was destroyed, or had never been made
	TakenBack []string // objects without a row whose label and material agree: held and used
	Destroyed []string // objects of deleted keys
	Lost      []string // materials whose object is gone
	Returned  []string // lost materials whose object is there again
	Orphans   []string // objects that nothing is known of; they are left alone
	Restored  bool     // the store comes from a backup
}

// Reconciliation returns what the start found and did.
func (s *Service) Reconciliation() Reconciliation { return s.found }

// reconcile makes store and token agree. Objects are destroyed only if a tombstone names
// them, or an intent that never came to its outcome; whatever else is unclear is reported
// and left as it is.
func (s *Service) reconcile(ctx context.Context) error {
	st, err := s.load(ctx)
	if err != nil {
		return err
	}
	s.view.publish(st.keys...)
	s.marks.set(st.marks)
	for _, i := range st.intents {
		if err := s.resolveIntent(ctx, i); err != nil {
			return fmt.Errorf("intent of object %s: %w", i.object, err)
		}
	}
	for _, w := range st.wrappings {
		s.wrappings.put(w)
	}
	objects := map[hsm.ID]hsm.Object{}
	for _, o := range s.token.Objects() {
		objects[o.ID] = o
	}
	for _, k := range s.view.all() {
		if err := s.compare(ctx, k, objects); err != nil {
			return fmt.Errorf("key %s: %w", k.ID, err)
		}
	}
	if err := s.destroyAgain(ctx, objects); err != nil {
		return err
	}
	if err := s.orphans(ctx, objects, st.tombstones); err != nil {
		return err
	}
	if err := s.afterRestore(ctx); err != nil {
		return err
	}
	s.reconcileImports(ctx, objects)
	s.log.WithFields(logrus.Fields{
		"keys": len(st.keys), "finished": len(s.found.Finished), "undone": len(s.found.Undone), "takenBack": len(s.found.TakenBack),
		"destroyed": len(s.found.Destroyed), "lost": len(s.found.Lost), "returned": len(s.found.Returned), "orphans": len(s.found.Orphans),
	}).Info("store and token reconciled")
	return nil
}

// resolveIntent finishes or undoes one write that a crash interrupted. A key that was being
// made is undone: nobody has ever been told of it. A material that was being installed is
// kept if it is the promised one, so that the peer need not send it again.
func (s *Service) resolveIntent(ctx context.Context, i intent) error {
	w := &write{intent: i}
	if s.listed(i.object) {
		// The transaction that lists an object removes its intent, so this cannot be; but an
		// object in use is never destroyed.
		return s.undoIntent(ctx, w)
	}
	k := s.view.key(i.key)
	if i.by == byInstall && k != nil {
		switch ok, err := s.isPromised(ctx, k, i); {
		case err != nil:
			return err
		case ok:
			if err := s.holdInstalled(ctx, i); err != nil {
				return err
			}
			s.found.Finished = append(s.found.Finished, fmt.Sprintf("%s of %s", i.object, i.key))
			return nil
		}
	}
	if s.view.unreadable(i.key) != nil {
		return nil // what the key would say cannot be read: nothing is decided for it
	}
	for _, step := range undoOrder {
		if err := step.do(s, ctx, w); err != nil {
			return err
		}
		s.step(i.by, step.name)
	}
	s.found.Undone = append(s.found.Undone, fmt.Sprintf("%s of %s", i.object, i.key))
	return nil
}

// isPromised tells whether the object of an interrupted install is there and is the
// material that was promised.
func (s *Service) isPromised(ctx context.Context, k *Key, i intent) (bool, error) {
	o, err := s.token.Lookup(ctx, i.object)
	if errors.Is(err, hsm.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if m := k.Material(i.want); m != nil && !m.Lost || k.expects(o, false) != nil {
		return false, nil
	}
	id, err := s.identify(ctx, k.ID, k.Spec, k.use(), i.object, i.spki)
	if errors.Is(err, errNotOurs) {
		return false, nil
	}
	return id == i.want, err
}

// listed reports whether any key lists the object as a material's.
func (s *Service) listed(object hsm.ID) bool {
	for _, k := range s.view.all() {
		if slices.ContainsFunc(k.Materials, func(m Material) bool { return m.Object == object }) {
			return true
		}
	}
	return false
}

// compare looks for materials of one key that have left the token, or come back to it.
func (s *Service) compare(ctx context.Context, k *Key, objects map[hsm.ID]hsm.Object) error {
	gone, back := []material.ID{}, []material.ID{}
	for _, m := range k.Materials {
		_, there := objects[m.Object]
		switch {
		case m.Import == MaterialPending:
			if there { // the process ended before what its owner deleted was destroyed
				s.wrappings.doom(m.Object, false)
			}
		case !there && !m.Lost:
			gone = append(gone, m.ID)
			s.found.Lost = append(s.found.Lost, fmt.Sprintf("%s of %s", m.Object, k.ID))
			s.log.WithField("key", k.ID).WithField("material", m.ID).Error("ALARM: a key's material is not in the token any more")
		case there && m.Lost && s.proveNow(ctx, k, &m) == nil:
			back = append(back, m.ID)
			s.found.Returned = append(s.found.Returned, fmt.Sprintf("%s of %s", m.Object, k.ID))
		}
	}
	if len(gone)+len(back) == 0 {
		return nil
	}
	_, err := s.change(ctx, k.ID, func(k *Key) error {
		for i := range k.Materials {
			m := &k.Materials[i]
			m.Lost = m.Lost && !slices.Contains(back, m.ID) || slices.Contains(gone, m.ID)
		}
		k.doubt(guard19Lost)
		return nil
	}, nil)
	return err
}

// doubt makes this Region stop acting as the primary Region of the key until it has heard
// from the others: its store or its token is not what it was (rule 19).
func (k *Key) doubt(why guard.Name) {
	if why.Stops(k.Set != nil) {
		k.Set.DropPermit()
	}
}

// orphans deals with objects that no row names.
func (s *Service) orphans(ctx context.Context, objects map[hsm.ID]hsm.Object, tombstones map[arn.KeyID]tombstone) error {
	known, dead := map[hsm.ID]bool{}, map[hsm.ID]arn.KeyID{}
	destroyed := map[arn.KeyID][]hsm.ID{}
	for _, k := range s.view.all() {
		for _, m := range k.Materials {
			known[m.Object] = true
		}
	}
	for key, t := range tombstones {
		for _, id := range t.objects {
			dead[id] = key
		}
	}
	for _, o := range s.token.Objects() { // in a fixed order, and without what intents destroyed
		if _, seen := objects[o.ID]; !seen || !o.Spec.Material() || known[o.ID] {
			continue
		}
		if id, _, err := parseLabel(o.Spec.Name); err == nil && s.view.unreadable(id) != nil {
			continue // its row is there, but cannot be believed
		}
		name := fmt.Sprintf("%s of %s", o.ID, o.Spec.Name)
		if key, ok := dead[o.ID]; ok {
			if err := s.token.Destroy(ctx, o.ID); err != nil {
				return fmt.Errorf("destroying object %s of a deleted key: %w", o.ID, err)
			}
			s.found.Destroyed = append(s.found.Destroyed, name)
			destroyed[key] = append(destroyed[key], o.ID)
			continue
		}
		switch err := s.takeBack(ctx, o); {
		case err == nil:
			s.found.TakenBack = append(s.found.TakenBack, name)
		case errors.Is(err, errOrphan) || errors.Is(err, errNotOurs):
			s.found.Orphans = append(s.found.Orphans, name)
			s.log.WithError(err).WithField("object", o.ID).WithField("label", o.Spec.Name).Warn("token object that no key lists is left alone")
		default:
			return fmt.Errorf("taking back object %s: %w", o.ID, err)
		}
	}
	for key, objects := range destroyed {
		if err := s.buried(ctx, key, tombstones[key], objects); err != nil {
			return err
		}
	}
	return nil
}

// errOrphan means that an object cannot be given back to a key.
var errOrphan = errors.New("object without a row")

// takeBack gives an object back to the key that its label names, as held and used, if what
// the label says is consistent: its material ID is the recomputed one, or it says that the
// object was made here and the token confirms that. A store that was restored from a backup
// has forgotten materials that encrypted. An object that a thief put there can make nothing
// readable but what the thief encrypted, and never becomes current.
func (s *Service) takeBack(ctx context.Context, o hsm.Object) error {
	keyID, promised, err := parseLabel(o.Spec.Name)
	if err != nil {
		return fmt.Errorf("%w: %w", errOrphan, err)
	}
	k := s.view.key(keyID)
	if k == nil {
		return fmt.Errorf("%w: key %s is not known here", errOrphan, keyID)
	}
	local := promised.IsZero()
	if err := k.expects(o, local); err != nil {
		return fmt.Errorf("%w: %w", errOrphan, err)
	}
	id, spki, err := s.recognise(ctx, k, o, promised)
	if err != nil {
		return err
	}
	if m := k.byPrefix(id.Prefix()); m != nil && (m.ID != id || !m.Lost) {
		return fmt.Errorf("%w: key %s has material %s already", errOrphan, keyID, m.ID)
	}
	_, err = s.change(ctx, keyID, func(k *Key) error {
		m := Material{ID: id, Object: o.ID, SPKI: spki, Created: s.clock().UTC(), Local: local, watch: &watch{}}
		k.hold(m)
		if !slices.Contains(k.Used, id) {
			k.Used = append(k.Used, id)
		}
		k.doubt(guard19Unknown)
		return nil
	}, nil)
	return err
}

// recognise recomputes the material ID of an orphan. A key pair's public half is in no
// attribute that can be believed, so it has to be one that a state lists.
func (s *Service) recognise(ctx context.Context, k *Key, o hsm.Object, promised material.ID) (material.ID, []byte, error) {
	candidates := []mrk.Listed{{}}
	if k.use().pair() {
		candidates = nil
		if k.Set != nil {
			candidates = slices.Clone(k.Set.Listed())
		}
	}
	for _, l := range candidates {
		id, err := s.identify(ctx, k.ID, k.Spec, k.use(), o.ID, l.SPKI)
		switch {
		case errors.Is(err, errNotOurs):
			continue
		case err != nil:
			return material.ID{}, nil, err
		case promised.IsZero() || id == promised:
			return id, l.SPKI, nil
		}
	}
	return material.ID{}, nil, fmt.Errorf("%w: its material is not what its label says", errOrphan)
}

// afterRestore lets nothing be managed from a store that went back in time (rule 19): one
// that the backup tool has stamped as a copy, or one that the audit log has seen further
// on. The stamp has done its work once the permits are gone.
func (s *Service) afterRestore(ctx context.Context) error {
	var meta store.Meta
	err := s.store.View(ctx, func(tx store.Tx) (err error) {
		meta, err = store.ReadMeta(tx)
		return err
	})
	if err != nil {
		return err
	}
	stamped := !meta.Restored.IsZero()
	if !stamped && !s.found.Restored {
		return nil
	}
	s.found.Restored = true
	s.log.WithField("backup", meta.Restored).Warn("the store has gone back in time: no shared key is managed from here before the other Regions were heard")
	for _, k := range s.view.all() {
		if k.Set == nil {
			continue
		}
		if _, err := s.change(ctx, k.ID, func(k *Key) error { k.doubt(guard19Restored); return nil }, nil); err != nil {
			return err
		}
	}
	if !stamped {
		return nil
	}
	meta.Restored = time.Time{}
	return s.store.Update(ctx, func(tx store.Tx) error { return store.WriteMeta(tx, meta) })
}
