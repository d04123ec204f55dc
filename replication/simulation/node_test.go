package simulation

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/storetest"
	"github.com/keyferry/keyferry/replication"
)

// node is one Region: what stays when its daemon ends, and the daemon while it runs.
type node struct {
	w      *world
	name   region.Name
	plant  plant
	pinned shortVerifier

	fake   *hsmtest.Fake
	file   *storetest.Memory
	audit  string        // directory of the audit log
	offset time.Duration // of the clock, which jumps
	fuse   fuse
	run    *run
	last   map[arn.KeyID]*keyops.Key // as the daemon last had them

	hostile bool                                                  // in a thief's hands: it may say anything
	lies    func(from region.Name, message []byte) ([]byte, bool) // if not nil, its answers to some messages

	// What the invariants excuse, from a restore or a loss until the others know of it.
	wentBack bool // its store, ever
	doubted  bool
	unaware  bool                               // that it was rolled back, until it has heard all others
	out      map[arn.KeyID]map[region.Name]bool // members that the restored state calls suspended
}

// run is one run of a Region's daemon.
type run struct {
	node  *node
	svc   *keyops.Service
	repl  *replication.Replicator
	log   *audit.Log
	store store.Store
	dead  bool

	session mrk.Nonce // names this run in messages

	working bool // its worker is

	auditFile string // as long as it was when the daemon died
	auditSize int64
}

// fuse makes the daemon die at a durable step.
type fuse struct{ steps int }

var errDied = errors.New("the daemon died here")

func newNode(w *world, name region.Name, p plant) *node {
	n := &node{
		w: w, name: name, plant: p, last: map[arn.KeyID]*keyops.Key{},
		file: storetest.NewMemory(p.descriptor.Instance), audit: filepath.Join(w.dir, string(name)),
	}
	n.fake = hsmtest.NewFake(n, hsmtest.Options{Label: string(name)})
	n.fake.Restore(p.token)
	return n
}

// Helper and Errorf receive what no correct caller of a token does.
func (n *node) Helper() {}

func (n *node) Errorf(format string, args ...any) {
	n.w.break_("%s: "+format, append([]any{n.name}, args...)...)
}

func (n *node) running() bool { return n.run != nil && !n.run.dead && n.run.repl != nil }

func (n *node) clock() time.Time { return n.w.now.Add(n.offset) }

func (n *node) token() token {
	return token{Fake: n.fake, of: n.plant.descriptor.Instance, signing: n.plant.signing}
}

// start starts the daemon. It may die while it starts, which is no error.
func (n *node) start() error {
	r := &run{node: n}
	n.run = r
	n.fake.SetHook(r.tokenCall)
	err := r.start(context.Background())
	if (errors.Is(err, seal.ErrRolledBack) || errors.Is(err, seal.ErrForked)) && !r.dead {
		n.w.note("%s: operators believe the old store", n.name)
		if err = r.reseal(context.Background()); err == nil && !r.dead {
			n.w.must(errors.Join(r.log.Close(), r.store.Close()))
			r = &run{node: n}
			n.run = r
			n.fake.SetHook(r.tokenCall)
			err = r.start(context.Background())
		}
	}
	if r.dead {
		n.w.note("%s: died while starting", n.name)
		n.reap()
		return nil
	}
	if err != nil {
		return fmt.Errorf("starting %s: %w", n.name, err)
	}
	return nil
}

func (r *run) start(ctx context.Context) (err error) {
	if err := r.open(ctx); err != nil {
		return err
	}
	n := r.node
	if r.session, err = mrk.NewNonce(rand.Reader); err != nil {
		return err
	}
	cfg := replication.Config{
		Rand: io.MultiReader(bytes.NewReader(r.session[:]), rand.Reader),
		Self: n.plant.descriptor.Descriptor, Clock: n.clock, Log: r.logger(), Jitter: -1, Senders: 1, Verifier: n.pinned,
		Link: func(to region.Name) (replication.Link, error) { return link{n.w, r, to}, nil },
	}
	for _, d := range n.pinned.former {
		cfg.Former = append(cfg.Former, d)
	}
	for _, o := range n.w.nodes {
		if o != n {
			cfg.Peers = append(cfg.Peers, replication.Peer{
				Descriptor: n.pinned.pinned[o.name], Authority: keyopstest.Everything(keyopstest.Account),
			})
		}
	}
	repl, err := replication.New(cfg)
	if err != nil {
		return err
	}
	r.svc, err = keyops.New(ctx, keyops.Config{
		Self: n.plant.descriptor, Accounts: []arn.Account{keyopstest.Account}, Token: n.token(), Boundary: hsm.BoundaryAPIOnly,
		Signing: n.plant.signing, Seal: n.plant.seal, Transport: &n.plant.transport, Store: r.store, Audit: r.log,
		Identities: func() *policy.Identities { return admin }, Quorum: guarded, Peers: repl, Clock: n.clock, Log: r.logger(),
		Elapsed: func() time.Duration { return n.w.now.Sub(start) },
	})
	if err != nil {
		return err
	}
	if err := repl.Open(r.svc); err != nil {
		return err
	}
	if _, err := r.log.Checkpoint(ctx); err != nil {
		return err
	}
	r.repl = repl
	repl.Step(ctx) // as the daemon's clockwork does first
	return nil
}

