// Package keyopstest gives other packages' tests a Region to work on: a keyops.Service on a
// token in memory or on a real one, with a real store and a real audit log.
//
// Nothing here belongs in a production binary.
package keyopstest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/sqlite"
	"github.com/keyferry/keyferry/keyops/transport"
)

// Account is the account that test Regions serve, unless their options say otherwise.
const Account arn.Account = "111122223333"

// Options are a test Region's settings; the zero value is a Region eu-paris-1 on a fake token.
type Options struct {
	Name     region.Name
	Instance region.InstanceID // default: a fresh one
	Accounts []arn.Account     // default: Account
	// Token is the Region's token; nil makes a fake one, which reports to the test.
	Token keyops.Token
	// Identities is an identities document; empty lets user/admin of Account do everything.
	Identities string
	Peers      keyops.Peers
	Files      keyops.RegionFiles
	KeyQuota   int
	MakerQuota int  // keys of one principal
	Unbounded  bool // UnboundedEncryption
	Clock      func() time.Time
	Elapsed    func() time.Duration // nil: as Clock says
	Log        logrus.FieldLogger
	Step       func(string)
	Flush      time.Duration // of the audit log; 0 = each record at once
	// Store, if not nil, wraps the store each time that the Region starts.
	Store func(store.Store) store.Store
	// Operators is how many operators the Region has, of whom more than half must approve;
	// 0 means one.
	Operators int
	// Quorum are the operations that take their approvals, beside those that always do.
	Quorum []approval.Operation
}

// Region is one test Region. Its service can be stopped and started on the same token,
// store and audit log.
type Region struct {
	*keyops.Service
	Options    Options // taken anew at each start
	Token      keyops.Token
	Fake       *hsmtest.Fake // the token, if it is a fake one
	Descriptor region.SignedDescriptor
	Dir        region.Dir // region.json and transcripts
	StorePath  string
	AuditDir   string
	Signing    hsm.ID
	SealKey    hsm.ID
	Operators  []crypto.Signer   // private keys of those on the roster
	Witnessed  []audit.StoreHead // what others have seen of the store

	log   *audit.Log
	store store.Store
	stop  func()
}

// New makes a Region and starts it. It ends with the test.
func New(t testing.TB, opts Options) *Region {
	t.Helper()
	r, err := Make(t.Context(), tempDir(t), t, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	if err := r.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return r
}

// tempDir returns a directory in memory where there is one: no test here cuts the power, so
// none needs to wait for a disk.
func tempDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "keyferry-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Make makes a Region in a directory, without starting it, for processes that are not tests.
func Make(ctx context.Context, dir string, report hsmtest.Reporter, opts Options) (*Region, error) {
	opts.complete()
	r := &Region{
		Options: opts, Token: opts.Token, Dir: region.Dir(filepath.Join(dir, "region")),
		StorePath: filepath.Join(dir, "store.db"), AuditDir: filepath.Join(dir, "audit"),
	}
	if r.Token == nil {
		r.Fake = hsmtest.NewFake(report, hsmtest.Options{Label: string(opts.Name)})
		r.Token = r.Fake
	} else if f, ok := r.Token.(*hsmtest.Fake); ok {
		r.Fake = f
	}
	if err := r.init(ctx); err != nil {
		return nil, fmt.Errorf("making Region %s: %w", opts.Name, err)
	}
	return r, nil
}

// Resume returns the Region that Make left in a directory, on the same token, without
// starting it.
func Resume(dir string, opts Options) (*Region, error) {
	r := &Region{
		Options: opts, Token: opts.Token, Dir: region.Dir(filepath.Join(dir, "region")),
		StorePath: filepath.Join(dir, "store.db"), AuditDir: filepath.Join(dir, "audit"),
	}
	var err error
	if r.Descriptor, err = r.Dir.LoadOwn(); err != nil {
		return nil, err
	}
	r.Options.Name, r.Options.Instance = r.Descriptor.Region, r.Descriptor.Instance
	r.Options.complete()
	for _, o := range r.Token.Objects() {
		switch {
		case o.Spec.Name != string(r.Options.Name):
		case o.Spec.Role == hsm.RoleRegionSigning:
			r.Signing = o.ID
		case o.Spec.Role == hsm.RoleSeal:
			r.SealKey = o.ID
		}
	}
	return r, nil
}

// complete fills in defaults.
func (o *Options) complete() {
	if o.Name == "" {
		o.Name = "eu-paris-1"
	}
	if o.Instance == "" {
		o.Instance = region.NewInstanceID()
	}
	if len(o.Accounts) == 0 {
		o.Accounts = []arn.Account{Account}
	}
	if o.Identities == "" {
		o.Identities = AdminIdentities
	}
}

// init does what keyferry-ceremony init does.
func (r *Region) init(ctx context.Context) error {
	if err := errors.Join(r.Dir.Make(), os.Mkdir(r.AuditDir, 0o700)); err != nil {
		return err
	}
	r.Signing, r.SealKey = hsm.NewID(), hsm.NewID()
	spki, err := r.Token.Generate(ctx, hsm.Spec{
		Role: hsm.RoleRegionSigning, Algorithm: hsm.ECP384, Usage: hsm.UsageSign, Name: string(r.Options.Name),
	}, r.Signing)
	if err != nil {
		return err
	}
	if _, err := r.Token.Generate(ctx, hsm.Spec{Role: hsm.RoleSeal, Algorithm: hsm.HMACSHA256, Name: string(r.Options.Name)}, r.SealKey); err != nil {
		return err
	}
	roster, err := r.makeOperators()
	if err != nil {
		return err
	}
	d := region.Descriptor{
		Region: r.Options.Name, Instance: r.Options.Instance, Partition: "aws", SigningKey: spki,
		Operators: roster, Created: time.Now().UTC().Truncate(time.Second), Version: 1,
	}
	if r.Descriptor, err = d.Sign(ctx, r.StatementSigner()); err != nil {
		return err
	}
	if err := r.Descriptor.Save(r.Dir.Own()); err != nil {
		return err
	}
	return sqlite.Create(ctx, r.StorePath, d.Instance)
}

// makeOperators gives the Region's operators keys, and returns their roster.
func (r *Region) makeOperators() (approval.Roster, error) {
	n := max(r.Options.Operators, 1)
	roster := approval.Roster{Threshold: n/2 + 1}
	for i := range n {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return roster, err
		}
		der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
		if err != nil {
			return roster, err
		}
		r.Operators = append(r.Operators, k)
		roster.Operators = append(roster.Operators, approval.Operator{Name: fmt.Sprintf("operator-%d", i+1), Key: der})
	}
	return roster, nil
}

