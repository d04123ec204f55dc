package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/store"
)

// serve opens everything in order, serves until ctx ends, and closes in reverse order. What
// is opened first is what the next depends on: nobody is answered before all of it is sound.
func (d *daemon) serve(ctx context.Context) (err error) {
	defer func() {
		// ctx has ended by now, and what was opened must be closed all the same.
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.config.DrainTimeout)
		defer cancel()
		err = errors.Join(err, d.close(closing))
	}()
	for _, step := range []struct {
		what string
		code int
		do   func(context.Context) error
	}{
		{"reading region_dir", exitRegionDir, d.readRegionDir},
		{"reading identity_policies", exitUsage, d.readIdentities},
		{"measuring", exitOther, d.openMetrics},
		{"opening the token", exitToken, d.openToken},
		{"opening the store", exitStore, d.openStore},
		{"looking again", exitOther, d.lookAgain},
		{"listening for metrics", exitOther, d.showMetrics},
		{"opening the audit log", exitOther, d.openAudit},
		{"listening for peers", exitOther, d.openPeers},
		{"loading keys", exitStore, d.openKeys},
		{"listening for clients", exitOther, d.openGateway},
		{"starting replication", exitOther, d.startPeers},
		{"following ceremonies", exitRegionDir, d.followCeremonies},
		{"watching", exitOther, d.watch},
	} {
		if err := step.do(ctx); err != nil {
			err = fmt.Errorf("%s: %w", step.what, err)
			if ctx.Err() != nil { // told to stop, and has nothing to finish
				d.log.WithError(err).Info("stopped before serving")
				return nil
			}
			return fail(step.code, d.adviseRekey(advise(err)))
		}
	}
	return d.run(ctx)
}

// adviseRekey adds that the Region's keys are being replaced, which is why a start may fail.
func (d *daemon) adviseRekey(err error) error {
	if _, missing := os.Lstat(region.Dir(d.config.RegionDir).Begun()); missing != nil {
		return err
	}
	return fmt.Errorf("%w (new keys of this Region are made and not yet in use; if that was interrupted, finish it with keyferry-ceremony rekey)", err)
}

// hangups returns where SIGHUP arrives. It does until the process ends, which must not die of
// one while it drains.
func hangups() <-chan os.Signal {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGHUP)
	return told
}

// filesEvery is how often it is looked whether files have changed.
const filesEvery = 5 * time.Second

// run serves until ctx ends or something fails that only a new start can mend. What calls
// in flight need goes on until the last of them has been answered.
func (d *daemon) run(ctx context.Context) error {
	serving, stop := context.WithCancel(ctx)
	defer stop()
	needed, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var background errgroup.Group
	background.Go(func() error {
		defer stop()
		return fail(exitStore, store.KeepLease(needed, d.lease, leaseTTL, func(err error) {
			d.log.WithError(err).Warn("renewing the store's lease failed, trying again")
		}))
	})
	background.Go(func() error {
		defer stop()
		select {
		case <-needed.Done():
			return nil
		case <-d.keys.Failed():
			return fail(exitStore, d.keys.Failure())
		}
	})
	background.Go(func() error {
		d.files.Run(needed, filesEvery, hangups())
		return nil
	})
	if d.shown != nil {
		background.Go(func() error {
			defer stop()
			return d.shown.Serve(needed)
		})
	}
	d.log.WithFields(d.addresses()).WithFields(logrus.Fields{
		"region": d.self.Region, "instance": d.self.Instance, "boundary": d.boundary,
		"took": time.Since(d.begun).Round(time.Millisecond).String(),
	}).Info("serving")
	// What the worker writes last needs the lease, so it ends before that does.
	working, rest := context.WithCancel(needed)
	defer rest()
	var worker sync.WaitGroup
	worker.Go(func() { d.keys.Run(working) })
	err := d.gateway.Serve(serving)
	rest()
	worker.Wait()
	end()
	err = errors.Join(err, background.Wait())
	d.log.Info("stopped serving")
	return err
}

// addresses are those at which this daemon listens.
func (d *daemon) addresses() logrus.Fields {
	f := logrus.Fields{"grpc": d.gateway.GRPCAddr().String()}
	if rest := d.gateway.RESTAddr(); rest != nil {
		f["rest"] = rest.String()
	}
	if d.config.Peers.Listen != "" {
		f["peers"] = d.config.Peers.Listen
	}
	if d.shown != nil {
		f["metrics"] = d.shown.Addr().String()
	}
	return f
}
