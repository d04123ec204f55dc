package replication_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/replication"
)

// electorate is the operators of a Region, each version being one other person.
type electorate struct {
	t       testing.TB
	of      region.Descriptor
	people  []crypto.Signer // of version 0, 1, ...
	rosters []approval.Roster
	changes []approval.Change
}

func electorateOf(s *site) *electorate {
	return &electorate{t: s.t, of: s.region.Descriptor.Descriptor, people: s.region.Operators[:1], rosters: []approval.Roster{s.region.Descriptor.Operators}}
}

// follow puts another person in the place of the operator.
func (e *electorate) follow() {
	e.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		e.t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		e.t.Fatal(err)
	}
	before := e.rosters[len(e.rosters)-1]
	next := approval.Roster{Version: before.Version + 1, Threshold: 1, Operators: []approval.Operator{{Name: "next", Key: der}}}
	q := before.RequestChange(string(e.of.Region), string(e.of.Instance), next, approval.NewSerial(), time.Now().Add(time.Hour).Truncate(time.Second).UTC())
	files := []statement.File{e.sign(len(e.people)-1, q)}
	f, err := approval.Sign(e.t.Context(), k, q)
	if err != nil {
		e.t.Fatal(err)
	}
	c, err := before.NewChange(string(e.of.Region), string(e.of.Instance), next, time.Now(), append(files, f))
	if err != nil {
		e.t.Fatal(err)
	}
	e.people, e.rosters, e.changes = append(e.people, k), append(e.rosters, next), append(e.changes, c)
}

func (e *electorate) sign(version int, q approval.Request) statement.File {
	e.t.Helper()
	f, err := approval.Sign(e.t.Context(), e.people[version], q)
	if err != nil {
		e.t.Fatal(err)
	}
	return f
}

// promote makes the site the primary key's Region, approved by the operators of one version
// at a time that may be long ago.
func (e *electorate) promote(s *site, id arn.KeyID, version int, at time.Time, dark ...region.Name) error {
	e.t.Helper()
	return s.region.UpdateShared(context.Background(), id, keyops.Cause{Event: "PromoteKey"}, func(k *keyops.Key) error {
		list, err := mrk.NewKeyList([]mrk.ListedKey{{Key: id, Head: k.Set.Head()}})
		if err != nil {
			return err
		}
		p := mrk.Promotion{
			Target: s.name(), Instance: e.of.Instance, Generation: k.Set.NextGeneration(), Suspend: dark,
			Keys: 1, Root: list.Root(), Roster: uint64(version), Serial: approval.NewSerial(), Expires: at.Add(time.Minute).Truncate(time.Second).UTC(),
		}
		proof, _ := list.Prove(id)
		_, err = k.Set.Promote(context.Background(), s.region.Signer(), mrk.Approved{
			Promotion: p, Proof: proof, Approvals: []statement.File{e.sign(version, p.Request())}, Roster: e.rosters[version], Now: at,
		}, s.repl.Contact(id))
		return err
	})
}

// primaryAt waits until a site knows who is primary.
func (s *site) primaryAt(id arn.KeyID, primary *site) {
	s.t.Helper()
	eventually(s.t, string(s.name())+" knows that "+string(primary.name())+" is primary", func() (bool, string) {
		k, err := s.region.SharedKey(id)
		if err != nil {
			return false, err.Error()
		}
		return k.Set.Primary() == primary.name(), k.Set.Epoch().String()
	})
}

// TestPromotionIsBelievedEverywhere: the primary Region is dark, another one is promoted by
// operators who have taken over since its descriptor was pinned. Everybody hears who they are
// from whoever knows, the old primary Region too, and long after the approvals have expired.
func TestPromotionIsBelievedEverywhere(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	a, b, c := sites[0], sites[1], sites[2]
	id := a.createSymmetric()
	a.mustReplicate(id, b, c)
	a.synchronized(id, b, c)

	e := electorateOf(b)
	e.follow()
	e.follow()
	e.follow()
	if err := b.region.KeepRoster(t.Context(), e.of, e.changes); err != nil {
		t.Fatal(err)
	}
	a.stop()
	if err := e.promote(b, id, 2, time.Now().Add(-24*365*time.Hour), paris); err != nil {
		t.Fatal(err)
	}
	c.primaryAt(id, b)
	// No more than who approved: a Region that knows a later roster would refuse what an
	// earlier one approved.
	if got := len(c.region.RosterChanges(e.of)); got != 2 {
		t.Errorf("tokyo knows %d changes of the roster, want the two that lead to who approved", got)
	}
	eventually(t, "tokyo is active", func() (bool, string) {
		row := b.status(id, c)
		return row.Status == replication.StatusSynchronized, string(row.Status)
	})
	b.stop() // tokyo alone is there when paris comes back
	a.start()
	a.primaryAt(id, b)
	if _, err := a.region.RotateKeyOnDemand(t.Context(), keyopstest.Admin(), keyops.RotateKeyOnDemandInput{KeyID: string(id)}); err == nil {
		t.Error("the old primary Region, which is fenced, rotates")
	}
	b.start()
	a.synchronized(id, b, c)
	c.restart() // and what was learned is not forgotten
	if got := len(c.region.RosterChanges(e.of)); got != 2 {
		t.Errorf("after a start tokyo knows %d changes", got)
	}
}

