package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/keyferry/keyferry/cmd/internal/ceremony"
	"github.com/keyferry/keyferry/cmd/internal/config"
	"github.com/keyferry/keyferry/gateway"
	"github.com/keyferry/keyferry/gateway/alarm"
	"github.com/keyferry/keyferry/gateway/metrics"
	"github.com/keyferry/keyferry/gateway/reload"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/sqlite"
	"github.com/keyferry/keyferry/keyops/transport"
	"github.com/keyferry/keyferry/replication"
)

// daemon is what has been opened so far. Each step of serve adds to it, in the order of the
// fields, and close undoes them in reverse.
type daemon struct {
	config  *config.Config
	log     logrus.FieldLogger
	begun   time.Time
	standby bool // waits while another daemon serves
	waited  bool // and has done so
	hung    bool // until the lease of the one before had expired: nobody gave it back

	self       region.SignedDescriptor
	peers      map[region.Name]region.SignedDescriptor
	former     []region.Former // instances that are no more
	transport  atomic.Pointer[transport.Set]
	known      atomic.Pointer[map[hsm.ID]bool] // the objects of transport
	files      *reload.Watcher
	identities *reload.Value[*policy.Identities]
	token      *hsm.Token
	boundary   hsm.Boundary
	signing    hsm.ID
	seal       hsm.ID
	store      *sqlite.Store
	storeFile  os.FileInfo // that was opened
	lease      store.Lease
	audit      *audit.Log
	replicator *replication.Replicator // nil in a deployment of one Region
	keys       *keyops.Service
	gateway    *gateway.Server
	alarms     *alarm.Set
	metrics    *metrics.Metrics
	shown      *metrics.Server // nil if metrics are shown to nobody

	closers []func(context.Context) error
}

// closing remembers how to undo a step.
func (d *daemon) closing(what string, undo func(context.Context) error) {
	d.closers = append(d.closers, func(ctx context.Context) error {
		if err := undo(ctx); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	})
}

// close undoes all steps, the last first.
func (d *daemon) close(ctx context.Context) error {
	var all []error
	for _, undo := range slices.Backward(d.closers) {
		all = append(all, undo(ctx))
	}
	return errors.Join(all...)
}

// readRegionDir reads what ceremonies have left: who this Region is, which peers it knows,
// which objects of its token are transport keys.
func (d *daemon) readRegionDir(context.Context) error {
	dir := region.Dir(d.config.RegionDir)
	self, err := dir.LoadOwn()
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s has no descriptor: make the Region's keys with keyferry-ceremony init", d.config.RegionDir)
	}
	if err != nil {
		return err
	}
	if self.Region != d.config.Region || self.Partition != d.config.Partition {
		return fmt.Errorf("%s belongs to Region %s in partition %s, the configuration names %s in %s",
			d.config.RegionDir, self.Region, self.Partition, d.config.Region, d.config.Partition)
	}
	set, err := transport.LoadOf(dir, self)
	if err != nil {
		return err
	}
	d.transport.Store(&set)
	d.self, d.peers = self, map[region.Name]region.SignedDescriptor{}
	for _, name := range slices.Sorted(maps.Keys(d.config.Peers.Addresses)) {
		if d.peers[name], err = dir.LoadPeer(name); err != nil {
			return fmt.Errorf("%w: hold the ceremonies of both directions, or remove peers.addresses.%s", err, name)
		}
	}
	d.former, err = dir.LoadFormer(self.Descriptor)
	return err
}

