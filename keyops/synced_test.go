package keyops_test

import (
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/synchronization"
)

// synced is two Regions, of which Tokyo is the replica instance of Paris for all keys, with
// one key that both have.
type synced struct {
	two
	id  string
	key arn.KeyID
}

func newSynced(t *testing.T) synced { return newSyncedAt(t, nil) }

func newSyncedAt(t *testing.T, clock func() time.Time) synced {
	t.Helper()
	w := synced{two: guarded(t, clock)}
	w.id = synchronizationIn(t, w.paris)
	if err := associate(w.paris, t, w.id, "ap-tokyo-1"); err != nil {
		t.Fatal(explain(err))
	}
	w.key = w.supply(t)
	return w
}

// supply makes a key, and waits until Tokyo has it.
func (w synced) supply(t *testing.T) arn.KeyID {
	t.Helper()
	id := create(t, w.paris, keyops.CreateKeyInput{MultiRegion: true}).KeyID
	if err := w.paris.Synchronize(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.sync(t, id)
	return id
}

func (w synced) input(a keyops.Approvals) keyops.DisassociateReplicaInstanceInput {
	return keyops.DisassociateReplicaInstanceInput{
		SynchronizationID: w.id, ReplicaInstance: "ap-tokyo-1", ConfirmInstanceID: string(w.tokyo.Descriptor.Instance), Approvals: a,
	}
}

// approvals returns those of Tokyo's operators.
func (w synced) approvals(t *testing.T, n int) keyops.Approvals {
	t.Helper()
	out, err := w.paris.DisassociateReplicaInstance(t.Context(), admin(), w.input(keyops.Approvals{Request: true}))
	if err != nil {
		t.Fatal(explain(err))
	}
	return keyops.Approvals{Files: approved(t, w.tokyo, requestIn(t, out.ApprovalRequest), n)}
}

// deletion returns the approvals of Tokyo's operators for the deletion of a key in a week.
func (w synced) deletion(t *testing.T, id arn.KeyID) keyops.Approvals {
	t.Helper()
	in := keyops.ScheduleKeyDeletionInput{KeyID: string(id), PendingWindowInDays: 7, Approvals: keyops.Approvals{Request: true}}
	out, err := w.tokyo.ScheduleKeyDeletion(t.Context(), admin(), in)
	if err != nil {
		t.Fatal(explain(err))
	}
	return keyops.Approvals{Files: approved(t, w.tokyo, requestIn(t, out.ApprovalRequest), 2)}
}

func (w synced) end(t *testing.T) {
	t.Helper()
	if _, err := w.paris.DisassociateReplicaInstance(t.Context(), admin(), w.input(w.approvals(t, 2))); err != nil {
		t.Fatal(explain(err))
	}
}

// stages returns the stage of the association by the word of each end.
func (w synced) stages(t *testing.T) (paris, tokyo synchronization.Stage) {
	t.Helper()
	var got []synchronization.Stage
	for _, r := range []*keyopstest.Region{w.paris, w.tokyo} {
		out, err := r.GetSynchronization(t.Context(), admin(), keyops.GetSynchronizationInput{SynchronizationID: w.id})
		if err != nil {
			t.Fatal(explain(err))
		}
		if n := len(out.Synchronization.Replicas); n != 1 {
			t.Fatalf("%d replica instances", n)
		}
		got = append(got, out.Synchronization.Replicas[0].Stage)
	}
	return got[0], got[1]
}

// transportObjects counts the transport keys in a Region's token.
func transportObjects(r *keyopstest.Region) int {
	n := 0
	for _, o := range r.Token.Objects() {
		if o.Spec.Role == hsm.RoleTransportSource || o.Spec.Role == hsm.RoleTransportDestination {
			n++
		}
	}
	return n
}
