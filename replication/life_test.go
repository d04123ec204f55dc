package replication_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/replication"
)

// Close leaves nothing running, be the peers up or down.
func TestCloseLeavesNoGoroutine(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	sites[2].repl.Close()
	sites[0].synchronized(id, sites[1])
	for _, s := range sites {
		s.repl.Close()
		s.repl.Close() // twice is no error
	}
	eventually(t, "all goroutines end", func() (bool, string) {
		buf := make([]byte, 1<<20)
		var left []string
		for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "keyferry/replication.") && !strings.Contains(g, "testing.tRunner") || strings.Contains(g, "google.golang.org/grpc") {
				left = append(left, g)
			}
		}
		return len(left) == 0, strings.Join(left, "\n")
	})
}

func TestBeforeStart(t *testing.T) {
	sites := prepare(t, paris, east)
	r, err := replication.New(replication.Config{
		Self: sites[0].region.Descriptor.Descriptor, Peers: sites[0].peers(), Listener: closedListener(t), Log: sites[0].log,
	})
	if err != nil {
		t.Fatal(err)
	}
	if d, ok := r.Peer(east); !ok || d.Instance != sites[1].region.Descriptor.Instance {
		t.Errorf("peer %+v, %v", d, ok)
	}
	if rows := r.Status("mrk-00112233445566778899aabbccddeeff"); rows != nil {
		t.Errorf("status before the start: %+v", rows)
	}
	if rows := r.Peers(); len(rows) != 1 || rows[0].Region != east || rows[0].Address != sites[1].address {
		t.Errorf("peers before the start: %+v", rows)
	}
	r.Close()
}

func TestConfigRefused(t *testing.T) {
	sites := prepare(t, paris, east)
	peers := sites[0].peers()
	other := peers[0]
	other.Descriptor.Partition = "aws-cn"
	self := peers[0]
	self.Descriptor = sites[0].region.Descriptor.Descriptor
	for name, list := range map[string][]replication.Peer{
		"a peer twice": {peers[0], peers[0]}, "this Region itself": {self}, "another partition": {other}, "no descriptor": {{}},
	} {
		_, err := replication.New(replication.Config{
			Self: sites[0].region.Descriptor.Descriptor, Peers: list, Listener: closedListener(t), Log: sites[0].log,
		})
		if err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := replication.New(replication.Config{Self: sites[0].region.Descriptor.Descriptor}); err == nil {
		t.Error("no listener was accepted")
	}
}

func TestPeers(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	sites[2].stop()
	eventually(t, "one peer is connected and one is not", func() (bool, string) {
		rows := sites[0].repl.Peers()
		ok := len(rows) == 2 && rows[0].Region == tokyo && rows[0].Connected.IsZero() && rows[0].LastError != "" &&
			rows[1].Region == east && !rows[1].Connected.IsZero() && rows[1].LastError == "" && !rows[1].LastExchange.IsZero() &&
			rows[1].Instance == sites[1].region.Descriptor.Instance && rows[1].Fingerprint == sites[1].region.Descriptor.Fingerprint()
		return ok, fmt.Sprintf("%+v", rows)
	})
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[2])
	if rows := sites[0].repl.Peers(); rows[0].Unconfirmed != 1 {
		t.Errorf("%d keys unconfirmed, want 1", rows[0].Unconfirmed)
	}
	if since := time.Since(sites[0].repl.LastContact(east)); since > time.Minute {
		t.Errorf("last contact %s ago", since)
	}
	if !sites[0].repl.LastContact("eu-nowhere-9").IsZero() {
		t.Error("contact with an unknown Region")
	}
}

// putStore gives a Region that is stopped another store.
func (s *site) putStore(store []byte) {
	s.t.Helper()
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(s.region.StorePath + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.region.StorePath, store, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// What a peer shows is kept, over a restart too, and a peer that comes back with an older
// store is noticed.
func TestWitness(t *testing.T) {
	sites := deploy(t, paris, east)
	ctx := context.Background()
	eventually(t, "Paris keeps what us-east-1 shows", func() (bool, string) {
		w, err := sites[0].region.Witness(ctx, east)
		return err == nil && w.Instance == sites[1].region.Descriptor.Instance && w.Checkpoint.Purpose == statement.Checkpoint, fmt.Sprint(err)
	})
	sites[1].stop()
	old, err := os.ReadFile(sites[1].region.StorePath)
	if err != nil {
		t.Fatal(err)
	}
	sites[1].start()
	id := sites[1].createSymmetric()
	sites[1].mustReplicate(id, sites[0])
	sites[1].synchronized(id, sites[0])
	for _, s := range sites {
		s.noAlarms()
	}
	sites[1].stop()
	sites[1].putStore(old)
	// With its audit log gone too, nothing at this Region knows better.
	if err := errors.Join(os.RemoveAll(sites[1].region.AuditDir), os.Mkdir(sites[1].region.AuditDir, 0o700)); err != nil {
		t.Fatal(err)
	}
	sites[1].start()
	eventually(t, "the rollback is noticed", func() (bool, string) {
		return strings.Contains(strings.Join(sites[0].alarms(), ""), "a peer's store is behind"), fmt.Sprint(sites[0].alarms())
	})
}