var admin = func() *policy.Identities {
	ids, err := policy.ParseIdentities([]byte(keyopstest.AdminIdentities))
	if err != nil {
		panic(err)
	}
	return ids
}()

// open opens store and audit log.
func (r *run) open(ctx context.Context) (err error) {
	n := r.node
	r.store = storetest.NewFaulty(n.file.Open(time.Now), r.storePoint)
	if _, err := r.store.AcquireLease(ctx, "simulation", 24*time.Hour); err != nil {
		return err
	}
	r.log, err = audit.Open(ctx, audit.Config{
		Dir: n.audit, Region: n.name, Instance: n.plant.descriptor.Instance, CheckpointEvery: -1, MaxFileAge: 1000 * 24 * time.Hour, Now: n.clock,
		Signer: statement.SignerFunc(func(ctx context.Context, digest []byte) ([]byte, error) {
			return n.token().Sign(ctx, n.plant.signing, hsm.SignScheme{}, digest)
		}),
	})
	return err
}

// custody is what operators do with the store.
func (r *run) custody() keyops.Custody {
	n := r.node
	return keyops.Custody{
		Self: n.plant.descriptor, Roster: n.plant.descriptor.Operators, Token: n.token(), Seal: n.plant.seal, Store: r.store, Clock: n.clock,
	}
}

// reseal lets the operators believe the store as it is.
func (r *run) reseal(ctx context.Context) error {
	n, c := r.node, r.custody()
	if last, ok := r.log.Last(); ok {
		c.Witnessed = []audit.StoreHead{last.Store}
	}
	in, err := c.Inspect(ctx)
	if err != nil {
		return err
	}
	q := c.Request(in, approval.NewSerial(), n.clock().Add(time.Hour).Truncate(time.Second).UTC())
	files, err := n.plant.approve(ctx, q)
	if err != nil {
		return err
	}
	_, err = c.Reseal(ctx, r.log, files)
	return err
}

// logger drops what is not shown.
func (r *run) logger() logrus.FieldLogger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.PanicLevel)
	if verbose {
		l.SetLevel(logrus.WarnLevel)
		l.AddHook(noteHook{r.node})
	}
	return l
}

// noteHook shows log lines in the order of events.
type noteHook struct{ n *node }

func (noteHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h noteHook) Fire(e *logrus.Entry) error {
	h.n.w.log = append(h.n.w.log, fmt.Sprintf("%4d %*s    %s: %s %v", h.n.w.steps, 2*h.n.w.depth, "", h.n.name, e.Message, e.Data))
	return nil
}

// burns reports whether the fuse ends at this durable step.
func (r *run) burns() bool {
	f := &r.node.fuse
	if f.steps == 0 || !r.node.w.faults {
		return false
	}
	f.steps--
	return f.steps == 0
}

// storePoint is asked at every stage of a transaction.
func (r *run) storePoint(p storetest.Point) error {
	if r.dead {
		return storetest.ErrCrash
	}
	if r.burns() {
		r.node.w.note("%s: dies %s", r.node.name, p.Stage)
		r.die()
		return storetest.ErrCrash
	}
	return nil
}

// tokenCall is asked before every call of the token.
func (r *run) tokenCall(c hsmtest.Call) hsmtest.Fault {
	if r.dead {
		return hsmtest.Fault{Before: errDied}
	}
	if c.Op == "Destroy" {
		r.node.destroys(c.ID)
	}
	if r.burns() {
		after := r.node.w.chance(50)
		r.node.w.note("%s: dies at %s, applied: %t", r.node.name, c.Op, after)
		r.die()
		if after {
			return hsmtest.Fault{After: hsmtest.FailedButApplied}
		}
		return hsmtest.Fault{Before: errDied}
	}
	return hsmtest.Fault{}
}

