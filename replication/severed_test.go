package replication_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/synchronization"
	"github.com/keyferry/keyferry/replication"
)

// supply makes one site the replica instance of another for all keys, with one key that both
// have.
func supply(t *testing.T, a, b *site) (synchronization.ID, arn.KeyID) {
	t.Helper()
	made, err := a.region.CreateSynchronization(t.Context(), keyopstest.Admin(), keyops.CreateSynchronizationInput{})
	if err != nil {
		t.Fatal(err)
	}
	id := made.Synchronization.ID
	eventually(t, "associated", func() (bool, string) {
		_, err := a.region.AssociateReplicaInstance(t.Context(), keyopstest.Admin(), keyops.AssociateReplicaInstanceInput{
			SynchronizationID: string(id), ReplicaInstance: string(b.name()), SynchronizationType: synchronization.AllResources,
		})
		return err == nil || errors.Is(err, keyops.ErrAlreadyExists), fmt.Sprint(err)
	})
	key := a.createSymmetric()
	eventually(t, "supplied", func() (bool, string) { // an answer that came late is asked for again
		a.minute()
		row := a.resource(id, key, b)
		return row.Status == "SYNCHRONIZED", fmt.Sprintf("%+v", row)
	})
	a.synchronized(key, b)
	return id, key
}

