package keyops_test

import (
	"context"
	"errors"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/keystate"
)

// noState are operations that the table has, and that the service decides on otherwise: they
// are on the account, or on an alias, and work in every state.
var noState = map[string]bool{"ListAliases": true, "DeleteAlias": true}

// TestEveryOperationInEveryState puts keys of both origins into every state and calls every
// operation that names a key. What the table refuses is refused with its reason and words,
// and changes nothing; what it allows is refused, if at all, for another reason.
func TestEveryOperationInEveryState(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	attempts := map[string]attempt{}
	for _, a := range onAKey {
		attempts[a.name] = a
	}
	attempts["ReEncrypt"] = attempt{"ReEncrypt", func(ctx context.Context, r *keyopstest.Region, c keyops.Caller, key string) error {
		return second(r.ReEncrypt(ctx, c, keyops.ReEncryptInput{SourceKeyID: key, CiphertextBlob: x, DestinationKeyID: key}))
	}}
	refused, let := 0, 0
	for _, op := range keystate.Operations() {
		a, called := attempts[string(op)]
		switch implemented := keyops.OperationRows()[string(op)]; {
		case !implemented || noState[string(op)]:
			continue
		case !called:
			t.Errorf("%s is never called", op)
			continue
		}
		for _, state := range keystate.States {
			for _, external := range []bool{false, true} {
				k := create(t, r, keyops.CreateKeyInput{})
				err := r.SetState(t.Context(), k.KeyID, func(k *keyops.Key) {
					k.State = state
					if external {
						k.Origin = keyops.OriginExternal
						k.Materials[0].Import, k.Materials[0].Expiration = keyops.MaterialImported, keyops.MaterialDoesNotExpire
						if state == keystate.PendingImport {
							k.Materials[0].Import = keyops.MaterialPending
						}
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				expected := keystate.Check(state, op, keystate.Facts{External: external})
				head, objects := r.StoreHead(), len(r.Token.Objects())
				err = a.call(t.Context(), r, admin(), k.ARN)
				var byTable *keystate.Error
				if expected == nil {
					let++
					if errors.As(err, &byTable) {
						t.Errorf("%s in %s, external %v: %v, want it allowed", op, state, external, err)
					}
					continue
				}
				refused++
				if !errors.As(expected, &byTable) {
					t.Fatal(expected)
				}
				want(t, err, keyops.Reason(byTable.Reason), byTable.Message(k.ARN))
				if err == nil {
					t.Logf("that was %s in %s, external %v", op, state, external)
				}
				if r.StoreHead() != head || len(r.Token.Objects()) != objects {
					t.Errorf("%s in %s, external %v: refused, and changed the store or the token", op, state, external)
				}
			}
		}
	}
	t.Logf("%d calls refused, %d let in", refused, let)
	if refused < 150 || let < 150 {
		t.Error("too few calls: the table was not walked")
	}
}

// TestAliasesInEveryState: an alias can leave a key that is about to be deleted, and cannot
// be pointed to one.
func TestAliasesInEveryState(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	for _, state := range keystate.States {
		leaving := state == keystate.PendingDeletion || state == keystate.PendingReplicaDeletion
		k, other := create(t, r, keyops.CreateKeyInput{}), create(t, r, keyops.CreateKeyInput{})
		name := "alias/" + string(state)
		if _, err := r.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: name, TargetKeyID: k.ARN}); err != nil {
			t.Fatal(explain(err))
		}
		if err := r.SetState(t.Context(), k.KeyID, func(k *keyops.Key) { k.State = state }); err != nil {
			t.Fatal(err)
		}
		move := func(to string) error {
			return second(r.UpdateAlias(t.Context(), admin(), keyops.UpdateAliasInput{AliasName: name, TargetKeyID: to}))
		}
		if err := move(other.ARN); err != nil {
			t.Errorf("from a key that is %s: %v", state, explain(err))
		}
		err := move(k.ARN)
		if leaving {
			want(t, err, keyops.ErrInvalidState, "deletion")
		} else if err != nil {
			t.Errorf("to a key that is %s: %v", state, explain(err))
		}
		if err := second(r.DeleteAlias(t.Context(), admin(), keyops.DeleteAliasInput{AliasName: name})); err != nil {
			t.Errorf("of a key that is %s: %v", state, explain(err))
		}
	}
}
