package keyops_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/synchronization"
)

// fleet is a few Regions that know each other.
type fleet struct {
	*testing.T
	network *keyopstest.Network
	regions map[region.Name]*keyopstest.Region
}

// newFleet makes Regions with these options; the first is the primary instance.
func newFleet(t *testing.T, options ...keyopstest.Options) *fleet {
	f := &fleet{t, keyopstest.NewNetwork(), map[region.Name]*keyopstest.Region{}}
	var all []*keyopstest.Region
	for _, o := range options {
		o.Peers = f.network
		r := keyopstest.New(t, o)
		f.regions[r.Options.Name] = r
		all = append(all, r)
	}
	f.network.Add(all...)
	keyopstest.Connect(t, all...)
	return f
}

// synchronizationIn makes a Region the primary instance.
func synchronizationIn(t *testing.T, r *keyopstest.Region) string {
	t.Helper()
	out, err := r.CreateSynchronization(t.Context(), admin(), keyops.CreateSynchronizationInput{})
	if err != nil {
		t.Fatal(explain(err))
	}
	return string(out.Synchronization.ID)
}

func associate(r *keyopstest.Region, t *testing.T, id, with string, resources ...string) error {
	in := keyops.AssociateReplicaInstanceInput{SynchronizationID: id, ReplicaInstance: with, SynchronizationType: synchronization.AllResources, Resources: resources}
	if len(resources) > 0 {
		in.SynchronizationType = synchronization.SelectedResources
	}
	_, err := r.AssociateReplicaInstance(t.Context(), admin(), in)
	return err
}

// rows returns "<resource> <Region> <status> <cause>" of each row of the view, resources by
// the names that the test gives them.
func rows(t *testing.T, r *keyopstest.Region, id string, names map[arn.KeyID]string, f keyops.ResourceFilter) []string {
	t.Helper()
	out, err := r.ListSynchronizedResources(t.Context(), admin(), keyops.ListSynchronizedResourcesInput{SynchronizationID: id, Filter: f})
	if err != nil {
		t.Fatal(explain(err))
	}
	got := map[string]string{}
	for _, row := range out.Resources {
		if row.ResourceType != "KEY" || row.ReplicaInstance == "" {
			t.Errorf("row %+v", row)
		}
		got[names[arn.KeyID(row.ResourceID)]] += strings.TrimSpace(fmt.Sprintf(" %s %s %s", row.ReplicaRegion, row.Status, row.FailureCause))
	}
	var list []string
	for _, name := range []string{"old", "single", "moved", "denied", "new", "off"} {
		if row, ok := got[name]; ok {
			list = append(list, name+" "+row)
		}
	}
	return list
}

