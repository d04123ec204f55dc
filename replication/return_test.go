package replication_test

import (
	"testing"
	"time"

	"github.com/keyferry/keyferry/replication"
)

// TestPeerThatSpeaksIsReachedAtOnce: when a peer was away for long the next try is far off,
// but its own first message says that it is back.
func TestPeerThatSpeaksIsReachedAtOnce(t *testing.T) {
	sites := prepare(t, paris, east)
	for _, s := range sites {
		s.config = func(c *replication.Config) { c.RetryMin, c.RetryMax = time.Minute, time.Minute }
	}
	sites[0].start()
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	eventually(t, "the peer is missed", func() (bool, string) {
		row := sites[0].status(id, sites[1])
		return row.Status == replication.StatusFailed, row.Status
	})
	sites[1].start()
	sites[0].synchronized(id, sites[1])
}