// TestOperatorsWhoWereTakenOff: what they approve is believed nowhere where their
// successors are known.
func TestOperatorsWhoWereTakenOff(t *testing.T) {
	sites := deploy(t, paris, east)
	a, b := sites[0], sites[1]
	id := a.createSymmetric()
	a.mustReplicate(id, b)
	a.synchronized(id, b)
	e := electorateOf(b)
	e.follow()
	if err := a.region.KeepRoster(t.Context(), e.of, e.changes); err != nil {
		t.Fatal(err)
	}
	if err := e.promote(b, id, 0, time.Now()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "paris refuses the promotion", func() (bool, string) {
		row := b.status(id, a)
		return row.Status == replication.StatusFailed && row.Cause == string(mrk.CauseSignatureInvalid), row.Status + row.Cause
	})
	k, err := a.region.SharedKey(id)
	if err != nil || !k.Set.Acting() {
		t.Fatalf("paris gave way to operators who were taken off (%v)", err)
	}
	// The remedy is to approve again.
	if err := b.region.KeepRoster(t.Context(), e.of, e.changes); err != nil {
		t.Fatal(err)
	}
	b.region.UpdateShared(t.Context(), id, keyops.Cause{}, func(k *keyops.Key) error { k.Set.DropPermit(); return nil })
	if err := e.promote(b, id, 1, time.Now()); err != nil {
		t.Fatal(err)
	}
	a.primaryAt(id, b)
}

// TestForgedRosters: a peer that shows changes which do not follow changes nothing.
func TestForgedRosters(t *testing.T) {
	sites := deploy(t, paris, east)
	a, b := sites[0], sites[1]
	e := electorateOf(b)
	e.follow()
	e.follow()
	other := electorateOf(b)
	other.follow()
	stranger := electorateOf(a)
	stranger.follow()
	tests := []struct {
		name    string
		of      *site
		from    uint64
		changes []approval.Change
		known   int // afterwards
		alarm   bool
	}{
		{"not approved by the roster before", b, 0, e.changes[1:], 0, false},
		{"approved by the operators of another Region", b, 0, stranger.changes, 0, false},
		{"after versions that are not known", b, 1, e.changes[1:], 0, false},
		{"as it should be", b, 0, e.changes[:1], 1, false},
		{"again", b, 0, e.changes[:1], 1, false},
		{"another one of the same version", b, 0, other.changes, 1, true},
		{"the next", b, 1, e.changes[1:], 2, false},
		{"fewer", b, 0, e.changes[:1], 2, false},
	}
	for _, tt := range tests {
		alarms := len(a.alarms())
		body := replication.RostersBody(tt.of.region.Descriptor.Descriptor, tt.from, tt.from+uint64(len(tt.changes)), tt.changes...)
		m, err := b.repl.Forge(t.Context(), b.region.Signer(), paris, "rosters", body, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.repl.Send(t.Context(), paris, m); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := len(a.region.RosterChanges(tt.of.region.Descriptor.Descriptor)); got != tt.known {
			t.Errorf("%s: paris knows %d changes, want %d", tt.name, got, tt.known)
		}
		if got := len(a.alarms()) > alarms; got != tt.alarm {
			t.Errorf("%s: alarmed %v, want %v", tt.name, got, tt.alarm)
		}
	}
}

// TestKeepRosterHolds looks at the store: what was kept is there after a start, and a row
// that does not hold ends the chain.
func TestKeepRosterHolds(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{Name: paris})
	s := newSite(t, keyopstest.New(t, keyopstest.Options{Name: east}))
	e := electorateOf(s)
	e.follow()
	e.follow()
	if err := r.KeepRoster(t.Context(), e.of, e.changes); err != nil {
		t.Fatal(err)
	}
	r.Restart(t)
	for version, want := range map[uint64]bool{0: true, 1: true, 2: true, 3: false} {
		roster, newest, known := r.Roster(e.of, version)
		if known != want || newest != 2 || known && roster.Version != version {
			t.Errorf("version %d: got version %d of %d, known %v", version, roster.Version, newest, known)
		}
	}
	fork := electorateOf(s)
	fork.follow()
	if err := r.KeepRoster(t.Context(), e.of, fork.changes); !errors.Is(err, region.ErrRosterFork) {
		t.Errorf("another roster of version 1: %v", err)
	}
}
