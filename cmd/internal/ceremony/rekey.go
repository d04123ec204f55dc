package ceremony

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/sqlite"
)

// RequestRekey makes the next signing and seal key of this Region, and writes what operators
// have to approve so that they take the place of today's. Until then nothing uses them, and a
// daemon may go on serving.
func (t Tool) RequestRekey(ctx context.Context, path string, expiry time.Duration, opt RekeyOptions) (err error) {
	own, _, err := t.load()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(t.Dir.Begun()); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists: new keys are made already; carry that out, or give it up with --forget", t.Dir.Begun())
	}
	roster, changes, err := t.Dir.LoadRosters(own.Descriptor)
	if err != nil {
		return err
	}
	c, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	var old statement.Signer
	if opt.Lost {
		err = emptyToken(c)
	} else {
		old, err = signer(c, own.Descriptor)
	}
	if err != nil {
		return err
	}
	name := own.Next(nil, t.Now()).KeyName()
	for _, o := range c.Objects() {
		if o.Spec.Name == name {
			return fmt.Errorf("token %s holds a key of %s already, from a rekey that was killed: destroy it with --forget", c.Info().Serial, name)
		}
	}
	signing, seal := hsm.NewID(), hsm.NewID()
	defer func() {
		if err != nil {
			err = errors.Join(err, discard(ctx, c, []hsm.ID{signing, seal}))
		}
	}()
	spki, err := c.Generate(ctx, hsm.Spec{Role: hsm.RoleRegionSigning, Algorithm: hsm.ECP384, Usage: hsm.UsageSign, Name: name}, signing)
	if err != nil {
		return fmt.Errorf("making Region signing key: %w", err)
	}
	t.say("Region signing key, object %s, fingerprint %s", signing, statement.Fingerprint(spki))
	if _, err := c.Generate(ctx, hsm.Spec{Role: hsm.RoleSeal, Algorithm: hsm.HMACSHA256, Name: name}, seal); err != nil {
		return fmt.Errorf("making seal key: %w", err)
	}
	t.say("seal key, object %s", seal)
	next, err := own.Next(spki, t.Now()).Sign(ctx, sign(c, signing))
	if err != nil {
		return err
	}
	r, q := region.Replacement{}, region.RequestReplacement(roster, own, next, approval.NewSerial(), t.Now().Add(expiry).Truncate(time.Second).UTC())
	if opt.Lost {
		r, q, err = t.lost(ctx, c, own, next, seal, q, opt)
	} else {
		r, err = region.NewReplacement(ctx, old, own, next)
	}
	if err != nil {
		return err
	}
	if r.Rosters = changes; changes == nil {
		r.Rosters = []approval.Change{}
	}
	if err := q.Validate(); err != nil {
		return err
	}
	if err := statement.WriteJSON(path, q); err != nil {
		return err
	}
	if err := statement.WriteJSON(t.Dir.Begun(), r); err != nil {
		return err
	}
	t.say("request %s, fingerprint %s\nnext descriptor, version %d, fingerprint %s", path, q.Fingerprint(), next.Version, next.Fingerprint())
	t.say("approvals needed: %d of %d operators", roster.Threshold, len(roster.Operators))
	return nil
}

// RekeyOptions says what the new keys are to be used for.
type RekeyOptions struct {
	Store     string // the stopped daemon's store
	Audit     string // directory of its audit log
	Approvals []string
	Lost      bool // of RequestRekey: the old keys are lost with their token
}

// Rekey puts the keys of RequestRekey in the place of today's: it seals the store with the
// new seal key, puts the new descriptor in its place and destroys the old keys, in this
// order. If it was interrupted it is called again and goes on where it was; a daemon in
// between finds that its keys and its store do not belong together, and does not start.
func (t Tool) Rekey(ctx context.Context, opt RekeyOptions) error {
	own, err := t.Dir.LoadOwn()
	if err != nil {
		return err
	}
	var r region.Replacement
	if err := statement.ReadJSON(t.Dir.Begun(), &r); err != nil {
		return fmt.Errorf("no new keys are made: first rekey --request: %w", err)
	}
	c, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if !t.swapped(own, r) {
		if own, err = t.swap(ctx, c, own, r, opt); err != nil {
			return err
		}
	}
	if err := t.destroyOthers(ctx, c, own.Descriptor); err != nil {
		return err
	}
	if r.Lost() {
		if err := t.retireLost(ctx, c, own.Descriptor); err != nil {
			return err
		}
	}
	if err := os.Remove(t.Dir.Begun()); err != nil {
		return err
	}
	t.say("peers confirm the new keys with keyferry-ceremony pin --replace %s\nand descriptor fingerprint %s",
		t.Dir.Replacement(own.Descriptor, own.Version), own.Fingerprint())
	return t.report(c)
}

