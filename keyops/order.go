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
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/wire"
)

// A write to the token and a write to the store cannot be one transaction, and the outcome
// of either can be unknown. So each material is made in the order of this table, and what a
// crash left half done is finished or undone at the next start (reconcile.go).
var writeOrder = []struct {
	name string // what is durable, or decided, once the step is done
	do   func(*Service, context.Context, *write) error
}{
	{"intent", (*Service).writeIntent},   // the store names the CKA_ID that is about to exist
	{"token", (*Service).writeToken},     // the token holds the object
	{"check", (*Service).checkWritten},   // its material ID is known, and is the promised one
	{"outcome", (*Service).writeOutcome}, // the key lists the material, the intent is gone
}

// undoOrder takes back a write that cannot be finished. Only an object that an open intent
// names is destroyed: nothing was ever encrypted with it.
var undoOrder = []struct {
	name string
	do   func(*Service, context.Context, *write) error
}{
	{"undo-token", (*Service).undoToken},
	{"undo-intent", (*Service).undoIntent},
}

// origin says how a material comes into the token.
type origin string

const (
	byCreate  origin = "create"  // CreateKey: generated here
	byInstall origin = "install" // replication: unwrapped here
	byRotate  origin = "rotate"  // rotation: generated here

	byParameters origin = "parameters" // GetParametersForImport: a wrapping key, which is no material
	byImport     origin = "import"     // ImportKeyMaterial: unwrapped here, and promised by nobody
)

var origins = []origin{byCreate, byInstall, byRotate, byParameters, byImport}

// Steps names every point of the write order at which a crash may happen, as Config.Step
// is told them.
func Steps() []string {
	var names []string
	for _, c := range origins {
		for _, step := range writeOrder {
			names = append(names, string(c)+"."+step.name)
		}
		for _, step := range undoOrder {
			names = append(names, string(c)+"."+step.name)
		}
	}
	return append(names, "change.outcome", "delete.tombstone", "delete.token")
}

// intent is the row that announces a write to the token.
type intent struct {
	by     origin
	key    arn.KeyID
	object hsm.ID
	want   material.ID // the promised ID; zero if the material is made here
	spki   []byte      // of the promised key pair
	begun  time.Time
}

const intentSchema = 1

func (i intent) encode() []byte {
	var w wire.Writer
	w.Uint(intentSchema)
	w.String(string(i.by))
	w.String(string(i.key))
	w.Bytes(i.want[:])
	w.Bytes(i.spki)
	w.Time(i.begun)
	return w.Out()
}

func decodeIntent(id string, body []byte) (intent, error) {
	object, err := hsm.ParseID(id)
	if err != nil {
		return intent{}, err
	}
	r := wire.NewReader(body)
	if v := r.Uint(); v != intentSchema {
		r.Fail("intent of schema %d", v)
	}
	i := intent{object: object, by: origin(r.String(32)), key: arn.KeyID(r.String(64))}
	r.Fixed(i.want[:])
	i.spki, i.begun = r.Bytes(maxSPKI), r.Time()
	if !slices.Contains(origins, i.by) {
		r.Fail("intent by %q", i.by)
	}
	if err := r.Done(); err != nil {
		return intent{}, fmt.Errorf("decoding intent %s: %w", id, err)
	}
	return i, nil
}

// write is one material on its way into the token.
type write struct {
	intent
	spec KeySpec
	use  use
	// make writes the token object and returns the public key of a generated pair.
	make func(context.Context) (spki []byte, err error)
	// check returns the object's material ID, and refuses what may not be used; nil stands for
	// recomputing the ID of the promised material.
	check func(context.Context) (material.ID, error)
	// settle makes the outcome durable: it changes the key and removes the intent.
	settle func(ctx context.Context, id material.ID, spki []byte) error

	id        material.ID // as recomputed in the token
	announced bool        // the intent may be in the store
	unknown   bool        // the token may still do what it was asked
}

// perform runs a write through the table. After an error it is undone, or left to the next
// start if even that is not possible.
func (s *Service) perform(ctx context.Context, w *write) error {
	for _, step := range writeOrder {
		if err := step.do(s, ctx, w); err != nil {
			s.undo(ctx, w, err)
			return err
		}
		s.step(w.by, step.name)
	}
	return nil
}

func (s *Service) writeIntent(ctx context.Context, w *write) error {
	w.begun = s.clock()
	err := s.update(ctx, func(tx *seal.Tx) error {
		return tx.Put(kindIntent, w.object.String(), w.intent.encode())
	})
	if err != nil {
		return fmt.Errorf("recording the intent of object %s: %w", w.object, err)
	}
	w.announced = true
	return nil
}

func (s *Service) writeToken(ctx context.Context, w *write) error {
	spki, err := w.make(ctx)
	if err != nil {
		// A cancelled call may still be carried out by the token.
		w.unknown = errors.Is(err, hsm.ErrOutcomeUnknown) || ctx.Err() != nil
		return err
	}
	if spki != nil {
		w.spki = spki
	}
	return nil
}

func (s *Service) checkWritten(ctx context.Context, w *write) error {
	if w.check != nil {
		id, err := w.check(ctx)
		w.id = id
		return err
	}
	id, err := s.identify(ctx, w.key, w.spec, w.use, w.object, w.spki)
	if guard4Material.Stops(errors.Is(err, errNotOurs) || err == nil && !w.want.IsZero() && id != w.want) {
		return fmt.Errorf("object %s: %w: want %s", w.object, ErrMaterialMismatch, w.want)
	}
	w.id = id
	return err
}

func (s *Service) writeOutcome(ctx context.Context, w *write) error {
	return w.settle(ctx, w.id, w.spki)
}

// undoTimeout bounds how long a call that failed goes on to clean up behind itself.
const undoTimeout = 10 * time.Second

// undo takes a failed write back, and reports whether it could. What it cannot undo is
// tried again by the worker, and by the next start.
func (s *Service) undo(ctx context.Context, w *write, why error) bool {
	if !w.announced || errors.Is(why, store.ErrOutcomeUnknown) {
		// The key may list the material by now: nothing is destroyed on a guess.
		return false
	}
	// The caller's context may be what ended the write.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	for _, step := range undoOrder {
		if err := step.do(s, ctx, w); err != nil {
			s.log.WithError(err).WithField("object", w.object).Warn("unfinished token write left to be undone later")
			s.leftovers.add(w)
			return false
		}
		s.step(w.by, step.name)
	}
	return true
}

var errStillUnknown = errors.New("the token may still carry out the write")

func (s *Service) undoToken(ctx context.Context, w *write) error {
	switch err := s.token.Destroy(ctx, w.object); {
	case errors.Is(err, hsm.ErrQuarantined):
		// Another hand has put something under this ID. It stays out of use, as everything in
		// quarantine does, and must not keep the Region from starting.
		s.log.WithError(err).WithField("object", w.object).Warn("unfinished token write is left in quarantine")
	case err != nil:
		return fmt.Errorf("destroying object %s: %w", w.object, err)
	}
	if w.unknown {
		return errStillUnknown
	}
	return nil
}

func (s *Service) undoIntent(ctx context.Context, w *write) error {
	err := s.update(ctx, func(tx *seal.Tx) error { return tx.Delete(kindIntent, w.object.String()) })
	if err != nil {
		return fmt.Errorf("removing the intent of object %s: %w", w.object, err)
	}
	return nil
}

func (s *Service) step(c origin, name string) {
	if s.onStep != nil {
		s.onStep(string(c) + "." + name)
	}
}
