package replication_test

import (
	"context"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/replication"
)

// dying is a Region that takes over what peers say and never gets to what follows from it,
// as if it were killed in between.
type dying struct {
	replication.Keys
	reached chan struct{}
}

func (d dying) UpdateShared(ctx context.Context, id arn.KeyID, cause keyops.Cause, fn func(*keyops.Key) error) error {
	if cause.Peer != "" { // the facts of a peer
		return d.Keys.UpdateShared(ctx, id, cause, fn)
	}
	select {
	case d.reached <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestKilledBetweenHearingAndActing(t *testing.T) {
	sites := prepare(t, paris, east)
	reached := make(chan struct{}, 1)
	sites[0].keys = func(k replication.Keys) replication.Keys { return dying{k, reached} }
	for _, s := range sites {
		s.config = func(c *replication.Config) { c.ExchangeTimeout = time.Second } // Close waits for what never ends
		s.start()
	}
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	<-reached
	if got := sites[0].status(id, sites[1]).Status; got == replication.StatusSynchronized {
		t.Fatalf("status %s before the member was made active", got)
	}
	sites[0].keys = nil
	sites[0].restart()
	sites[0].synchronized(id, sites[1])
}
