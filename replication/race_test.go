package replication_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/region"
)

// atOnce does several things at the same time and returns what each came to.
func atOnce(do ...func() error) []error {
	errs := make([]error, len(do))
	var begin, done sync.WaitGroup
	begin.Add(1)
	for i, f := range do {
		done.Go(func() {
			begin.Wait()
			errs[i] = f()
		})
	}
	begin.Done()
	done.Wait()
	return errs
}

// busyWith are the refusals of what cannot be done beside something else that is under way.
var busyWith = []error{keyops.ErrInvalidState, keyops.ErrConflict, keyops.ErrUnsupportedOperation}

// refusedOnly demands that each error is one that tells a caller to wait or to call elsewhere.
func refusedOnly(t testing.TB, errs ...error) {
	t.Helper()
	for i, err := range errs {
		ok := err == nil
		for _, want := range busyWith {
			ok = ok || errors.Is(err, want)
		}
		if !ok {
			t.Errorf("number %d: %v", i, err)
		}
	}
}

// oneLeads waits until all Regions name one primary Region, which acts, and returns it.
func oneLeads(t testing.TB, id arn.KeyID, sites ...*site) *site {
	t.Helper()
	var leader *site
	eventually(t, "one primary key", func() (bool, string) {
		said, named, acting := "", map[string]bool{}, 0
		for _, s := range sites {
			m := s.describe(id)
			k, err := s.region.SharedKey(id)
			if err != nil {
				return false, err.Error()
			}
			primary := string(m.MultiRegionConfiguration.PrimaryKey.Region)
			said += fmt.Sprintf("%s: %s in %s, primary in %s; ", s.name(), m.KeyState, k.Set.Epoch(), primary)
			named[primary] = true
			if k.Set.Acting() {
				acting++
				leader = s
			}
			if m.KeyState == "Updating" {
				return false, said
			}
		}
		return len(named) == 1 && acting == 1 && named[string(leader.name())], said
	})
	return leader
}

// raceSites are three Regions, and for each round a fresh key with replicas in some of them.
type raceSites struct {
	t     *testing.T
	sites []*site
}

func (r raceSites) key(replicas ...*site) (arn.KeyID, *vault) {
	r.t.Helper()
	id := r.sites[0].createSymmetric()
	r.sites[0].mustReplicate(id, replicas...)
	r.sites[0].synchronized(id, replicas...)
	v := &vault{t: r.t}
	for _, s := range append(replicas, r.sites[0]) {
		v.put(s, id)
	}
	return id, v
}

// rounds is how often each race is run: which end wins differs from run to run.
const rounds = 2

// Hand-overs race with everything else that the primary Region decides. Whoever is late is
// refused, and nothing is lost.
func TestHandOverRaces(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	a, b, c := sites[0], sites[1], sites[2]
	r := raceSites{t, sites}
	t.Run("rotation", func(t *testing.T) {
		for range rounds {
			id, v := r.key(b, c)
			before := a.describe(id).CurrentKeyMaterialID
			errs := atOnce(func() error { return a.promote(id, east) }, func() error { return a.rotateOnDemand(id) })
			refusedOnly(t, errs...)
			leader := oneLeads(t, id, sites...)
			if errs[0] == nil && leader != b || errs[0] != nil && leader != a {
				t.Errorf("the hand-over came to %v, and %s leads", errs[0], leader.name())
			}
			if errs[1] == nil { // the rotation survives the hand-over
				rotated(t, id, before, sites...)
			} else if now := leader.describe(id).CurrentKeyMaterialID; now != before {
				t.Errorf("the rotation was refused (%v), and the material is another", errs[1])
			}
			for _, s := range sites {
				v.put(s, id)
			}
			for _, s := range sites {
				v.open(s, 0)
			}
		}
	})
	t.Run("replication", func(t *testing.T) {
		for range rounds {
			id, v := r.key(b)
			errs := atOnce(func() error { return a.promote(id, east) }, func() error { return a.replicate(id, c) })
			refusedOnly(t, errs...)
			leader := oneLeads(t, id, a, b)
			if errs[1] != nil { // it can be asked for where the primary key is now
				eventually(t, "the replica", func() (bool, string) { err := leader.replicate(id, c); return err == nil, fmt.Sprint(err) })
			}
			leader.synchronized(id, sites...)
			v.put(c, id)
			for _, s := range sites {
				v.open(s, 0)
			}
		}
	})
	t.Run("deletion of its destination", func(t *testing.T) {
		for range rounds {
			id, v := r.key(b)
			errs := atOnce(func() error { return a.promote(id, east) }, func() error {
				_, err := b.region.ScheduleKeyDeletion(context.Background(), keyopstest.Admin(), keyops.ScheduleKeyDeletionInput{KeyID: string(id), PendingWindowInDays: 7})
				return err
			})
			refusedOnly(t, errs...)
			leader := oneLeads(t, id, a, b)
			if m := b.describe(id); errs[1] == nil && m.Enabled || errs[1] != nil && !m.Enabled {
				t.Errorf("the deletion came to %v, and the key is %s", errs[1], m.KeyState)
			}
			if errs[1] == nil {
				if leader == b {
					t.Logf("deletion of the new primary key: %s", b.describe(id).KeyState)
				}
				if _, err := b.region.CancelKeyDeletion(context.Background(), keyopstest.Admin(), keyops.CancelKeyDeletionInput{KeyID: string(id)}); err != nil {
					t.Fatal(err)
				}
				if _, err := b.region.EnableKey(context.Background(), keyopstest.Admin(), keyops.EnableKeyInput{KeyID: string(id)}); err != nil {
					t.Fatal(err)
				}
			}
			leader.synchronized(id, a, b)
			v.put(b, id)
			for _, s := range sites[:2] {
				v.open(s, 0)
			}
		}
	})
	t.Run("deletion of its source", func(t *testing.T) {
		for range rounds {
			id, v := r.key(b)
			errs := atOnce(func() error { return a.promote(id, east) }, func() error {
				_, err := a.region.ScheduleKeyDeletion(context.Background(), keyopstest.Admin(), keyops.ScheduleKeyDeletionInput{KeyID: string(id), PendingWindowInDays: 7})
				return err
			})
			refusedOnly(t, errs...)
			leader := oneLeads(t, id, a, b)
			if errs[0] == nil && leader != b || errs[0] != nil && leader != a {
				t.Errorf("the hand-over came to %v, and %s leads", errs[0], leader.name())
			}
			if m := a.describe(id); errs[1] == nil && m.Enabled {
				t.Errorf("the deletion was accepted, and the key is %s", m.KeyState)
			}
			v.put(b, id)
			v.open(b, 0)
		}
	})
	t.Run("another hand-over", func(t *testing.T) {
		for range rounds {
			id, v := r.key(b, c)
			errs := atOnce(func() error { return a.promote(id, east) }, func() error { return a.promote(id, tokyo) })
			refusedOnly(t, errs...)
			if (errs[0] == nil) == (errs[1] == nil) {
				t.Errorf("two hand-overs at once came to %v", errs)
			}
			leader := oneLeads(t, id, sites...)
			if errs[0] == nil && leader != b || errs[1] == nil && leader != c {
				t.Errorf("two hand-overs came to %v, and %s leads", errs, leader.name())
			}
			leader.synchronized(id, sites...)
			for _, s := range sites {
				v.open(s, 0)
			}
		}
	})
	for _, s := range sites {
		s.noAlarms()
	}
}