// minute does what is due in a site's synchronization, as its worker does each minute.
func (s *site) minute() {
	s.t.Helper()
	if err := s.region.Synchronize(context.Background()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) disassociate(id synchronization.ID, b *site) error {
	_, err := s.region.DisassociateReplicaInstance(context.Background(), keyopstest.Admin(), keyops.DisassociateReplicaInstanceInput{
		SynchronizationID: string(id), ReplicaInstance: string(b.name()), ConfirmInstanceID: string(b.region.Descriptor.Instance),
	})
	return err
}

// severed waits until sites know that a pair is severed and accepted; the first is the primary
// instance.
func severed(t *testing.T, sites ...*site) {
	t.Helper()
	for _, s := range sites {
		eventually(t, string(s.name())+" knows that the pair is severed", func() (bool, string) {
			sites[0].minute()
			list := s.region.Severed()
			return len(list) == 1 && list[0].Frozen(), fmt.Sprintf("%+v", list)
		})
	}
}

// A severed pair is known to every Region. The replica instance stays a peer, keeps the key
// that it has and hears of its state, and gets no material of it any more.
func TestSeveredPairOverReplication(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	a, b, c := sites[0], sites[1], sites[2]
	id, key := supply(t, a, b)
	a.mustReplicate(key, c)
	a.synchronized(key, b, c)
	own := c.createSymmetric() // of a third Region, which has nothing to do with it
	c.mustReplicate(own, b)
	c.synchronized(own, b)

	if err := a.disassociate(id, b); err != nil {
		t.Fatal(err)
	}
	severed(t, a, b, c)
	a.minute()
	b.minute()
	for _, s := range []*site{a, b, c} { // what is still to be told is in the store
		s.restart()
	}
	severed(t, a, b, c)
	if err := a.replicate(key, b); !errors.Is(err, keyops.ErrReplicaFrozen) {
		t.Errorf("replicated to a severed instance: %v", err)
	}
	eventually(t, "another Region's replica is refused", func() (bool, string) { // once it answers in time
		err := c.replicate(c.createSymmetric(), b)
		return err != nil && strings.Contains(err.Error(), "REPLICA_FROZEN"), fmt.Sprint(err)
	})

	// The key goes on without it.
	encryptHereDecryptThere(t, key, b, a)
	if _, err := a.region.RotateKeyOnDemand(t.Context(), keyopstest.Admin(), keyops.RotateKeyOnDemandInput{KeyID: string(key)}); err != nil {
		t.Fatal(err)
	}
	a.synchronized(key, c)
	eventually(t, "the rotation", func() (bool, string) {
		k, err := a.region.SharedKey(key)
		return err == nil && k.Set.Pending().IsZero(), fmt.Sprint(err)
	})
	encryptHereDecryptThere(t, key, b, a)
	encryptHereDecryptThere(t, key, a, c)
	k, err := b.region.SharedKey(key)
	if err != nil || len(k.Held()) != 1 || k.State != "Enabled" {
		t.Errorf("the retained key is %s and holds %d materials: %v", k.State, len(k.Held()), err)
	}
	for _, s := range []*site{a, b} {
		other := map[*site]*site{a: b, b: a}[s]
		for _, o := range s.region.Token.Objects() {
			if o.Spec.Role == hsm.RoleTransportSource || o.Spec.Role == hsm.RoleTransportDestination {
				if strings.Contains(o.Spec.Name, string(other.name())) {
					t.Errorf("%s still has transport key %s", s.name(), o.Spec.Name)
				}
			}
		}
	}
	// A third Region's key, too, is not handed over to it, but goes on being supplied.
	if _, err := c.region.RotateKeyOnDemand(t.Context(), keyopstest.Admin(), keyops.RotateKeyOnDemandInput{KeyID: string(own)}); err != nil {
		t.Fatal(err)
	}
	c.synchronized(own, b)
	eventually(t, "a hand-over to it is refused", func() (bool, string) {
		_, err := c.region.UpdatePrimaryRegion(t.Context(), keyopstest.Admin(), keyops.UpdatePrimaryRegionInput{KeyID: string(own), PrimaryRegion: string(east)})
		return err != nil && strings.Contains(err.Error(), "REPLICA_FROZEN"), fmt.Sprint(err)
	})
}

// The replica instance is dark: its memberships end, nothing waits for it, and it is frozen
// when it is back, by whoever has heard of it first.
func TestSeveredWhileDark(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	a, b, c := sites[0], sites[1], sites[2]
	id, key := supply(t, a, b)
	b.stop()
	eventually(t, "dark", func() (bool, string) { return !a.repl.Reachable(east), "reachable" })
	if err := a.disassociate(id, b); err != nil {
		t.Fatal(err)
	}
	if row := a.resource(id, key, b); row.Status != "PENDING" || row.FailureCause != "PEER_UNREACHABLE" {
		t.Errorf("the row of a dark instance: %+v", row)
	}
	eventually(t, "Tokyo knows", func() (bool, string) {
		list := c.region.Severed()
		return len(list) == 1 && !list[0].Frozen(), fmt.Sprintf("%+v", list)
	})
	a.stop() // and the primary instance before it can say so
	b.start()
	eventually(t, "the replica instance knows", func() (bool, string) {
		list := b.region.Severed()
		return len(list) == 1 && !list[0].Frozen(), fmt.Sprintf("%+v", list)
	})
	// On the primary instance's word alone it is not frozen.
	if _, err := b.region.CreateKey(t.Context(), keyopstest.Admin(), keyops.CreateKeyInput{}); err != nil {
		t.Errorf("before it has accepted: %v", err)
	}
	a.start()
	eventually(t, "frozen", func() (bool, string) {
		a.minute()
		list := b.region.Severed()
		return len(list) == 1 && list[0].Frozen(), fmt.Sprintf("%+v", list)
	})
	severed(t, a, b, c)
	if row := a.resource(id, key, b); row.Status != "SUSPENDED" || row.FailureCause != "REPLICA_FROZEN" {
		t.Errorf("the row of a frozen instance: %+v", row)
	}
	if _, err := b.region.CreateKey(t.Context(), keyopstest.Admin(), keyops.CreateKeyInput{}); !errors.Is(err, keyops.ErrReplicaFrozen) {
		t.Errorf("a new key in a frozen instance: %v", err)
	}
	encryptHereDecryptThere(t, key, b, a)
}

// The replica instance dies at each of its steps; once it is there again it is frozen all the same.
func TestDisassociationIsFinished(t *testing.T) {
	for _, dies := range []string{"before it has written it down", "before it has answered"} {
		t.Run(dies, func(t *testing.T) {
			sites := prepare(t, paris, east)
			a, b := sites[0], sites[1]
			broken := &mortal{at: dies}
			b.keys = func(k replication.Keys) replication.Keys { broken.Keys = k; return broken }
			a.start()
			b.start()
			id, _ := supply(t, a, b)
			if err := a.disassociate(id, b); err != nil {
				t.Fatal(err)
			}
			eventually(t, "died", func() (bool, string) {
				a.region.Synchronize(t.Context()) // whose error is the death
				return broken.died.Load(), "alive"
			})
			a.restart()
			b.restart()
			eventually(t, "finished", func() (bool, string) {
				a.minute()
				list := b.region.Severed()
				return len(list) == 1 && list[0].Frozen(), fmt.Sprintf("%+v", list)
			})
			severed(t, a, b)
		})
	}
}

// mortal fails once where a severance is carried out.
type mortal struct {
	replication.Keys
	at   string
	died atomic.Bool
}

var errMortal = errors.New("the disk is full")

func (m *mortal) Disassociate(ctx context.Context, claim keyops.DisassociationClaim) (s statement.Signed, err error) {
	if !claim.Commit() || m.died.Swap(true) {
		return m.Keys.Disassociate(ctx, claim)
	}
	if m.at == "before it has written it down" {
		return s, errMortal
	}
	if s, err = m.Keys.Disassociate(ctx, claim); err != nil {
		return s, err
	}
	return statement.Signed{}, errMortal // carried out, and the answer is lost
}

// Messages about severed pairs have one form, and nothing else is read as one.
func TestSeveredMessages(t *testing.T) {
	sites := deploy(t, paris, east)
	a, b := sites[0], sites[1]
	id, _ := supply(t, a, b)
	if err := a.disassociate(id, b); err != nil {
		t.Fatal(err)
	}
	severed(t, a, b)
	good := replication.MarshalSevered(a.region.Severed())
	if again, err := replication.ReadSevered(good); err != nil || !bytes.Equal(replication.MarshalSevered(again), good) {
		t.Errorf("read back: %v", err)
	}
	for name, b := range map[string][]byte{"cut": good[:len(good)-1], "longer": append(bytes.Clone(good), 0), "empty": nil, "noise": bytes.Repeat([]byte{0xff}, 40)} {
		if _, err := replication.ReadSevered(b); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	other := a.region.Severed()[0]
	other.Replica.Instance = "kfi-000000000000"
	other.Ended.Payload = other.Severance.Payload()
	other.Accepted.Payload = other.Ended.Payload
	if err := b.region.KeepSevered(t.Context(), []synchronization.Severed{other}); err == nil || len(b.region.Severed()) != 1 {
		t.Error("a severance was kept whose signatures are of another")
	}
}

// Two synchronizations name one key: the one whose primary instance has not the primary key
// replicates nothing, shows what others have brought there, and acts once the primary key has
// been handed over to it.
func TestTwoSynchronizationsOfOneKey(t *testing.T) {
	const oslo = "eu-oslo-1"
	sites := deploy(t, paris, east, tokyo, oslo)
	a, b, c, d := sites[0], sites[1], sites[2], sites[3]
	first, key := supply(t, a, c) // Paris supplies Tokyo
	a.mustReplicate(key, b)
	a.synchronized(key, b, c)
	made, err := b.region.CreateSynchronization(t.Context(), keyopstest.Admin(), keyops.CreateSynchronizationInput{})
	if err != nil {
		t.Fatal(err)
	}
	second := made.Synchronization.ID
	name := func(of *site) error { // the second selects the same key
		_, err := b.region.AssociateReplicaInstance(t.Context(), keyopstest.Admin(), keyops.AssociateReplicaInstanceInput{
			SynchronizationID: string(second), ReplicaInstance: string(of.name()), SynchronizationType: synchronization.SelectedResources, Resources: []string{string(key)},
		})
		return err
	}
	eventually(t, "an instance in two synchronizations is refused", func() (bool, string) {
		err := name(c)
		return errors.Is(err, keyops.ErrAlreadyExists), fmt.Sprint(err)
	})
	eventually(t, "associated", func() (bool, string) {
		err := name(d)
		return err == nil || errors.Is(err, keyops.ErrAlreadyExists), fmt.Sprint(err)
	})
	b.minute()
	if row := b.resource(second, key, d); row.Status != "FAILED" || row.FailureCause != "NOT_PRIMARY" {
		t.Errorf("a key whose primary key is elsewhere: %+v", row)
	}
	eventually(t, "the first synchronization", func() (bool, string) {
		row := a.resource(first, key, c)
		return row.Status == "SYNCHRONIZED", fmt.Sprintf("%+v", row)
	})
	offered := false
	eventually(t, "handed over", func() (bool, string) {
		if !offered { // until the other Region has answered in time
			_, err := a.region.UpdatePrimaryRegion(t.Context(), keyopstest.Admin(), keyops.UpdatePrimaryRegionInput{KeyID: string(key), PrimaryRegion: string(east)})
			if offered = err == nil; !offered {
				return false, err.Error()
			}
		}
		k, err := b.region.SharedKey(key)
		return err == nil && k.Set.Acting(), fmt.Sprint(err)
	})
	eventually(t, "the second synchronization", func() (bool, string) {
		b.minute()
		row := b.resource(second, key, d)
		return row.Status == "SYNCHRONIZED", fmt.Sprintf("%+v", row)
	})
	if err := a.disassociate(first, c); err != nil {
		t.Fatal(err)
	}
	// The key in Tokyo is the other primary Region's now, and is supplied by it.
	k, err := b.region.SharedKey(key)
	if err != nil || !k.Set.Entry(tokyo).Status.In() {
		t.Errorf("Tokyo is %s: %v", k.Set.Entry(tokyo).Status, err)
	}
	encryptHereDecryptThere(t, key, c, d)
}

// TestDisassociationByNewOperators: the newest operators of the replica instance's Region
// approve, of whom the primary instance has not heard. If they change while that Region is
// dark, those who approved do not count there, and the next ones approve again.
func TestDisassociationByNewOperators(t *testing.T) {
	sites := prepare(t, paris, east)
	a, b := sites[0], sites[1]
	for _, s := range sites {
		s.region.Options.Quorum = approval.Optional()
		s.start()
	}
	id, key := supply(t, a, b)
	e := electorateOf(b)
	change := func() {
		t.Helper()
		e.follow()
		if err := b.region.KeepRoster(t.Context(), e.of, e.changes); err != nil {
			t.Fatal(err)
		}
	}
	in := keyops.DisassociateReplicaInstanceInput{
		SynchronizationID: string(id), ReplicaInstance: string(east), ConfirmInstanceID: string(b.region.Descriptor.Instance),
	}
	call := func(a0 keyops.Approvals) (keyops.DisassociateReplicaInstanceOutput, error) {
		in.Approvals = a0
		return a.region.DisassociateReplicaInstance(context.Background(), keyopstest.Admin(), in)
	}
	approvedBy := func(version int) keyops.Approvals {
		t.Helper()
		var q approval.Request
		eventually(t, "a request to the newest operators", func() (bool, string) { // once they are shown in time
			out, err := call(keyops.Approvals{Request: true})
			if err != nil {
				t.Fatal(err)
			}
			q = approval.Request{}
			if err := statement.UnmarshalJSON(out.ApprovalRequest, &q); err != nil {
				t.Fatal(err)
			}
			return int(q.Roster) == len(e.changes), fmt.Sprintf("%d of %d", q.Roster, len(e.changes))
		})
		file, err := statement.MarshalJSON(e.sign(version, q))
		if err != nil {
			t.Fatal(err)
		}
		return keyops.Approvals{Files: [][]byte{file}}
	}
	change()
	if _, err := call(approvedBy(0)); !errors.Is(err, keyops.ErrAccessDenied) {
		t.Errorf("by an operator who was taken off: %v", err)
	}
	good := approvedBy(1)
	b.stop()
	eventually(t, "dark", func() (bool, string) { return !a.repl.Reachable(east), "reachable" })
	if _, err := call(good); err != nil {
		t.Fatal(err)
	}
	b.start()
	change()
	eventually(t, "refused", func() (bool, string) {
		err := a.region.Synchronize(t.Context())
		return err != nil && strings.Contains(err.Error(), "no operator's on the roster"), fmt.Sprint(err)
	})
	if row := a.resource(id, key, b); row.Status != "PENDING" || row.FailureCause != "ACCESS_DENIED" || !strings.Contains(row.FailureText, "not enough approvals") {
		t.Errorf("the row: %+v", row)
	}
	if list := b.region.Severed(); len(list) > 0 && list[0].Frozen() {
		t.Error("frozen by operators who do not count any more")
	}
	a.restart()
	b.restart()
	eventually(t, "again", func() (bool, string) { return a.repl.Reachable(east), "not reachable" })
	if _, err := call(approvedBy(2)); err != nil {
		t.Fatal(err)
	}
	severed(t, a, b)
}