// What is to be associated is refused at either end, and leaves nothing behind at any.
func TestAssociationRefused(t *testing.T) {
	f := newFleet(t,
		keyopstest.Options{Name: "eu-paris-1", KeyQuota: 10}, keyopstest.Options{Name: "us-east-1", KeyQuota: 10},
		keyopstest.Options{Name: "ap-tokyo-1", KeyQuota: 9}, keyopstest.Options{Name: "eu-oslo-1", KeyQuota: 11}, keyopstest.Options{Name: "eu-rome-1", KeyQuota: 10},
	)
	paris, east, oslo, rome := f.regions["eu-paris-1"], f.regions["us-east-1"], f.regions["eu-oslo-1"], f.regions["eu-rome-1"]
	create(t, oslo, keyops.CreateKeyInput{})
	synchronizationIn(t, rome)
	id := synchronizationIn(t, paris)
	key := create(t, paris, keyops.CreateKeyInput{MultiRegion: true})
	if _, err := paris.CreateSynchronization(t.Context(), admin(), keyops.CreateSynchronizationInput{}); !errors.Is(err, keyops.ErrAlreadyExists) {
		t.Errorf("a second synchronization: %v", err)
	}
	for _, tc := range []struct {
		name string
		in   keyops.AssociateReplicaInstanceInput
		want error
	}{
		{"quota one below", keyops.AssociateReplicaInstanceInput{ReplicaInstance: "ap-tokyo-1"}, keyops.ErrLimitExceeded},
		{"not empty", keyops.AssociateReplicaInstanceInput{ReplicaInstance: "eu-oslo-1"}, keyops.ErrInvalidState},
		{"itself a primary instance", keyops.AssociateReplicaInstanceInput{ReplicaInstance: "eu-rome-1"}, keyops.ErrInvalidState},
		{"itself", keyops.AssociateReplicaInstanceInput{ReplicaInstance: "eu-paris-1"}, keyops.ErrValidation},
		{"itself by instance", keyops.AssociateReplicaInstanceInput{ReplicaInstance: string(paris.Descriptor.Instance)}, keyops.ErrValidation},
		{"unknown Region", keyops.AssociateReplicaInstanceInput{ReplicaInstance: "eu-bonn-1"}, keyops.ErrInvalidArn},
		{"unknown instance", keyops.AssociateReplicaInstanceInput{ReplicaInstance: "kfi-000000000000"}, keyops.ErrInvalidArn},
		{"no name", keyops.AssociateReplicaInstanceInput{ReplicaInstance: "kfi-"}, keyops.ErrValidation},
		{"empty name", keyops.AssociateReplicaInstanceInput{}, keyops.ErrValidation},
		{"no type", keyops.AssociateReplicaInstanceInput{ReplicaInstance: "us-east-1", SynchronizationType: "SOME"}, keyops.ErrValidation},
		{"all, and a list", keyops.AssociateReplicaInstanceInput{ReplicaInstance: "us-east-1", Resources: []string{key.ARN}}, keyops.ErrValidation},
		{"selected, and no list", keyops.AssociateReplicaInstanceInput{ReplicaInstance: "us-east-1", SynchronizationType: synchronization.SelectedResources}, keyops.ErrValidation},
		{"unknown key", keyops.AssociateReplicaInstanceInput{
			ReplicaInstance: "us-east-1", SynchronizationType: synchronization.SelectedResources, Resources: []string{key.ARN, string(arn.NewKeyID(true))},
		}, keyops.ErrNotFound},
		{"a key too many", keyops.AssociateReplicaInstanceInput{
			ReplicaInstance: "us-east-1", SynchronizationType: synchronization.SelectedResources, Resources: make([]string, 1001),
		}, keyops.ErrValidation},
		{"unknown synchronization", keyops.AssociateReplicaInstanceInput{SynchronizationID: noSync, ReplicaInstance: "us-east-1"}, keyops.ErrNotFound},
		{"no synchronization", keyops.AssociateReplicaInstanceInput{SynchronizationID: "sync-", ReplicaInstance: "us-east-1"}, keyops.ErrValidation},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.in.SynchronizationID == "" {
				tc.in.SynchronizationID = id
			}
			if tc.in.SynchronizationType == "" {
				tc.in.SynchronizationType = synchronization.AllResources
			}
			if _, err := paris.AssociateReplicaInstance(t.Context(), admin(), tc.in); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
	f.network.SetDark("us-east-1", true)
	if err := associate(paris, t, id, "us-east-1"); !errors.Is(err, keyops.ErrDependencyTimeout) {
		t.Errorf("with a dark Region: %v", err)
	}
	f.network.SetDark("us-east-1", false)
	f.network.SetAuthority("us-east-1", keyops.Authority{})
	if err := associate(paris, t, id, "us-east-1"); !errors.Is(err, keyops.ErrAccessDenied) {
		t.Errorf("to a Region that is to be sent nothing: %v", err)
	}
	f.network.SetAuthority("us-east-1", keyopstest.Everything(keyopstest.Account))
	f.network.SetAuthority("eu-paris-1", keyops.Authority{Send: []arn.Account{keyopstest.Account}})
	if err := associate(paris, t, id, "us-east-1"); !errors.Is(err, keyops.ErrAccessDenied) {
		t.Errorf("a Region that accepts nothing: %v", err)
	}
	f.network.SetAuthority("eu-paris-1", keyopstest.Everything(keyopstest.Account))
	for name, r := range f.regions {
		out, err := r.ListSynchronizations(t.Context(), admin(), keyops.ListSynchronizationsInput{})
		if err != nil {
			t.Fatal(explain(err))
		}
		for _, y := range out.Synchronizations {
			if len(y.Replicas) != 0 {
				t.Errorf("%s has %+v after refusals", name, y)
			}
		}
	}

	// Then what is right: an empty instance whose quota is equal.
	if err := associate(paris, t, id, string(east.Descriptor.Instance)); err != nil {
		t.Fatal(explain(err))
	}
	if err := associate(paris, t, id, "us-east-1"); !errors.Is(err, keyops.ErrAlreadyExists) {
		t.Errorf("associated twice: %v", err)
	}
	other := synchronizationIn(t, oslo)
	if err := associate(oslo, t, other, "us-east-1"); !errors.Is(err, keyops.ErrAlreadyExists) {
		t.Errorf("associated with two: %v", err)
	}
	if _, err := east.CreateSynchronization(t.Context(), admin(), keyops.CreateSynchronizationInput{}); !errors.Is(err, keyops.ErrInvalidState) {
		t.Errorf("a replica instance becomes a primary instance: %v", err)
	}
	if _, err := east.ListReplicaResources(t.Context(), admin(), keyops.ListReplicaResourcesInput{SynchronizationID: id, ReplicaInstance: "us-east-1"}); !errors.Is(err, keyops.ErrUnsupportedOperation) {
		t.Errorf("the view at the replica instance: %v", err)
	}
}

// Three replica instances, and not a fourth. Both ends know of each other after a restart.
func TestThreeReplicaInstances(t *testing.T) {
	f := newFleet(t, keyopstest.Options{Name: "eu-paris-1"}, keyopstest.Options{Name: "us-east-1"}, keyopstest.Options{Name: "ap-tokyo-1"},
		keyopstest.Options{Name: "eu-oslo-1"}, keyopstest.Options{Name: "eu-rome-1"})
	paris := f.regions["eu-paris-1"]
	id := synchronizationIn(t, paris)
	for i, name := range []string{"us-east-1", "ap-tokyo-1", "eu-oslo-1", "eu-rome-1"} {
		err := associate(paris, t, id, name)
		if i < 3 && err != nil || i == 3 && !errors.Is(err, keyops.ErrLimitExceeded) {
			t.Errorf("replica instance %d: %v", i+1, explain(err))
		}
	}
	for name, want := range map[region.Name]struct {
		role     keyops.MultiRegionKeyType
		replicas int
	}{"eu-paris-1": {keyops.Primary, 3}, "us-east-1": {keyops.Replica, 1}} {
		r := f.regions[name]
		r.Restart(t)
		out, err := r.GetSynchronization(t.Context(), admin(), keyops.GetSynchronizationInput{SynchronizationID: id})
		if err != nil {
			t.Fatal(explain(err))
		}
		y := out.Synchronization
		if y.Role != want.role || len(y.Replicas) != want.replicas || y.PrimaryInstance != paris.Descriptor.Instance || y.Replicas[0].Stage != synchronization.Associated {
			t.Errorf("%s says %+v", name, y)
		}
	}
	if out, err := f.regions["eu-rome-1"].ListSynchronizations(t.Context(), admin(), keyops.ListSynchronizationsInput{}); err != nil || len(out.Synchronizations) != 0 {
		t.Errorf("the fourth says %+v, %v", out, err)
	}
}

// A selection has a row for each key in it, whatever the key is, and grows only.
func TestSelectedResources(t *testing.T) {
	f := newFleet(t, keyopstest.Options{Name: "eu-paris-1"}, keyopstest.Options{Name: "us-east-1"}, keyopstest.Options{Name: "ap-tokyo-1"})
	paris, tokyo := f.regions["eu-paris-1"], f.regions["ap-tokyo-1"]
	old, single := create(t, paris, keyops.CreateKeyInput{MultiRegion: true}), create(t, paris, keyops.CreateKeyInput{})
	deny := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"kms:*","Resource":"*"},
		{"Effect":"Deny","Principal":{"AWS":"*"},"Action":"kms:ReplicateKey","Resource":"*"}]}`
	later, denied := create(t, paris, keyops.CreateKeyInput{MultiRegion: true}), create(t, paris, keyops.CreateKeyInput{MultiRegion: true})
	off := create(t, paris, keyops.CreateKeyInput{MultiRegion: true})
	names := map[arn.KeyID]string{old.KeyID: "old", single.KeyID: "single", later.KeyID: "new", denied.KeyID: "denied", off.KeyID: "off"}
	id := synchronizationIn(t, paris)
	if err := associate(paris, t, id, "us-east-1", old.ARN, string(single.KeyID), string(denied.KeyID), string(off.KeyID), old.ARN); err != nil {
		t.Fatal(explain(err))
	}
	if _, err := paris.PutKeyPolicy(t.Context(), admin(), keyops.PutKeyPolicyInput{KeyID: string(denied.KeyID), Policy: deny}); err != nil {
		t.Fatal(explain(err))
	}
	if _, err := paris.DisableKey(t.Context(), admin(), keyops.DisableKeyInput{KeyID: string(off.KeyID)}); err != nil {
		t.Fatal(explain(err))
	}
	if err := paris.Synchronize(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"old us-east-1 PENDING", "single us-east-1 FAILED SINGLE_REGION_KEY", "denied us-east-1 FAILED ACCESS_DENIED", "off us-east-1 PENDING"}
	if diff := cmp.Diff(want, rows(t, paris, id, names, keyops.ResourceFilter{})); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	k, err := paris.SharedKey(old.KeyID)
	if err != nil || !k.Set.Entry("us-east-1").Status.In() || k.Set.Entry("ap-tokyo-1").Status.In() {
		t.Errorf("the selected key has %+v, %v", k.Set.Members(), err)
	}
	update := func(in keyops.UpdateSynchronizationInput) error {
		in.SynchronizationID = id
		if in.ReplicaInstance == "" {
			in.ReplicaInstance = "us-east-1"
		}
		_, err := paris.UpdateSynchronization(t.Context(), admin(), in)
		return err
	}
	for _, tc := range []struct {
		name string
		in   keyops.UpdateSynchronizationInput
		want error
	}{
		{"removal", keyops.UpdateSynchronizationInput{RemoveResources: []string{old.ARN}}, keyops.ErrUnsupportedOperation},
		{"removal and addition", keyops.UpdateSynchronizationInput{RemoveResources: []string{old.ARN}, AddResources: []string{later.ARN}}, keyops.ErrUnsupportedOperation},
		{"nothing", keyops.UpdateSynchronizationInput{}, keyops.ErrValidation},
		{"no type", keyops.UpdateSynchronizationInput{SynchronizationType: "NONE"}, keyops.ErrValidation},
		{"unknown key", keyops.UpdateSynchronizationInput{AddResources: []string{later.ARN, string(arn.NewKeyID(true))}}, keyops.ErrNotFound},
		{"a key that may not be replicated", keyops.UpdateSynchronizationInput{AddResources: []string{denied.ARN}}, keyops.ErrAccessDenied},
		{"an alias", keyops.UpdateSynchronizationInput{AddResources: []string{"alias/x"}}, keyops.ErrNotFound},
		{"an instance that is not associated", keyops.UpdateSynchronizationInput{ReplicaInstance: "ap-tokyo-1", AddResources: []string{later.ARN}}, keyops.ErrNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := update(tc.in); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
			if got := rows(t, paris, id, names, keyops.ResourceFilter{}); len(got) != 4 {
				t.Errorf("rows after a refusal: %v", got)
			}
		})
	}
	if err := update(keyops.UpdateSynchronizationInput{SynchronizationType: synchronization.SelectedResources, AddResources: []string{later.ARN}}); err != nil {
		t.Fatal(explain(err))
	}
	if got := rows(t, paris, id, names, keyops.ResourceFilter{ResourceID: string(later.KeyID)}); len(got) != 1 {
		t.Errorf("the added key: %v", got)
	}
	if err := update(keyops.UpdateSynchronizationInput{SynchronizationType: synchronization.AllResources}); err != nil {
		t.Fatal(explain(err))
	}
	if err := update(keyops.UpdateSynchronizationInput{SynchronizationType: synchronization.SelectedResources, AddResources: []string{later.ARN}}); !errors.Is(err, keyops.ErrUnsupportedOperation) {
		t.Errorf("all resources become selected ones: %v", err)
	}
	if err := tokyo.Synchronize(t.Context()); err != nil {
		t.Errorf("an instance that is part of none: %v", err)
	}
}

// Keys that are made later are replicated by themselves, also after a death before the
// worker has run, and to an instance that is dark.
func TestAllResources(t *testing.T) {
	f := newFleet(t, keyopstest.Options{Name: "eu-paris-1"}, keyopstest.Options{Name: "us-east-1"}, keyopstest.Options{Name: "ap-tokyo-1"})
	paris := f.regions["eu-paris-1"]
	id := synchronizationIn(t, paris)
	for _, name := range []string{"us-east-1", "ap-tokyo-1"} {
		if err := associate(paris, t, id, name); err != nil {
			t.Fatal(explain(err))
		}
	}
	f.network.SetDark("ap-tokyo-1", true)
	policy := `{"Version":"2012-10-17","Statement":[{"Sid":"narrow","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/admin"},"Action":"kms:*","Resource":"*"}]}`
	key := create(t, paris, keyops.CreateKeyInput{MultiRegion: true, Policy: policy, Description: "payroll", Tags: []keyops.Tag{{Key: "env", Value: "prod"}}})
	names := map[arn.KeyID]string{key.KeyID: "new"}
	paris.Restart(t)
	if err := paris.Synchronize(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"new us-east-1 PENDINGap-tokyo-1 PENDING"}
	if diff := cmp.Diff(want, rows(t, paris, id, names, keyops.ResourceFilter{})); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	k, err := paris.SharedKey(key.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []region.Name{"us-east-1", "ap-tokyo-1"} {
		req, ok := k.Set.Request(to)
		if !ok || string(req.Policy) != policy || req.Description != "payroll" || len(req.Tags) != 1 || req.Principal != "arn:aws:iam::111122223333:user/admin" {
			t.Errorf("the request to %s: %v %+v", to, ok, req)
		}
	}
	version := paris.SharedVersion()
	if err := paris.Synchronize(t.Context()); err != nil || paris.SharedVersion() != version {
		t.Errorf("a second run changes keys: %v", err)
	}
	replicated := 0
	for _, l := range strings.Split(auditText(t, paris), "\n") {
		if strings.Contains(l, `"event":"ReplicateKey"`) && strings.Contains(l, `"outcome":"Success"`) {
			replicated++
			if !strings.Contains(l, `"synchronization":"`+id+`"`) || !strings.Contains(l, `"principal":"arn:aws:iam::111122223333:user/admin"`) {
				t.Errorf("record %s", l)
			}
		}
	}
	if replicated != 2 {
		t.Errorf("%d replications in the audit log", replicated)
	}
}

// The worker asks for what a Region refuses again, and shows why until then.
func TestRefusedResourceIsTriedAgain(t *testing.T) {
	clock := newClock()
	f := newFleet(t, keyopstest.Options{Name: "eu-paris-1", Clock: clock.now, Elapsed: clock.passed}, keyopstest.Options{Name: "us-east-1", KeyQuota: 100_000})
	paris := f.regions["eu-paris-1"]
	id := synchronizationIn(t, paris)
	if err := associate(paris, t, id, "us-east-1"); err != nil {
		t.Fatal(explain(err))
	}
	key := create(t, paris, keyops.CreateKeyInput{MultiRegion: true})
	names := map[arn.KeyID]string{key.KeyID: "new"}
	f.network.SetAuthority("eu-paris-1", keyops.Authority{})
	run := func() string {
		t.Helper()
		if err := paris.Synchronize(t.Context()); err != nil {
			t.Fatal(err)
		}
		return strings.Join(rows(t, paris, id, names, keyops.ResourceFilter{}), ";")
	}
	if got := run(); got != "new us-east-1 FAILED ACCESS_DENIED" {
		t.Errorf("refused by the other Region: %q", got)
	}
	f.network.SetAuthority("eu-paris-1", keyopstest.Everything(keyopstest.Account))
	if got := run(); got != "new us-east-1 FAILED ACCESS_DENIED" {
		t.Errorf("tried again at once: %q", got)
	}
	clock.advance(61 * time.Second)
	if got := run(); got != "new us-east-1 PENDING" {
		t.Errorf("after a minute: %q", got)
	}
}

// Pages of the view join to the whole, one below, at and above the number of rows.
func TestSynchronizedResourcePages(t *testing.T) {
	f := newFleet(t, keyopstest.Options{Name: "eu-paris-1"}, keyopstest.Options{Name: "us-east-1"}, keyopstest.Options{Name: "ap-tokyo-1"})
	paris := f.regions["eu-paris-1"]
	id := synchronizationIn(t, paris)
	for range 3 {
		create(t, paris, keyops.CreateKeyInput{})
	}
	for _, name := range []string{"us-east-1", "ap-tokyo-1"} {
		if err := associate(paris, t, id, name); err != nil {
			t.Fatal(explain(err))
		}
	}
	whole, err := paris.ListSynchronizedResources(t.Context(), admin(), keyops.ListSynchronizedResourcesInput{SynchronizationID: id, Filter: keyops.ResourceFilter{Status: "failed", FailureCause: "SINGLE_REGION_KEY"}})
	if err != nil || len(whole.Resources) != 6 || whole.Truncated {
		t.Fatalf("%+v, %v", whole, err)
	}
	for size := 1; size <= 7; size++ {
		var joined []keyops.SynchronizedResource
		in := keyops.ListSynchronizedResourcesInput{SynchronizationID: id, Limit: size}
		for pages := 1; ; pages++ {
			page, err := paris.ListSynchronizedResources(t.Context(), admin(), in)
			if err != nil {
				t.Fatal(explain(err))
			}
			joined = append(joined, page.Resources...)
			if !page.Truncated {
				if pages != (6+size-1)/size {
					t.Errorf("%d pages of %d", pages, size)
				}
				break
			}
			in.Marker = page.NextMarker
		}
		if diff := cmp.Diff(whole.Resources, joined); diff != "" {
			t.Errorf("pages of %d (-whole +joined):\n%s", size, diff)
		}
	}
	one, err := paris.ListReplicaResources(t.Context(), admin(), keyops.ListReplicaResourcesInput{SynchronizationID: id, ReplicaInstance: "ap-tokyo-1"})
	if err != nil || len(one.Resources) != 3 || one.Resources[0].ReplicaRegion != "ap-tokyo-1" {
		t.Errorf("%+v, %v", one, err)
	}
	for _, n := range []int{-1, 1001} {
		if _, err := paris.ListSynchronizedResources(t.Context(), admin(), keyops.ListSynchronizedResourcesInput{SynchronizationID: id, Limit: n}); !errors.Is(err, keyops.ErrValidation) {
			t.Errorf("limit %d: %v", n, err)
		}
	}
	if _, err := paris.ListReplicaResources(t.Context(), admin(), keyops.ListReplicaResourcesInput{SynchronizationID: id, ReplicaInstance: "us-east-1", Marker: "x"}); !errors.Is(err, keyops.ErrInvalidMarker) {
		t.Errorf("another operation's marker: %v", err)
	}
	if out, err := paris.ListSynchronizedResources(t.Context(), admin(), keyops.ListSynchronizedResourcesInput{SynchronizationID: id, Filter: keyops.ResourceFilter{Status: "SYNCHRONIZED"}}); err != nil || len(out.Resources) != 0 {
		t.Errorf("filter: %+v, %v", out, err)
	}
}