// ReplicateKey refuses a Region that has a related key, whatever the state of that key, and a
// primary key that is not enabled; and changes nothing.
func TestReplicateKeyRefusedInEveryState(t *testing.T) {
	ctx := context.Background()
	sites := deploy(t, paris, east, tokyo)
	a, b := sites[0], sites[1]
	id := a.createSymmetric()
	a.mustReplicate(id, b)
	a.synchronized(id, b)
	on := func(s *site, what string) {
		t.Helper()
		var err error
		switch what {
		case "disable":
			_, err = s.region.DisableKey(ctx, keyopstest.Admin(), keyops.DisableKeyInput{KeyID: string(id)})
		case "enable":
			_, err = s.region.EnableKey(ctx, keyopstest.Admin(), keyops.EnableKeyInput{KeyID: string(id)})
		case "delete":
			s.schedule(id, 7)
		case "undelete":
			_, err = s.region.CancelKeyDeletion(ctx, keyopstest.Admin(), keyops.CancelKeyDeletionInput{KeyID: string(id)})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name    string
		at      *site
		do      string
		back    []string
		to      region.Name
		want    error
		unheard bool // the primary Region need not hear of it
	}{
		{"the replica key is enabled", b, "", nil, east, keyops.ErrAlreadyExists, true},
		{"the replica key is disabled", b, "disable", []string{"enable"}, east, keyops.ErrAlreadyExists, false},
		{"the replica key is pending deletion", b, "delete", []string{"undelete", "enable"}, east, keyops.ErrAlreadyExists, false},
		{"the primary key is disabled", a, "disable", []string{"enable"}, tokyo, keyops.ErrDisabled, true},
		{"the primary key is pending deletion", a, "delete", []string{"undelete", "enable"}, tokyo, keyops.ErrInvalidState, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.do != "" {
				on(tc.at, tc.do)
			}
			if !tc.unheard {
				eventually(t, "the primary Region hears of it", func() (bool, string) {
					row := a.status(id, b)
					return row.KeyState == b.describe(id).KeyState, fmt.Sprintf("%+v", row)
				})
			}
			k, err := a.region.SharedKey(id)
			if err != nil {
				t.Fatal(err)
			}
			before, wraps := k.Set.State().Seq, a.region.Fake.Calls()["C_WrapKey"]
			_, err = a.region.ReplicateKey(ctx, keyopstest.Admin(), keyops.ReplicateKeyInput{KeyID: string(id), ReplicaRegion: string(tc.to)})
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if k, err = a.region.SharedKey(id); err != nil || k.Set.State().Seq != before || a.region.Fake.Calls()["C_WrapKey"] != wraps {
				t.Errorf("it left something behind: state %d, before %d (%v)", k.Set.State().Seq, before, err)
			}
			for _, what := range tc.back {
				on(tc.at, what)
			}
		})
	}
}
