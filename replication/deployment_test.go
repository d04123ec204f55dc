package replication_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/replication"
)

var _ replication.Keys = (*keyops.Service)(nil)

const (
	paris = region.Name("eu-paris-1")
	east  = region.Name("us-east-1")
	tokyo = region.Name("ap-tokyo-1")
)

// site is one Region with its end of replication.
type site struct {
	t       testing.TB
	region  *keyopstest.Region
	repl    *replication.Replicator
	address string
	all     []*site
	logs    *test.Hook
	log     *logrus.Logger
	config  func(*replication.Config)
	bounds  map[region.Name]keyops.Authority                     // of peers; without a row: everything
	keys    func(replication.Keys) replication.Keys              // nil: the Service itself
	links   func(region.Name, replication.Link) replication.Link // around the way to each peer; nil: as they are
}

// deploy starts Regions on fake tokens that are connected over loopback.
func deploy(t testing.TB, names ...region.Name) []*site {
	t.Helper()
	sites := prepare(t, names...)
	for _, s := range sites {
		s.start()
	}
	return sites
}

// prepare makes Regions whose replication does not run yet.
func prepare(t testing.TB, names ...region.Name) []*site {
	t.Helper()
	var sites []*site
	var regions []*keyopstest.Region
	for _, name := range names {
		r := keyopstest.New(t, keyopstest.Options{Name: name})
		sites = append(sites, newSite(t, r))
		regions = append(regions, r)
	}
	keyopstest.Connect(t, regions...)
	for _, s := range sites {
		s.all = sites
	}
	return sites
}

func newSite(t testing.TB, r *keyopstest.Region) *site {
	t.Helper()
	log, hook := test.NewNullLogger()
	log.SetLevel(logrus.DebugLevel)
	if os.Getenv("REPLICATION_LOG") != "" {
		log.SetOutput(os.Stderr)
	}
	s := &site{t: t, region: r, logs: hook, log: log, address: freeAddress(t)}
	t.Cleanup(s.stop)
	return s
}

var addresses atomic.Int64

// freeAddress returns a loopback address that is listened on later, perhaps more than once. No
// other process has this host, and none connects from it, so the port stays free.
func freeAddress(testing.TB) string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d:%d", 1+pid>>16&0x7f, pid>>8&0xff, pid&0xff, 20_000+addresses.Add(1))
}

func (s *site) name() region.Name { return s.region.Options.Name }

func (s *site) start() {
	s.t.Helper()
	s.startWith(s.peers())
}

func (s *site) peers() []replication.Peer {
	var peers []replication.Peer
	for _, o := range s.all {
		if o == s {
			continue
		}
		authority, ok := s.bounds[o.name()]
		if !ok {
			authority = keyopstest.Everything(s.region.Options.Accounts...)
		}
		peers = append(peers, replication.Peer{
			Descriptor: o.region.Descriptor.Descriptor, Fingerprint: o.region.Descriptor.Fingerprint(), Address: o.address, Authority: authority,
		})
	}
	return peers
}

func (s *site) startWith(peers []replication.Peer) {
	s.t.Helper()
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	cfg := replication.Config{
		Self: s.region.Descriptor.Descriptor, Peers: peers, Listener: l,
		Log:            s.log.WithField("region", s.name()),
		DigestInterval: 200 * time.Millisecond, CheckTimeout: 20 * time.Second, RetryMin: 10 * time.Millisecond, RetryMax: 80 * time.Millisecond,
	}
	if s.config != nil {
		s.config(&cfg)
	}
	if s.repl, err = replication.New(cfg); err != nil {
		s.t.Fatal(err)
	}
	if s.links != nil {
		s.repl.WrapLinks(s.links)
	}
	s.region.Options.Peers = s.repl
	s.region.Restart(s.t)
	var keys replication.Keys = s.region.Service
	if s.keys != nil {
		keys = s.keys(keys)
	}
	if err := s.repl.Start(context.Background(), keys); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) stop() {
	if s.repl != nil {
		s.repl.Close()
		s.repl = nil
	}
	s.region.Stop()
}

func (s *site) restart() {
	s.t.Helper()
	s.stop()
	s.start()
}

// create makes a multi-Region key.
func (s *site) create(spec keyops.KeySpec, usage keyops.KeyUsage) arn.KeyID {
	s.t.Helper()
	out, err := s.region.CreateKey(context.Background(), keyopstest.Admin(), keyops.CreateKeyInput{KeySpec: spec, KeyUsage: usage, MultiRegion: true})
	if err != nil {
		s.t.Fatal(err)
	}
	return out.KeyMetadata.KeyID
}

func (s *site) createSymmetric() arn.KeyID {
	s.t.Helper()
	return s.create(keyops.SymmetricDefault, keyops.EncryptDecrypt)
}

func (s *site) replicate(id arn.KeyID, to *site) error {
	_, err := s.region.ReplicateKey(context.Background(), keyopstest.Admin(), keyops.ReplicateKeyInput{KeyID: string(id), ReplicaRegion: string(to.name())})
	return err
}

func (s *site) mustReplicate(id arn.KeyID, to ...*site) {
	s.t.Helper()
	for _, d := range to {
		if err := s.replicate(id, d); err != nil {
			s.t.Fatal(err)
		}
	}
}

// status returns the row that this Region shows of another one.
func (s *site) status(id arn.KeyID, of *site) replication.RegionStatus {
	s.t.Helper()
	for _, row := range s.repl.Status(id) {
		if row.Region == of.name() {
			return row
		}
	}
	return replication.RegionStatus{}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, condition func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		ok, now := condition()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute: %s", what, now)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// synchronized waits until a Region and all the others show each other as synchronized.
func (s *site) synchronized(id arn.KeyID, with ...*site) {
	s.t.Helper()
	for _, pair := range pairs(append(with, s)) {
		eventually(s.t, fmt.Sprintf("%s shows %s", pair[0].name(), pair[1].name()), func() (bool, string) {
			row := pair[0].status(id, pair[1])
			return row.Status == replication.StatusSynchronized && row.KeyState == "Enabled", fmt.Sprintf("%+v", row)
		})
	}
}

func pairs(sites []*site) [][2]*site {
	var out [][2]*site
	for _, a := range sites {
		for _, b := range sites {
			out = append(out, [2]*site{a, b})
		}
	}
	return out
}

// alarms returns what a site logged as an alarm.
func (s *site) alarms() []string {
	var out []string
	for _, e := range s.logs.AllEntries() {
		if e.Level <= logrus.ErrorLevel {
			line, err := e.String()
			if err != nil {
				s.t.Fatal(err)
			}
			out = append(out, line)
		}
	}
	return out
}

func (s *site) noAlarms() {
	s.t.Helper()
	if a := s.alarms(); len(a) != 0 {
		s.t.Errorf("%s logged errors: %v", s.name(), a)
	}
}

// auditLines returns a Region's audit log so far.
func auditLines(t testing.TB, s *site) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.region.AuditDir, "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no audit log in %s: %v", s.region.AuditDir, err)
	}
	var lines []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.Split(string(b), "\n")...)
	}
	return lines
}

func contains(line, word string) bool { return strings.Contains(line, word) }

// closedListener is a listener that nobody connects to.
func closedListener(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
