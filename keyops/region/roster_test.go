package region_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// TestRosters keeps the changes of a roster, and takes none back.
func TestRosters(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	var keys []crypto.Signer
	var people []approval.Operator
	for _, name := range []string{"a", "b", "c", "d"} {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		keys, people = append(keys, k), append(people, approval.Operator{Name: name, Key: der})
	}
	of := region.Descriptor{Region: "eu-paris-1", Instance: "kfi-0123456789ab", Operators: approval.Roster{Threshold: 2, Operators: people[:3]}}
	change := func(from approval.Roster, operators ...approval.Operator) (approval.Change, approval.Roster) {
		t.Helper()
		next := approval.Roster{Version: from.Version + 1, Threshold: 2, Operators: operators}
		q := from.RequestChange(string(of.Region), string(of.Instance), next, approval.NewSerial(), now)
		var files []statement.File
		for _, k := range keys {
			f, err := approval.Sign(t.Context(), k, q)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		c, err := from.NewChange(string(of.Region), string(of.Instance), next, now.Add(-time.Hour), files)
		if err != nil {
			t.Fatal(err)
		}
		return c, next
	}
	one, second := change(of.Operators, people[1:4]...)
	two, _ := change(second, people[:2]...)
	fork, _ := change(of.Operators, people[:2]...)

	dir := region.Dir(t.TempDir())
	for i, step := range []struct {
		changes []approval.Change
		want    error
		version uint64 // known afterwards
	}{
		{nil, nil, 0},
		{[]approval.Change{two}, approval.ErrRoster, 0},
		{[]approval.Change{one}, nil, 1},
		{[]approval.Change{one}, nil, 1}, // heard again
		{nil, region.ErrOlderRoster, 1},
		{[]approval.Change{fork}, region.ErrRosterFork, 1},
		{[]approval.Change{one, two}, nil, 2},
		{[]approval.Change{one}, region.ErrOlderRoster, 2},
	} {
		if _, err := dir.KeepRosters(of, step.changes); !errors.Is(err, step.want) {
			t.Errorf("step %d: got %v, want %v", i, err, step.want)
		}
		if r, changes, err := dir.LoadRosters(of); err != nil || r.Version != step.version || len(changes) != int(step.version) {
			t.Errorf("step %d: version %d after %d changes, %v; want %d", i, r.Version, len(changes), err, step.version)
		}
	}
	other := of
	other.Instance = "kfi-ba9876543210"
	if r, _, err := dir.LoadRosters(other); err != nil || r.Version != 0 {
		t.Errorf("another instance has version %d, %v", r.Version, err)
	}
	if err := os.Remove(filepath.Join(string(dir), "rosters", "eu-paris-1@kfi-0123456789ab", "1.json")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := dir.LoadRosters(of); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("with a change missing in between: %v", err)
	}
}
