package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/keyferry/keyferry/keyops/store"
)

// standbyPoll is how often a standby asks for the lease. Asking is one short transaction;
// the lease of a daemon that died is free at once.
const standbyPoll = 250 * time.Millisecond

// errReplaced says that another file has the store's name by now. The lease of the one that
// was opened is worth nothing.
var errReplaced = errors.New("the store was replaced meanwhile")

// acquire becomes the store's one writer. A standby waits for that.
func (d *daemon) acquire(ctx context.Context, owner string) (store.Lease, error) {
	lease, err := d.store.AcquireLease(ctx, owner, leaseTTL)
	var held *store.HeldError
	if !d.standby || !errors.As(err, &held) {
		return lease, err
	}
	d.waited = true
	d.log.WithFields(logrus.Fields{"region": d.self.Region, "instance": d.self.Instance, "owner": held.Owner}).
		Info("another daemon serves, waiting as a standby")
	lease, before, err := store.WaitLease(ctx, d.store, owner, leaseTTL, standbyPoll)
	if before == nil {
		before = held
	}
	d.hung = err == nil && !time.Now().Before(before.Expires)
	return lease, err
}

// sameStore refuses to go on with a store that was moved aside while the standby waited.
func (d *daemon) sameStore() error {
	now, err := os.Stat(d.config.Store.Path)
	if err != nil {
		return err
	}
	if !os.SameFile(d.storeFile, now) {
		return errReplaced
	}
	return nil
}

// lookAgain ends a daemon before that hangs, and has a standby that takes over see what changed while it waited: ceremonies were
// held, keys made and destroyed in the token, identity policies edited.
func (d *daemon) lookAgain(ctx context.Context) error {
	if !d.waited {
		return nil
	}
	d.begun = time.Now()
	d.log.Info("taking over")
	if err := d.fence(ctx, d.config.Audit.Dir); err != nil { // before anything that it may still hold is taken
		return err
	}
	if err := d.readRegionDir(ctx); err != nil {
		return err
	}
	d.knowTransport(*d.transport.Load())
	if err := d.token.Rescan(ctx); err != nil {
		return err
	}
	if err := d.findKeys(ctx); err != nil {
		return err
	}
	d.files.Check(ctx, true)
	return nil
}
