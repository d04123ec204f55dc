package synchronization_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/synchronization"
)

func instance(n int) region.InstanceID { return region.InstanceID(fmt.Sprintf("kfi-%012x", n)) }

func association(n int, of synchronization.Type, selected ...string) synchronization.Association {
	return synchronization.Association{
		Region: region.Name(fmt.Sprintf("eu-paris-%d", n)), Instance: instance(n), Type: of, Selected: selected,
		Principal: "arn:aws:iam::111122223333:user/admin", CorrelationID: "c", Created: time.Unix(int64(n), 0).UTC(), Stage: synchronization.Asking,
	}
}

func resources(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%06d", i)
	}
	return list
}

func sample(t *testing.T) *synchronization.Synchronization {
	t.Helper()
	s := &synchronization.Synchronization{
		ID: "sync-0123456789ab", Account: "111122223333", Principal: "arn:aws:iam::111122223333:user/admin", Created: time.Unix(5, 0).UTC(),
	}
	if err := errors.Join(s.Associate(association(1, synchronization.AllResources)), s.Associate(association(2, synchronization.SelectedResources, "b", "a", "b"))); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRules(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(*synchronization.Synchronization) error
		want error
	}{
		{"same instance", func(s *synchronization.Synchronization) error {
			a := association(1, synchronization.AllResources)
			a.Region = "eu-oslo-1"
			return s.Associate(a)
		}, synchronization.ErrAssociated},
		{"same Region", func(s *synchronization.Synchronization) error {
			a := association(1, synchronization.AllResources)
			a.Instance = instance(9)
			return s.Associate(a)
		}, synchronization.ErrAssociated},
		{"third", func(s *synchronization.Synchronization) error {
			return s.Associate(association(3, synchronization.AllResources))
		}, nil},
		{"fourth", func(s *synchronization.Synchronization) error {
			return errors.Join(s.Associate(association(3, synchronization.AllResources)), s.Associate(association(4, synchronization.AllResources)))
		}, synchronization.ErrFull},
		{"as many as can be selected", func(s *synchronization.Synchronization) error {
			return s.Associate(association(3, synchronization.SelectedResources, resources(synchronization.MaxSelected)...))
		}, nil},
		{"one more", func(s *synchronization.Synchronization) error {
			return s.Associate(association(3, synchronization.SelectedResources, resources(synchronization.MaxSelected+1)...))
		}, synchronization.ErrTooMany},
		{"narrower", func(s *synchronization.Synchronization) error {
			return s.Widen(instance(1), synchronization.SelectedResources, nil)
		}, synchronization.ErrNarrower},
		{"wider", func(s *synchronization.Synchronization) error {
			return s.Widen(instance(2), synchronization.AllResources, nil)
		}, nil},
		{"unknown", func(s *synchronization.Synchronization) error { return s.Widen(instance(3), "", nil) }, synchronization.ErrUnknown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := sample(t)
			before := s.Encode()
			if err := tc.do(s.Clone()); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
			if !bytes.Equal(before, s.Encode()) {
				t.Error("a clone shares what is changed")
			}
		})
	}
}

func TestCovers(t *testing.T) {
	s := sample(t)
	if err := s.Widen(instance(2), "", []string{"c"}); err != nil {
		t.Fatal(err)
	}
	for resource, want := range map[string]bool{"a": true, "b": true, "c": true, "d": false} {
		if got := s.Find(instance(2)).Covers(resource); got != want {
			t.Errorf("%s: %v", resource, got)
		}
		if !s.Find(instance(1)).Covers(resource) {
			t.Errorf("all resources without %s", resource)
		}
	}
}

func TestEncoding(t *testing.T) {
	s := sample(t)
	got, err := synchronization.Decode(s.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, got); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
	role := synchronization.Role{ID: s.ID, Account: s.Account, PrimaryRegion: "eu-paris-1", PrimaryInstance: instance(1), Principal: s.Principal, Since: s.Created}
	again, err := synchronization.DecodeRole(role.Encode())
	if err != nil || again != role {
		t.Errorf("%+v, %v", again, err)
	}
	unsorted := s.Clone()
	unsorted.Associations[1].Selected = []string{"b", "a"}
	all := s.Clone()
	all.Associations[0].Selected = []string{"a"}
	stage := s.Clone()
	stage.Associations[0].Stage = "DONE"
	for name, body := range map[string][]byte{
		"cut": s.Encode()[:40], "longer": append(s.Encode(), 0), "empty": nil,
		"unsorted": unsorted.Encode(), "all and a list": all.Encode(), "stage": stage.Encode(), "role": role.Encode(),
	} {
		if _, err := synchronization.Decode(body); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := synchronization.DecodeRole(s.Encode()); err == nil {
		t.Error("a synchronization read as a role")
	}
}

func TestID(t *testing.T) {
	if _, err := synchronization.ParseID(string(synchronization.NewID())); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "sync-", "sync-0123456789a", "sync-0123456789abc", "sync-0123456789AB", "kfi-0123456789ab"} {
		if _, err := synchronization.ParseID(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}
