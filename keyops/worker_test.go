package keyops_test

import (
	"context"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// TestCancelledCreateLeavesNothing: a caller who goes away while the token makes the key
// leaves an object and an intent, which the process itself removes once the token has
// answered and a minute has passed.
func TestCancelledCreateLeavesNothing(t *testing.T) {
	for name, rotating := range map[string]bool{"create": false, "rotate": true} {
		t.Run(name, func(t *testing.T) {
			r, c := onAClock(t)
			k := keyops.KeyMetadata{}
			if rotating {
				k = create(t, r, keyops.CreateKeyInput{})
			}
			objects := len(r.Token.Objects())
			ctx, cancel := context.WithCancel(t.Context())
			r.Fake.SetHook(func(call hsmtest.Call) hsmtest.Fault {
				if call.Op != "Generate" {
					return hsmtest.Fault{}
				}
				cancel()
				return hsmtest.Fault{After: hsmtest.FailedButApplied}
			})
			var err error
			if rotating {
				err = second(r.RotateKeyOnDemand(ctx, admin(), keyops.RotateKeyOnDemandInput{KeyID: k.ARN}))
			} else {
				err = second(r.CreateKey(ctx, admin(), keyops.CreateKeyInput{}))
			}
			if err == nil {
				t.Fatal("the cancelled call succeeded")
			}
			r.Fake.SetHook(nil)
			// The token carries it out after all.
			late := hsm.NewID()
			for _, row := range intents(t, r) {
				late = row
			}
			spec := hsm.Spec{Role: hsm.RoleMaterial, Algorithm: hsm.AES256, Name: "late"}
			if _, err := r.Fake.Generate(t.Context(), spec, late); err != nil {
				t.Fatal(err)
			}
			c.advance(59 * time.Second)
			work(t, r)
			if len(r.Token.Objects()) != objects+1 {
				t.Error("undone before the token can have answered")
			}
			c.advance(2 * time.Second)
			work(t, r)
			if n := len(r.Token.Objects()); n != objects {
				t.Errorf("%d objects, want %d", n, objects)
			}
			if left := intents(t, r); len(left) != 0 {
				t.Errorf("intents left: %v", left)
			}
			r.Restart(t)
			if o := r.Reconciliation(); len(o.Undone)+len(o.Orphans) != 0 {
				t.Errorf("the start found %+v", o)
			}
			sound(t, r)
		})
	}
}

// intents returns the objects of a running Region's open intents.
func intents(t *testing.T, r *keyopstest.Region) (ids []hsm.ID) {
	t.Helper()
	for _, id := range r.OpenIntents(t.Context()) {
		object, err := hsm.ParseID(id)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, object)
	}
	return ids
}

// TestWorkSurvivesFailures: what fails for one key keeps nothing from the others.
func TestWorkSurvivesFailures(t *testing.T) {
	r, c := onAClock(t)
	bad, good := create(t, r, keyops.CreateKeyInput{}), create(t, r, keyops.CreateKeyInput{})
	for _, k := range []keyops.KeyMetadata{bad, good} {
		if err := enableRotation(r, k.ARN, 90); err != nil {
			t.Fatal(explain(err))
		}
	}
	failed := 0
	r.Fake.SetHook(func(call hsmtest.Call) hsmtest.Fault {
		if call.Op == "Generate" && failed == 0 {
			failed++
			return hsmtest.Fault{Before: hsmtest.FailedNotApplied}
		}
		return hsmtest.Fault{}
	})
	c.advance(90 * aDay)
	if err := r.Work(t.Context()); err == nil {
		t.Error("the failure is not reported")
	}
	if n := rotations(t, r, bad.ARN) + rotations(t, r, good.ARN); n != 1 {
		t.Errorf("%d of 2 keys rotated beside a failure, want 1", n)
	}
	c.advance(time.Minute)
	work(t, r)
	if n := rotations(t, r, bad.ARN) + rotations(t, r, good.ARN); n != 2 {
		t.Errorf("%d of 2 keys rotated after another try", n)
	}
}