// swapped reports whether the descriptor in its place is the replacement's.
func (t Tool) swapped(own region.SignedDescriptor, r region.Replacement) bool {
	return string(own.Statement.Payload) == string(r.Descriptor.Payload)
}

// swap seals the store anew and puts the next descriptor in its place.
func (t Tool) swap(ctx context.Context, c *hsm.Ceremony, own region.SignedDescriptor, r region.Replacement, opt RekeyOptions) (next region.SignedDescriptor, err error) {
	roster, _, err := t.Dir.LoadRosters(own.Descriptor)
	if err != nil {
		return next, err
	}
	if kept := t.Dir.Replacement(own.Descriptor, own.Version+1); len(opt.Approvals) == 0 { // a call before this one has read them
		if err := statement.ReadJSON(kept, &r); err != nil {
			return next, fmt.Errorf("no approvals are given, and none were before: %w", err)
		}
	}
	for _, path := range opt.Approvals {
		var f statement.File
		if err := statement.ReadJSON(path, &f); err != nil {
			return next, err
		}
		r.Approvals = append(r.Approvals, f)
	}
	custody := keyops.Custody{Self: own, Roster: roster, Token: c.Token, Clock: t.Now}
	if next, _, err = r.Verify(own); err != nil {
		return next, err
	}
	seal, err := RegionKey(c.Objects(), hsm.RoleSeal, next.Descriptor)
	if err != nil {
		return next, err
	}
	if custody.Seal = seal; !r.Lost() {
		if custody.Seal, err = RegionKey(c.Objects(), hsm.RoleSeal, own.Descriptor); err != nil {
			return next, err
		}
	}
	if err := t.sealAnew(ctx, c, custody, r, next, seal, opt); err != nil {
		return next, err
	}
	if err := t.Dir.KeepReplacement(own.Descriptor, next.Version, r); err != nil {
		return next, err
	}
	if err := next.Swap(t.Dir.Own()); err != nil {
		return next, err
	}
	t.say("descriptor %s, version %d, fingerprint %s", t.Dir.Own(), next.Version, next.Fingerprint())
	return next, nil
}

// rekeyLease is how long another writer waits for one that was killed.
const rekeyLease = 15 * time.Second

