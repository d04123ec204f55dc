package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/gateway/metrics"
	"github.com/keyferry/keyferry/hsm"
)

// openMetrics begins to measure.
func (d *daemon) openMetrics(context.Context) error {
	d.metrics = metrics.New(metrics.Build{Version: version(), Region: string(d.config.Region)})
	return nil
}

// showMetrics takes the port at which measurements are shown. Nothing is shown before the
// daemon serves.
func (d *daemon) showMetrics(context.Context) (err error) {
	if d.config.Metrics.Listen == "" {
		return nil
	}
	if d.shown, err = metrics.Listen(d.config.Metrics.Listen, d.metrics); err != nil {
		return err
	}
	d.closing("closing the listener of metrics", func(context.Context) error { return d.shown.Close() })
	return nil
}

// watch has the metrics show, and the alarms tell, how the parts stand that are open by now.
func (d *daemon) watch(context.Context) error {
	d.metrics.Watch(metrics.Sources{
		Boundary:    string(d.boundary),
		Alarms:      d.alarms.All,
		Sessions:    d.token.Sessions,
		PKCS11:      d.token.Calls,
		Quarantined: func() int { return len(d.token.Quarantined()) },
		Queue:       d.audit.Waiting,
		Findings:    d.keys.Refused,
		Keys:        d.keys.Keys,
		Connections: d.gateway.Connections,
		Peers:       d.peersShown,
	})
	d.look("audit log", d.audit.Ready)
	d.look("sealed rows", func() error {
		if n := d.keys.Refused(); n > 0 {
			return fmt.Errorf("%d rows of the store did not hold at the start, and what they decide is refused: %s", n, seeFindings)
		}
		return nil
	})
	d.look("token objects", func() error {
		if n := len(d.token.Quarantined()); n > 0 {
			return fmt.Errorf("%d objects of the token are not what their role demands, and are not used", n)
		}
		return nil
	})
	d.look("token", func() error {
		if _, total := d.token.Sessions(); total == 0 {
			return hsm.ErrUnavailable
		}
		return nil
	})
	d.files.Add("backup notes", func(ctx context.Context, _ bool) (bool, error) { return false, d.takeNotes(ctx) })
	d.look("store", d.keys.Failure)
	d.look("clocks", d.clocks)
	if d.boundary == hsm.BoundaryNone {
		d.alarms.Raise("boundary", errors.New("whoever has the PIN has every multi-Region key"))
	}
	return nil
}

// look raises the alarm of that name while there is something wrong.
func (d *daemon) look(name string, wrong func() error) {
	d.files.Add(name, func(context.Context, bool) (bool, error) { return false, wrong() })
}

// peersShown is how replication stands to each peer.
func (d *daemon) peersShown() []metrics.Peer {
	if d.replicator == nil {
		return nil
	}
	type waiting struct {
		oldest time.Time
		failed int
	}
	marks, now := map[string]waiting{}, time.Now()
	for _, m := range d.keys.Marks() {
		w := marks[string(m.Peer)]
		if w.oldest.IsZero() || m.Since.Before(w.oldest) {
			w.oldest = m.Since
		}
		if m.Attempts > 0 && m.Cause != "" {
			w.failed++
		}
		marks[string(m.Peer)] = w
	}
	var all []metrics.Peer
	for _, p := range d.replicator.Peers() {
		w := marks[string(p.Region)]
		shown := metrics.Peer{
			Region: string(p.Region), Connected: !p.Connected.IsZero(), LastExchange: p.LastExchange,
			Unconfirmed: p.Unconfirmed, Failed: w.failed,
		}
		if !w.oldest.IsZero() {
			shown.Lag = max(now.Sub(w.oldest), 0)
		}
		all = append(all, shown)
	}
	return all
}
