package replication_test

import (
	"crypto"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops/audit"
)

// source is a site's audit log, as somebody with its descriptor reads it.
func (s *site) source() audit.Source {
	s.t.Helper()
	key, err := s.region.Descriptor.PublicKey()
	if err != nil {
		s.t.Fatal(err)
	}
	return audit.Source{
		Region: s.name(), Instance: s.region.Descriptor.Instance, FS: os.DirFS(s.region.AuditDir), Keys: []crypto.PublicKey{key},
	}
}

func (s *site) verify(witnesses ...audit.Witness) (audit.Report, error) {
	source := s.source()
	return audit.Verify(source.FS, source.Keys, witnesses...)
}

// TestPeersAreWitnesses writes one Region's audit log anew, with its own signing key, and
// cuts it off: its peer's log gives it away.
func TestPeersAreWitnesses(t *testing.T) {
	sites := deploy(t, paris, east)
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	sites[0].synchronized(id, sites[1])
	var seen []audit.Witness
	eventually(t, "us-east-1 has kept a checkpoint of Paris", func() (bool, string) {
		r, err := sites[1].verify()
		seen = r.Seen
		return len(seen) > 0, fmt.Sprint(err)
	})
	for _, s := range sites {
		s.stop()
	}
	r, err := sites[1].verify()
	if err != nil || len(r.Seen) == 0 || len(r.Seen) > 10 {
		t.Fatalf("got %d checkpoints kept, error %v, want some, at a bounded rate", len(r.Seen), err)
	}
	own, err := sites[0].verify(r.Seen...)
	if err != nil || own.Witnesses == 0 || own.WitnessesUnsigned != 0 {
		t.Fatalf("the whole log: got %+v, error %v", own, err)
	}

	path := filepath.Join(sites[0].region.AuditDir, "audit-000001.jsonl")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(b), "\n")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Join(lines[:r.Seen[0].Seq], ""))
	if got, err := sites[0].verify(); err != nil {
		t.Fatalf("cut off, without a peer: got %+v, error %v", got, err)
	}
	if got, err := sites[0].verify(r.Seen...); err == nil || !strings.Contains(err.Error(), "the end was cut off") {
		t.Errorf("cut off: got %+v, error %v", got, err)
	}

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		log, err := audit.Open(t.Context(), audit.Config{
			Dir: sites[0].region.AuditDir, Region: paris, Instance: sites[0].region.Descriptor.Instance, Signer: sites[0].region.StatementSigner(), CheckpointEvery: time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		log.CoverStore(func() audit.StoreHead { return audit.StoreHead{} })
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := sites[0].verify(); err != nil {
		t.Fatalf("written anew, without a peer: got %+v, error %v", got, err)
	}
	if got, err := sites[0].verify(r.Seen...); err == nil || !strings.Contains(err.Error(), "the log was written anew") {
		t.Errorf("written anew: got %+v, error %v", got, err)
	}
}

// TestLogsAgree compares the logs of three Regions after replication, and after one of them
// has lost its log.
func TestLogsAgree(t *testing.T) {
	sites := deploy(t, paris, east, tokyo)
	for range 2 {
		id := sites[0].createSymmetric()
		sites[0].mustReplicate(id, sites[1], sites[2])
		sites[0].synchronized(id, sites[1], sites[2])
	}
	for _, s := range sites {
		s.stop()
	}
	var sources []audit.Source
	for _, s := range sites {
		sources = append(sources, s.source())
	}
	r, err := audit.Reconcile(sources, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Each of two keys went to two Regions, with one material.
	if r.Agree != 8 || len(r.Findings) != 0 {
		t.Errorf("got %d that agree, want 8; findings %+v", r.Agree, r.Findings)
	}

	path := filepath.Join(sites[0].region.AuditDir, "audit-000001.jsonl")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Paris denies everything since its start.
	if err := os.WriteFile(path, []byte(strings.Join(strings.SplitAfter(string(b), "\n")[:9], "")), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err = audit.Reconcile(sources, 0)
	if err != nil || r.Agree != 0 || len(r.Findings) != 8 {
		t.Fatalf("got %+v, error %v, want 8 findings", r, err)
	}
	for _, f := range r.Findings {
		if f.Other != paris || f.Says.Region == paris {
			t.Errorf("got finding %+v, want one that Paris does not answer", f)
		}
	}
}