// readIdentities reads the identity policies, the first of the files that are kept current.
func (d *daemon) readIdentities(context.Context) (err error) {
	d.alarms = alarm.New(d.log)
	d.files = reload.NewWatcher(d.log, d.alarms)
	path := d.config.IdentityPolicies
	if path == "" {
		return nil
	}
	d.identities, err = reload.Load(d.files, "identity policies", func() (*policy.Identities, error) {
		data, err := reload.ReadFile(path, policy.MaxIdentitiesSize)
		if err != nil {
			return nil, err
		}
		identities, err := policy.ParseIdentities(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return identities, nil
	}, path)
	return err
}

// identityPolicies returns those in force, nil if nobody has any.
func (d *daemon) identityPolicies() func() *policy.Identities {
	if d.identities == nil {
		return nil
	}
	return d.identities.Get
}

// openToken logs in, attacks stand-ins with the real templates, and finds the Region's keys.
func (d *daemon) openToken(ctx context.Context) error {
	if err := d.login(ctx); err != nil {
		return err
	}
	report, err := d.token.SelfTest(ctx)
	if err != nil {
		return fmt.Errorf("self-test: %w", err)
	}
	d.boundary = report.Boundary
	if err := d.checkBoundary(report); err != nil {
		return err
	}
	return d.findKeys(ctx)
}

// login opens the token as its user.
func (d *daemon) login(ctx context.Context) error {
	c := d.config.Token
	profile, err := hsm.LoadProfile(c.Profile)
	if err != nil {
		return err
	}
	d.knowTransport(*d.transport.Load())
	d.token, err = hsm.Open(ctx, hsm.Config{
		Module: c.Module, TokenLabel: c.Label, TokenSerial: c.Serial,
		PINFile: c.PINFile, PINGroupReadable: c.PINGroupReadable,
		Profile: profile, Sessions: c.Sessions,
		KnownTransport: func(id hsm.ID) bool { return (*d.known.Load())[id] },
		Observe:        d.observeToken(),
		Log:            d.log,
	})
	if err != nil {
		return fmt.Errorf("token %s%s in %s: %w", c.Label, c.Serial, c.Module, err)
	}
	// The token is not closed: the process ends, and its sessions with it.
	return nil
}

// observeToken returns who is told of the token's operations. Commands measure nothing.
func (d *daemon) observeToken() func(string, time.Duration, error) {
	if d.metrics == nil {
		return nil
	}
	return d.metrics.Token
}

// findKeys finds the Region's own keys, and proves that the descriptor names them.
func (d *daemon) findKeys(ctx context.Context) (err error) {
	if d.signing, err = ceremony.RegionKey(d.token.Objects(), hsm.RoleRegionSigning, d.self.Descriptor); err != nil {
		return err
	}
	if d.seal, err = ceremony.RegionKey(d.token.Objects(), hsm.RoleSeal, d.self.Descriptor); err != nil {
		return err
	}
	return d.checkDescriptor(ctx)
}

// checkDescriptor proves that the descriptor is this token's. Whoever can write region_dir
// could put another there, and with it other peers and transcripts.
func (d *daemon) checkDescriptor(ctx context.Context) error {
	public, err := d.self.PublicKey()
	if err != nil {
		return err
	}
	challenge := make([]byte, sha512.Size384) // random, so that it is the digest of nothing
	rand.Read(challenge)
	signature, err := d.token.Sign(ctx, d.signing, hsm.RegionScheme, challenge)
	if err != nil {
		return fmt.Errorf("signing with the Region signing key: %w", err)
	}
	if !ecdsa.VerifyASN1(public, challenge, signature) {
		return fmt.Errorf("the descriptor in %s is not of this token's Region signing key: find out who replaced it", d.config.RegionDir)
	}
	return nil
}

// boundaries in rising order of what they keep.
var boundaries = []hsm.Boundary{hsm.BoundaryNone, hsm.BoundaryAPIOnly, hsm.BoundaryToken}

func (d *daemon) checkBoundary(report hsm.Report) error {
	if err := report.Err(); err != nil {
		d.log.WithError(err).Error("the token failed its self-test")
	}
	required := hsm.Boundary(d.config.Token.RequireBoundary)
	if slices.Index(boundaries, report.Boundary) < slices.Index(boundaries, required) {
		return fmt.Errorf("replication boundary is %s and token.require_boundary is %s: use a hardware token, or for development accept less", report.Boundary, required)
	}
	switch report.Boundary {
	case hsm.BoundaryAPIOnly:
		d.log.Warn("replication boundary is api-only: whoever has the PIN and the token's files has every key; for development only")
	case hsm.BoundaryNone:
		d.log.Warn("replication boundary is none: whoever has the PIN has every multi-Region key; for development only")
	}
	return nil
}

const leaseTTL = 15 * time.Second

// openStore opens the store, made on the first start, and becomes its one writer.
func (d *daemon) openStore(ctx context.Context) (err error) {
	path := d.config.Store.Path
	if err := sqlite.Create(ctx, path, d.self.Instance); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if d.storeFile, err = os.Stat(path); err != nil {
		return err
	}
	s, err := sqlite.Open(ctx, sqlite.Config{Path: path})
	if err != nil {
		return err
	}
	d.store = s
	d.closing("closing the store", func(context.Context) error { return s.Close() })
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	if d.lease, err = d.acquire(ctx, fmt.Sprintf("%s process %d", host, os.Getpid())); err != nil {
		return fmt.Errorf("store %s: %w", path, err)
	}
	d.closing("releasing the store", d.lease.Release)
	return d.sameStore()
}
