package replication_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/replication"
)

// newer is the way to a peer that is one release behind: what it is told of keys is of a kind
// that it does not know.
type newer struct {
	replication.Link
	from   *site
	behind *atomic.Bool
}

func (l newer) Exchange(ctx context.Context, message []byte) ([]byte, error) {
	if l.behind.Load() {
		var err error
		if message, err = l.from.repl.Rename(ctx, l.from.region.Signer(), message, "facts", "facts-of-the-next-release"); err != nil {
			return nil, err
		}
	}
	return l.Link.Exchange(ctx, message)
}

// TestPeerOneReleaseBehind: what a peer does not understand is kept and said again until it
// does, also over a restart, and nobody calls a second time.
func TestPeerOneReleaseBehind(t *testing.T) {
	var behind atomic.Bool
	behind.Store(true)
	sites := prepare(t, paris, east)
	sites[0].links = func(to region.Name, l replication.Link) replication.Link { return newer{l, sites[0], &behind} }
	for _, s := range sites {
		s.start()
	}
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	held := func() uint64 {
		t.Helper()
		deadline := time.Now().Add(60 * time.Second)
		for {
			m, ok := sites[0].region.Mark(id, east)
			if !ok {
				t.Fatal("what the peer has not understood was dropped")
			}
			if m.Cause == mrk.CauseMechanismUnsupported && m.Attempts > 1 {
				return m.Attempts
			}
			if time.Now().After(deadline) {
				t.Fatalf("the mark is %+v", m)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	before := held()
	if row := sites[0].status(id, sites[1]); row.Status != replication.StatusFailed || row.Cause != string(mrk.CauseMechanismUnsupported) {
		t.Errorf("shown as %+v", row)
	}
	if n := sites[1].repl.Unsupported(paris)["facts-of-the-next-release"]; n == 0 {
		t.Error("the peer has not noted what it does not understand")
	}
	sites[0].restart()
	if after := held(); after < before {
		t.Errorf("%d tries after the restart, %d before", after, before)
	}
	behind.Store(false) // it is upgraded
	sites[0].synchronized(id, sites[1])
	encryptHereDecryptThere(t, id, sites[0], sites[1])
}
