package approval_test

import (
	"crypto"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/wire"
)

const (
	chainRegion   = "eu-paris-1"
	chainInstance = "kfi-0123456789ab"
)

// change makes the change from one roster to the next, approved by keys.
func change(t *testing.T, from, to approval.Roster, keys ...crypto.Signer) (approval.Change, error) {
	t.Helper()
	q := from.RequestChange(chainRegion, chainInstance, to, approval.NewSerial(), now.Add(time.Hour))
	var files []statement.File
	for _, k := range keys {
		files = append(files, mustSign(t, k, q))
	}
	return from.NewChange(chainRegion, chainInstance, to, now, files)
}

func mustChange(t *testing.T, from, to approval.Roster, keys ...crypto.Signer) approval.Change {
	t.Helper()
	c, err := change(t, from, to, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRosterChain(t *testing.T) {
	k, ops := people(t, 6)
	first := approval.Roster{Threshold: 2, Operators: ops[:3]}
	second := approval.Roster{Version: 1, Threshold: 2, Operators: ops[1:4]} // a leaves, d comes
	third := approval.Roster{Version: 2, Threshold: 2, Operators: ops[3:6]}  // b and c leave, e and f come
	one := mustChange(t, first, second, k[1], k[2])
	two := mustChange(t, second, third, k[1], k[2], k[3], k[4])

	got, err := first.Follow(chainRegion, chainInstance, one, two)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(third, got); diff != "" {
		t.Errorf("the newest roster (-want +got):\n%s", diff)
	}
	if got, err := first.Follow(chainRegion, chainInstance); err != nil || got.Version != 0 {
		t.Errorf("no change: %v, %v", got, err)
	}
	// Who has left approves nothing, and what was approved under a roster ends with it.
	q := requestFor(third)
	if err := third.Check(q, now, []statement.File{mustSign(t, k[0], q), mustSign(t, k[1], q), mustSign(t, k[3], q)}); !errors.Is(err, approval.ErrNotEnough) {
		t.Errorf("approvals of operators who left: %v", err)
	}

	var w wire.Writer
	approval.Roster{Version: 1, Threshold: 1, Operators: ops[:2]}.Append(&w)
	forged := one
	forged.Roster = two.Roster
	for name, c := range map[string]struct {
		region, instance string
		changes          []approval.Change
	}{
		"one left out":          {chainRegion, chainInstance, []approval.Change{two}},
		"one twice":             {chainRegion, chainInstance, []approval.Change{one, one}},
		"in another order":      {chainRegion, chainInstance, []approval.Change{two, one}},
		"another instance's":    {chainRegion, "kfi-ba9876543210", []approval.Change{one}},
		"another Region's":      {"us-east-1", chainInstance, []approval.Change{one}},
		"no approvals":          {chainRegion, chainInstance, []approval.Change{{Roster: one.Roster}}},
		"another roster in it":  {chainRegion, chainInstance, []approval.Change{forged}},
		"half is enough in it":  {chainRegion, chainInstance, []approval.Change{{Roster: w.Out(), Approvals: one.Approvals}}},
		"one byte short":        {chainRegion, chainInstance, []approval.Change{{Roster: one.Roster[:len(one.Roster)-1], Approvals: one.Approvals}}},
		"one approval too few":  {chainRegion, chainInstance, []approval.Change{{Roster: one.Roster, Approvals: one.Approvals[:1]}}},
		"one approval repeated": {chainRegion, chainInstance, []approval.Change{{Roster: one.Roster, Approvals: []statement.File{one.Approvals[0], one.Approvals[0]}}}},
	} {
		if got, err := first.Follow(c.region, c.instance, c.changes...); !errors.Is(err, approval.ErrRoster) {
			t.Errorf("%s: got %v, %v, want ErrRoster", name, got, err)
		}
	}
}

func TestWhoChangesARoster(t *testing.T) {
	k, ops := people(t, 6)
	from := approval.Roster{Threshold: 2, Operators: ops[:3]}
	for name, c := range map[string]struct {
		to   approval.Roster
		keys []crypto.Signer
		ok   bool
	}{
		"both quorums":               {approval.Roster{Version: 1, Threshold: 2, Operators: ops[2:5]}, k[:4], true},
		"only those who hand over":   {approval.Roster{Version: 1, Threshold: 2, Operators: ops[2:5]}, k[:3], false},
		"only those who take over":   {approval.Roster{Version: 1, Threshold: 2, Operators: ops[2:5]}, k[2:5], false},
		"a version further":          {approval.Roster{Version: 2, Threshold: 2, Operators: ops[:3]}, k[:3], false},
		"the same version":           {approval.Roster{Version: 0, Threshold: 2, Operators: ops[:3]}, k[:3], false},
		"where half would be enough": {approval.Roster{Version: 1, Threshold: 2, Operators: ops[:4]}, k[:4], false},
		"nobody":                     {approval.Roster{Version: 1, Threshold: 2, Operators: ops[:3]}, nil, false},
	} {
		if _, err := change(t, from, c.to, c.keys...); (err == nil) != c.ok {
			t.Errorf("%s: %v, want ok %v", name, err, c.ok)
		}
	}
	// Once made, a change holds for ever; but it is made in its time only.
	to := approval.Roster{Version: 1, Threshold: 2, Operators: ops[:3]}
	q := from.RequestChange(chainRegion, chainInstance, to, approval.NewSerial(), now)
	files := []statement.File{mustSign(t, k[0], q), mustSign(t, k[1], q)}
	if _, err := from.NewChange(chainRegion, chainInstance, to, now, files); !errors.Is(err, approval.ErrExpired) {
		t.Errorf("after its expiry: %v", err)
	}
}