// StatementSigner signs with the Region signing key, whether the service runs or not.
func (r *Region) StatementSigner() statement.Signer {
	return statement.SignerFunc(func(ctx context.Context, digest []byte) ([]byte, error) {
		return r.Token.Sign(ctx, r.Signing, hsm.RegionScheme, digest)
	})
}

// Start opens store and audit log and starts the service.
func (r *Region) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			r.Stop()
		}
	}()
	if err := r.openStore(ctx); err != nil {
		return err
	}
	if err := r.openAudit(ctx); err != nil {
		return err
	}
	set, err := transport.Load(r.Dir)
	if err != nil {
		return err
	}
	identities, err := policy.ParseIdentities([]byte(r.Options.Identities))
	if err != nil {
		return err
	}
	quorum, err := approval.NewQuorum(r.Options.Quorum)
	if err != nil {
		return err
	}
	files := r.Options.Files
	if files.Dir == "" {
		files.Dir = r.Dir
	}
	r.Service, err = keyops.New(ctx, keyops.Config{
		Self: r.Descriptor, Accounts: r.Options.Accounts, Token: r.Token, Boundary: hsm.BoundaryAPIOnly,
		Signing: r.Signing, Seal: r.SealKey, Transport: &set, Store: r.store, Audit: r.log,
		Identities: func() *policy.Identities { return identities },
		Peers:      r.Options.Peers, KeyQuota: r.Options.KeyQuota, PrincipalKeyQuota: r.Options.MakerQuota, UnboundedEncryption: r.Options.Unbounded, Clock: r.Options.Clock, Elapsed: r.Options.Elapsed, Log: r.Options.Log,
		Step: r.Options.Step, Files: files, Quorum: quorum,
	})
	return err
}

// openStore becomes the store's writer.
func (r *Region) openStore(ctx context.Context) error {
	db, err := sqlite.Open(ctx, sqlite.Config{Path: r.StorePath})
	if err != nil {
		return err
	}
	r.store = db
	if r.Options.Store != nil {
		r.store = r.Options.Store(db)
	}
	const ttl = time.Minute
	lease, err := db.AcquireLease(ctx, "test", ttl)
	if err != nil {
		return err
	}
	keep, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var done sync.WaitGroup
	done.Go(func() { store.KeepLease(keep, lease, ttl, func(error) {}) })
	r.stop = func() { cancel(); done.Wait() }
	return nil
}

// openAudit continues the audit log, whose checkpoints are made when it is closed.
func (r *Region) openAudit(ctx context.Context) error {
	public, err := r.Descriptor.PublicKey()
	if err != nil {
		return err
	}
	r.log, err = audit.Open(ctx, audit.Config{
		Dir: r.AuditDir, Region: r.Options.Name, Instance: r.Descriptor.Instance, Signer: r.StatementSigner(),
		Keys: []crypto.PublicKey{public}, Flush: r.Options.Flush, CheckpointEvery: time.Hour,
	})
	return err
}

// Stop closes the service's store and audit log, in order. It may be called twice.
func (r *Region) Stop() {
	if r.log != nil {
		r.log.Close()
	}
	if r.stop != nil {
		r.stop()
	}
	if r.store != nil {
		r.store.Close()
	}
	r.log, r.stop, r.store, r.Service = nil, nil, nil, nil
}

// Restart stops the Region and starts it again.
func (r *Region) Restart(t testing.TB) {
	t.Helper()
	r.Stop()
	if err := r.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// TokenCalls returns how often each function of the fake token was called in the life of a
// new Region. It waits for the checkpoint that the audit log signs soon after the start,
// whoever calls; none follows for an hour.
func (r *Region) TokenCalls(t testing.TB) map[string]uint64 {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, made := r.log.Last(); made {
			return r.Fake.Calls()
		}
		if time.Now().After(deadline) {
			t.Fatal("no audit checkpoint within a minute of the start")
		}
	}
}

// AuditLog returns the Region's audit log while it runs.
func (r *Region) AuditLog() *audit.Log { return r.log }
