package keyops_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// sharedOperations change what related keys share, or who they are.
const sharedOperations = "ReplicateKey UpdatePrimaryRegion EnableKeyRotation DisableKeyRotation RotateKeyOnDemand SuspendReplica EvictReplica WriteOffKeyMaterial"

// What is shared is managed where the primary key is: at a replica key every operation that
// changes it is refused with the name of that Region, and changes nothing. No other operation
// is. New material of an imported key is refused so, too: TestImportSharedKey.
func TestSharedPropertiesBelongToThePrimary(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	w.sync(t, k.KeyID)
	id := string(k.KeyID)
	const refusal = "is not a multi-region primary key. The primary key is in Region eu-paris-1: call there."
	version := func(t *testing.T) uint64 {
		row, err := w.tokyo.SharedKey(k.KeyID)
		if err != nil {
			t.Fatal(err)
		}
		return row.Version
	}
	tried := 0
	for _, op := range onAKey {
		t.Run(op.name, func(t *testing.T) {
			w.tokyo.CancelKeyDeletion(t.Context(), admin(), keyops.CancelKeyDeletionInput{KeyID: id})
			w.tokyo.EnableKey(t.Context(), admin(), keyops.EnableKeyInput{KeyID: id})
			before, row := describe(t, w.tokyo, id), version(t)
			err := op.call(t.Context(), w.tokyo, admin(), id)
			if !among(sharedOperations, op.name) {
				if err != nil && strings.Contains(err.Error(), refusal) {
					t.Errorf("%v", err)
				}
				return
			}
			tried++
			want(t, err, keyops.ErrUnsupportedOperation, refusal)
			if now := version(t); now != row {
				t.Errorf("the key's row was written: version %d, before %d", now, row)
			}
			if diff := cmp.Diff(before, describe(t, w.tokyo, id)); diff != "" {
				t.Errorf("the refusal changed the key:\n%s", diff)
			}
		})
	}
	if tried != len(strings.Fields(sharedOperations)) {
		t.Errorf("%d operations were tried", tried)
	}
}

// own is what one Region's key has for itself.
type own struct {
	State, Description, Policy string
	Tags                       []keyops.Tag
	Aliases, Grants            []string
}

func ownOf(t *testing.T, r *keyopstest.Region, id arn.KeyID) own {
	t.Helper()
	md := describe(t, r, string(id))
	p, err := r.GetKeyPolicy(t.Context(), admin(), keyops.GetKeyPolicyInput{KeyID: string(id)})
	if err != nil {
		t.Fatal(explain(err))
	}
	tags, err := r.ListResourceTags(t.Context(), admin(), keyops.ListResourceTagsInput{KeyID: string(id)})
	if err != nil {
		t.Fatal(explain(err))
	}
	aliases, err := r.ListAliases(t.Context(), admin(), keyops.ListAliasesInput{KeyID: string(id)})
	if err != nil {
		t.Fatal(explain(err))
	}
	grants, err := r.ListGrants(t.Context(), admin(), keyops.ListGrantsInput{KeyID: string(id)})
	if err != nil {
		t.Fatal(explain(err))
	}
	o := own{State: md.KeyState, Description: md.Description, Policy: p.Policy, Tags: tags.Tags}
	for _, a := range aliases.Aliases {
		o.Aliases = append(o.Aliases, a.AliasName)
	}
	for _, g := range grants.Grants {
		o.Grants = append(o.Grants, g.GrantID)
	}
	return o
}

// What is not shared never moves, in either direction, whatever else the Regions exchange.
func TestIndependentPropertiesNeverMove(t *testing.T) {
	w := newTwo(t)
	k := w.replicate(t, keyops.CreateKeyInput{})
	w.sync(t, k.KeyID)
	id := string(k.KeyID)
	steps := []struct {
		name string
		do   func(*keyopstest.Region) error
	}{
		{"description", func(r *keyopstest.Region) error {
			return second(r.UpdateKeyDescription(t.Context(), admin(), keyops.UpdateKeyDescriptionInput{KeyID: id, Description: "of " + string(r.Options.Name)}))
		}},
		{"tags", func(r *keyopstest.Region) error {
			return second(r.TagResource(t.Context(), admin(), keyops.TagResourceInput{KeyID: id, Tags: []keyops.Tag{{Key: "region", Value: string(r.Options.Name)}}}))
		}},
		{"policy", func(r *keyopstest.Region) error {
			p := `{"Version": "2012-10-17", "Id": "` + string(r.Options.Name) + `", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"}]}`
			return second(r.PutKeyPolicy(t.Context(), admin(), keyops.PutKeyPolicyInput{KeyID: id, Policy: p}))
		}},
		{"alias", func(r *keyopstest.Region) error {
			return second(r.CreateAlias(t.Context(), admin(), keyops.CreateAliasInput{AliasName: "alias/" + string(r.Options.Name), TargetKeyID: id}))
		}},
		{"grant", func(r *keyopstest.Region) error {
			return second(r.CreateGrant(t.Context(), admin(), keyops.CreateGrantInput{KeyID: id, GranteePrincipal: "arn:aws:iam::111122223333:role/app", Operations: []string{"DescribeKey"}}))
		}},
		{"disabled", func(r *keyopstest.Region) error {
			return second(r.DisableKey(t.Context(), admin(), keyops.DisableKeyInput{KeyID: id}))
		}},
		{"enabled again", func(r *keyopstest.Region) error {
			return second(r.EnableKey(t.Context(), admin(), keyops.EnableKeyInput{KeyID: id}))
		}},
		{"deletion", func(r *keyopstest.Region) error {
			return second(r.ScheduleKeyDeletion(t.Context(), admin(), keyops.ScheduleKeyDeletionInput{KeyID: id, PendingWindowInDays: 7}))
		}},
		{"deletion cancelled", func(r *keyopstest.Region) error {
			return second(r.CancelKeyDeletion(t.Context(), admin(), keyops.CancelKeyDeletionInput{KeyID: id}))
		}},
	}
	for _, pair := range [][2]*keyopstest.Region{{w.paris, w.tokyo}, {w.tokyo, w.paris}} {
		here, there := pair[0], pair[1]
		for _, step := range steps {
			before, other := ownOf(t, here, k.KeyID), ownOf(t, there, k.KeyID)
			if err := step.do(here); err != nil {
				t.Fatalf("%s in %s: %v", step.name, here.Options.Name, explain(err))
			}
			w.sync(t, k.KeyID)
			if cmp.Equal(before, ownOf(t, here, k.KeyID)) {
				t.Errorf("%s in %s changes nothing there", step.name, here.Options.Name)
			}
			if diff := cmp.Diff(other, ownOf(t, there, k.KeyID)); diff != "" {
				t.Errorf("%s in %s moves to %s:\n%s", step.name, here.Options.Name, there.Options.Name, diff)
			}
		}
	}
	a, b := ownOf(t, w.paris, k.KeyID), ownOf(t, w.tokyo, k.KeyID)
	if a.Description == b.Description || a.Policy == b.Policy || slices.Equal(a.Aliases, b.Aliases) || slices.Equal(a.Grants, b.Grants) || slices.Equal(a.Tags, b.Tags) {
		t.Errorf("in the end Paris has %+v, Tokyo %+v", a, b)
	}
}
