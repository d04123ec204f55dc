package replication_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/synchronization"
	"github.com/keyferry/keyferry/replication"
)

// resource returns the view's row of a key in one Region.
func (s *site) resource(id synchronization.ID, key arn.KeyID, of *site) keyops.SynchronizedResource {
	s.t.Helper()
	out, err := s.region.ListReplicaResources(context.Background(), keyopstest.Admin(), keyops.ListReplicaResourcesInput{
		SynchronizationID: string(id), ReplicaInstance: string(of.name()), Filter: keyops.ResourceFilter{ResourceID: string(key)},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if len(out.Resources) != 1 {
		return keyops.SynchronizedResource{}
	}
	return out.Resources[0]
}

// An association over the peers' connection: keys from before and from after it arrive and
// work, in a Region that was dark as well once it is back, and the primary instance's worker
// asks for them by itself.
func TestSynchronizationOfAnInstance(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	a, b, c := sites[0], sites[1], sites[2]
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { a.region.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done })
	before := a.createSymmetric()
	made, err := a.region.CreateSynchronization(ctx, keyopstest.Admin(), keyops.CreateSynchronizationInput{})
	if err != nil {
		t.Fatal(err)
	}
	id := made.Synchronization.ID
	associate := func(with *site) error {
		_, err := a.region.AssociateReplicaInstance(ctx, keyopstest.Admin(), keyops.AssociateReplicaInstanceInput{
			SynchronizationID: string(id), ReplicaInstance: string(with.region.Descriptor.Instance), SynchronizationType: synchronization.AllResources,
		})
		return err
	}
	for _, s := range []*site{b, c} {
		if err := associate(s); err != nil {
			t.Fatal(err)
		}
	}
	a.synchronized(before, b, c)
	c.stop()
	after := a.createSymmetric()
	a.synchronized(after, b)
	encryptHereDecryptThere(t, after, a, b)
	eventually(t, "the dark Region's row", func() (bool, string) {
		row := a.resource(id, after, c)
		return row.Status == "PENDING" && row.FailureCause == "PEER_UNREACHABLE", fmt.Sprintf("%+v", row)
	})
	if row := a.resource(id, after, b); row.Status != "SYNCHRONIZED" || row.FailureCause != "" {
		t.Errorf("the other Region's row: %+v", row)
	}
	if err := associate(c); !errors.Is(err, keyops.ErrAlreadyExists) {
		t.Errorf("associated twice: %v", err)
	}
	c.start()
	a.synchronized(after, b, c)
	encryptHereDecryptThere(t, after, c, b)
	eventually(t, "the row of the Region that is back", func() (bool, string) {
		row := a.resource(id, after, c)
		return row.Status == "SYNCHRONIZED" && row.FailureCause == "", fmt.Sprintf("%+v", row)
	})
	a.noAlarms()
}

// A replica instance that dies before it has written its role down is asked again.
func TestAssociationIsFinished(t *testing.T) {
	sites := prepare(t, paris, east)
	a, b := sites[0], sites[1]
	forgetful := &oneFailure{}
	b.keys = func(k replication.Keys) replication.Keys { forgetful.Keys = k; return forgetful }
	a.start()
	b.start()
	eventually(t, "connected", func() (bool, string) {
		row := a.repl.Peers()[0]
		return !row.Connected.IsZero(), row.LastError
	})
	made, err := a.region.CreateSynchronization(t.Context(), keyopstest.Admin(), keyops.CreateSynchronizationInput{})
	if err != nil {
		t.Fatal(err)
	}
	get := func(s *site) synchronization.Stage {
		t.Helper()
		out, err := s.region.GetSynchronization(t.Context(), keyopstest.Admin(), keyops.GetSynchronizationInput{SynchronizationID: string(made.Synchronization.ID)})
		if err != nil || len(out.Synchronization.Replicas) == 0 {
			return ""
		}
		return out.Synchronization.Replicas[0].Stage
	}
	_, err = a.region.AssociateReplicaInstance(t.Context(), keyopstest.Admin(), keyops.AssociateReplicaInstanceInput{
		SynchronizationID: string(made.Synchronization.ID), ReplicaInstance: string(east), SynchronizationType: synchronization.AllResources,
	})
	if err != nil || get(a) != synchronization.Asking || get(b) != "" {
		t.Errorf("%v; here %q, there %q", err, get(a), get(b))
	}
	a.restart() // what is still to be done is in the store
	eventually(t, "associated", func() (bool, string) {
		if err := a.region.Synchronize(context.Background()); err != nil {
			t.Fatal(err)
		}
		return get(a) == synchronization.Associated && get(b) == synchronization.Associated, string(get(a))
	})
}

// oneFailure fails the first time that an association is to be written down.
type oneFailure struct {
	replication.Keys
	failed bool
}

func (o *oneFailure) Associate(ctx context.Context, claim keyops.AssociationClaim) error {
	if claim.Commit && !o.failed {
		o.failed = true
		return errors.New("the disk is full")
	}
	return o.Keys.Associate(ctx, claim)
}