// die ends the daemon at this moment. Its goroutines, should any still be in a call, get
// nothing more done.
func (r *run) die() {
	if r.dead {
		return
	}
	r.node.remember()
	r.dead = true
	r.node.fuse = fuse{}
	r.node.file.Kill()
	files, err := filepath.Glob(filepath.Join(r.node.audit, "*.jsonl"))
	r.node.w.must(err)
	if len(files) == 0 {
		return
	}
	slices.Sort(files)
	r.auditFile = files[len(files)-1]
	info, err := os.Stat(r.auditFile)
	r.node.w.must(err)
	r.auditSize = info.Size()
}

// close frees what a daemon that died had open.
func (r *run) close() {
	if r.log != nil {
		_ = r.log.Close() // what it writes now was never written
	}
	if r.auditFile != "" {
		r.node.w.must(os.Truncate(r.auditFile, r.auditSize))
	}
	if r.repl != nil {
		r.repl.Close()
	}
}

// reap remembers what a daemon that died knew, and frees it.
func (n *node) reap() {
	r := n.run
	if r == nil || !r.dead {
		return
	}
	n.remember()
	r.close()
	n.run = nil
}

func (n *node) remember() {
	if n.run.svc == nil {
		return
	}
	for _, id := range n.w.keys {
		delete(n.last, id)
		if k, err := n.run.svc.SharedKey(id); err == nil {
			n.last[id] = k
		}
	}
}

// stop ends the daemon in order.
func (n *node) stop() {
	n.fuse = fuse{}
	n.remember()
	r := n.run
	n.run = nil
	n.w.must(r.log.Close())
	r.repl.Close()
	n.w.must(r.store.Close())
}

// key returns a key as the Region has it, or last had it; nil if it does not.
func (n *node) key(id arn.KeyID) *keyops.Key {
	if !n.running() {
		return n.last[id]
	}
	k, err := n.run.svc.SharedKey(id)
	if errors.Is(err, keyops.ErrNotFound) {
		return nil
	}
	n.w.must(err)
	return k
}

func (n *node) marks() []keyops.Mark {
	if !n.running() {
		return nil
	}
	return n.run.svc.Marks()
}

// holds reports whether a material of the key is in the token, and its row says so.
func (n *node) holds(k *keyops.Key, m keyops.Material) bool {
	_, err := n.fake.Lookup(context.Background(), m.Object)
	return err == nil && !m.Lost
}

// destroys checks that nothing that any row lists as held is ever destroyed, unless the key
// is deleted.
func (n *node) destroys(object hsm.ID) {
	if n.run.svc == nil || n.hostile {
		return
	}
	for _, id := range n.run.svc.SharedKeys() {
		k, err := n.run.svc.SharedKey(id)
		if err != nil {
			continue
		}
		for _, m := range k.Materials {
			if m.Object == object && !m.Lost && !k.Gone() {
				n.w.break_("%s destroys material %.8s of %s, which its row holds", n.name, m.ID, id)
			}
		}
	}
}

// acting returns the node that acts as the key's primary Region in the newest epoch.
func (w *world) acting(id arn.KeyID) (*node, *keyops.Key) {
	var best *node
	var key *keyops.Key
	for _, n := range w.up() {
		k := n.key(id)
		if k == nil || !k.Set.Acting() || n.hostile {
			continue
		}
		if key == nil || k.Set.State().Compare(key.Set.State()) > 0 {
			best, key = n, k
		}
	}
	return best, key
}

// newest returns the newest state of a key that anybody knows, or nil.
func (w *world) newest(id arn.KeyID) *mrk.State {
	var top *mrk.State
	for _, n := range honest(w.nodes) {
		if k := n.key(id); k != nil && k.Set.State() != nil && (top == nil || k.Set.State().Compare(top) > 0) {
			top = k.Set.State()
		}
	}
	return top
}

// guarded asks operators for everything that a configuration can have them approve.
var guarded = func() approval.Quorum {
	q, err := approval.NewQuorum(approval.Optional())
	if err != nil {
		panic(err)
	}
	return q
}()