// sealAnew holds store and audit log like a daemon, and serves nobody.
func (t Tool) sealAnew(ctx context.Context, c *hsm.Ceremony, custody keyops.Custody, r region.Replacement, next region.SignedDescriptor, seal hsm.ID, opt RekeyOptions) (err error) {
	db, err := sqlite.Open(ctx, sqlite.Config{Path: opt.Store})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	lease, err := db.AcquireLease(ctx, fmt.Sprintf("keyferry-ceremony process %d", os.Getpid()), rekeyLease)
	if err != nil {
		return fmt.Errorf("%w: stop the daemon first", err)
	}
	keep, end := context.WithCancel(ctx)
	kept := make(chan error, 1)
	go func() { kept <- store.KeepLease(keep, lease, rekeyLease, func(error) {}) }()
	defer func() {
		end()
		err = errors.Join(err, <-kept, lease.Release(context.WithoutCancel(ctx)))
	}()
	keys, err := next.Keys()
	if err != nil {
		return err
	}
	if custody.Witnessed, err = witnessed(opt.Audit, next); err != nil {
		return err
	}
	by := custody.Self.Descriptor // until the descriptor is replaced, so that the log is one that today's daemon can go on with
	if r.Lost() {
		by = next.Descriptor
	}
	signs, err := signer(c, by)
	if err != nil {
		return err
	}
	log, err := audit.Open(ctx, audit.Config{
		Dir: opt.Audit, Region: custody.Self.Region, Instance: custody.Self.Instance, Keys: keys,
		Signer: signs,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	custody.Store = db
	if _, err := custody.Rekey(ctx, log, r, seal); err != nil {
		return err
	}
	t.say("the store is sealed with the new seal key")
	return nil
}

// destroyOthers destroys the signing and seal keys of this instance that its descriptor does
// not name.
func (t Tool) destroyOthers(ctx context.Context, c *hsm.Ceremony, own region.Descriptor) error {
	for _, o := range c.Objects() {
		if o.Spec.Role != hsm.RoleRegionSigning && o.Spec.Role != hsm.RoleSeal || o.Spec.Name == own.KeyName() {
			continue
		}
		if name, _, _ := strings.Cut(o.Spec.Name, "#"); name != string(own.Instance) {
			continue
		}
		if err := c.Destroy(ctx, o.ID); err != nil {
			return err
		}
		t.say("destroyed key of role %s, object %s, of %s", o.Spec.Role, o.ID, o.Spec.Name)
	}
	return nil
}

// ForgetRekey destroys the keys that RequestRekey made, if nothing uses them yet.
func (t Tool) ForgetRekey(ctx context.Context, opt RekeyOptions) error {
	own, err := t.Dir.LoadOwn()
	if err != nil {
		return err
	}
	var r region.Replacement
	begun := statement.ReadJSON(t.Dir.Begun(), &r)
	if begun != nil && !errors.Is(begun, fs.ErrNotExist) {
		return begun
	}
	if begun == nil && t.swapped(own, r) {
		return errors.New("the new keys are in use: finish with rekey, without approvals")
	}
	c, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if begun == nil && r.Lost() {
		err = t.notYetSealed(ctx, c, own, r, opt.Store)
	} else {
		err = t.stillSealed(ctx, c, own, opt.Store)
	}
	if err != nil {
		return err
	}
	if err := t.destroyOthers(ctx, c, own.Descriptor); err != nil {
		return err
	}
	if begun == nil {
		return os.Remove(t.Dir.Begun())
	}
	return nil
}

// stillSealed refuses a store that the Region's present seal key has not sealed.
func (t Tool) stillSealed(ctx context.Context, c *hsm.Ceremony, own region.SignedDescriptor, path string) error {
	in, err := inspect(ctx, c, own, own.Descriptor, path)
	if err != nil {
		return err
	}
	if bad := in.Findings.Head(); bad != nil {
		return fmt.Errorf("the store is not sealed with the present keys: finish with rekey: %w", bad)
	}
	return nil
}

// inspect compares a store with the seal of the keys that a descriptor names.
func inspect(ctx context.Context, c *hsm.Ceremony, own region.SignedDescriptor, by region.Descriptor, path string) (keyops.StoreInspection, error) {
	seal, err := RegionKey(c.Objects(), hsm.RoleSeal, by)
	if err != nil {
		return keyops.StoreInspection{}, err
	}
	db, err := sqlite.Open(ctx, sqlite.Config{Path: path})
	if err != nil {
		return keyops.StoreInspection{}, err
	}
	defer db.Close()
	return keyops.Custody{Self: own, Token: c.Token, Seal: seal, Store: db}.Inspect(ctx)
}

// PinReplacement accepts the next descriptor of a peer that is pinned, after its fingerprint
// was compared.
func (t Tool) PinReplacement(path string, agree Agree) error {
	var r region.Replacement
	if err := statement.ReadJSON(path, &r); err != nil {
		return err
	}
	s, err := r.Descriptor.Signed(statement.Descriptor)
	if err != nil {
		return err
	}
	shown, err := region.Open(s) // before verification: it says whose pin verifies it
	if err != nil {
		return err
	}
	pinned, err := t.Dir.LoadPeer(shown.Region)
	if err != nil {
		return err
	}
	if string(pinned.Statement.Payload) == string(shown.Statement.Payload) {
		return fmt.Errorf("version %d of %s is pinned already", shown.Version, shown.Region)
	}
	next, roster, err := r.Verify(pinned)
	if err != nil {
		return err
	}
	t.say("Region %s, instance %s: version %d of its descriptor takes the place of version %d", next.Region, next.Instance, next.Version, pinned.Version)
	if r.Lost() {
		t.say("its key before is lost with its token and does not name this one: only its operators do. Ask them, on a second channel, whether that is so")
	}
	t.say("approved by %d of the %d operators of roster version %d", roster.Threshold, len(roster.Operators), roster.Version)
	if err := agree("descriptor", next.Fingerprint()); err != nil {
		return err
	}
	if _, err := t.Dir.KeepRosters(pinned.Descriptor, r.Rosters); err != nil {
		return err
	}
	if err := t.Dir.KeepReplacement(pinned.Descriptor, next.Version, r); err != nil {
		return err
	}
	if err := next.Swap(t.Dir.Peer(next.Region)); err != nil {
		return err
	}
	t.say("pinned %s; start this Region's daemon again", t.Dir.Peer(next.Region))
	return nil
}
