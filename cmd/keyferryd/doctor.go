package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyferry/keyferry/gateway"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/synchronization"
	"github.com/keyferry/keyferry/keyops/transport"
	"github.com/keyferry/keyferry/replication"
)

// Where a check begins to warn, and to be a problem. docs/doctor.md has them for operators.
const (
	clockAlarm = 2 * time.Second

	certificateWarning = 30 * 24 * time.Hour
	certificateProblem = 3 * 24 * time.Hour

	// A TLS key for peers is certified for a day, and replaced after half of that; a
	// connection lives for an hour.
	linkKeyWarning = 10 * time.Hour
	linkKeyProblem = 2 * time.Hour

	roomWarning     = 0.10 // of what there is
	roomProblem     = 0.02
	forecastWarning = 90.0 // days
)

// doctor looks at everything that an operator should know. It may be slow, and is asked by
// people.
func (d *daemon) doctor(ctx context.Context) []gateway.HealthCheck {
	all := []gateway.HealthCheck{d.checkToken(ctx), d.checkBoundaryNow(), d.checkCapacity(), d.checkQuota(), d.checkBackup()}
	if d.replicator != nil {
		for _, p := range d.replicator.Peers() {
			all = append(all, checkPeer(p), checkClock(p, time.Now()), d.checkTransport(p), checkLinkKey(string(p.Region), p.CertifiedUntil, time.Now()))
		}
		all = append(all, checkLinkKey("ours", d.replicator.CertifiedUntil(), time.Now()))
	}
	for _, c := range d.gateway.Certificates() {
		all = append(all, checkCertificate(c, time.Now()))
	}
	all = append(all, checkDisk("store", filepath.Dir(d.config.Store.Path)), checkDisk("audit log", d.config.Audit.Dir))
	all = append(all,
		verdict("store", "can be written", d.keys.Failure(), "restart the daemon once its disk is sound"),
		d.checkSeals(), d.checkAudit())
	for _, a := range d.alarms.All() {
		if a.Cause != nil {
			all = append(all, gateway.HealthCheck{
				Name: "alarm", Subject: a.Name, Level: gateway.HealthProblem, Summary: a.Cause.Error(), Advice: "see the daemon's log",
				Values: map[string]float64{"raised": float64(a.Count)},
			})
		}
	}
	return all
}

// verdict is a check that passes unless there is an error.
func verdict(name, fine string, err error, advice string) gateway.HealthCheck {
	if err != nil {
		return gateway.HealthCheck{Name: name, Level: gateway.HealthProblem, Summary: err.Error(), Advice: advice}
	}
	return gateway.HealthCheck{Name: name, Summary: fine}
}

func (d *daemon) checkToken(ctx context.Context) gateway.HealthCheck {
	info := d.token.Info()
	c := verdict("token", fmt.Sprintf("%s answers, serial %s, %s", info.Label, info.Serial, info.Profile), d.token.Health(ctx), "look at the token and the way to it; the daemon connects again by itself")
	busy, sessions := d.token.Sessions()
	quarantined := len(d.token.Quarantined())
	c.Values = map[string]float64{"sessionsBusy": float64(busy), "sessions": float64(sessions), "quarantined": float64(quarantined)}
	if c.Level == gateway.HealthOK && quarantined > 0 {
		c.Level, c.Summary, c.Advice = gateway.HealthWarning, fmt.Sprintf("%d objects are not what their role demands, and are not used", quarantined), "find out who made them: keyferry-ceremony list"
	}
	return c
}

func (d *daemon) checkBoundaryNow() gateway.HealthCheck {
	c := gateway.HealthCheck{Name: "boundary", Summary: string(d.boundary)}
	switch d.boundary {
	case hsm.BoundaryAPIOnly:
		c.Level, c.Advice = gateway.HealthWarning, "for development only: whoever has the PIN and the token's files has every key"
	case hsm.BoundaryNone:
		c.Level, c.Advice = gateway.HealthProblem, "for development only: whoever has the PIN has every multi-Region key"
	}
	return c
}

func (d *daemon) checkCapacity() gateway.HealthCheck {
	room, err := d.token.Capacity()
	if err != nil {
		return verdict("capacity", "", err, "see the check of the token")
	}
	return capacityOf(room, d.keys.Growth())
}

// capacityOf foresees when the token is full, if it goes on as it did.
func capacityOf(room hsm.Capacity, g keyops.Growth) gateway.HealthCheck {
	c := gateway.HealthCheck{Name: "capacity", Values: map[string]float64{
		"objects": float64(room.Objects), "materials": float64(g.Materials), "materialsPerDay": g.PerDay(),
	}}
	c.Summary = fmt.Sprintf("%d objects, %.1f new materials a day", room.Objects, g.PerDay())
	if room.Total == 0 {
		c.Summary += "; the token does not say how many it can hold"
		return c
	}
	free := float64(room.Free) / float64(room.Total)
	c.Values["freeBytes"], c.Values["totalBytes"] = float64(room.Free), float64(room.Total)
	c.Summary += fmt.Sprintf("; %.0f%% free", 100*free)
	days := -1.0
	if used := room.Total - room.Free; used > 0 && room.Objects > 0 && g.PerDay() > 0 {
		days = float64(room.Free) / (float64(used) / float64(room.Objects)) / g.PerDay()
		c.Values["fullInDays"] = days
		c.Summary += fmt.Sprintf(", full in %.0f days", days)
	}
	const advice = "delete keys that are not used, or get a larger partition"
	switch {
	case free < roomProblem:
		c.Level, c.Advice = gateway.HealthProblem, advice
	case free < roomWarning, days >= 0 && days < forecastWarning:
		c.Level, c.Advice = gateway.HealthWarning, advice
	}
	return c
}

func (d *daemon) checkQuota() gateway.HealthCheck { return quotaOf(d.keys.Growth()) }

func quotaOf(g keyops.Growth) gateway.HealthCheck {
	c := gateway.HealthCheck{
		Name: "quota", Summary: fmt.Sprintf("%d of %d keys in the fullest account", g.Fullest, g.Quota),
		Values: map[string]float64{"keys": float64(g.Keys), "fullestAccount": float64(g.Fullest), "quota": float64(g.Quota)},
	}
	switch left := g.Quota - g.Fullest; {
	case left <= 0:
		c.Level, c.Advice = gateway.HealthProblem, "no key can be made: delete some, or raise limits.keys"
	case float64(left) < roomWarning*float64(g.Quota):
		c.Level, c.Advice = gateway.HealthWarning, "raise limits.keys"
	}
	return c
}

func (d *daemon) checkBackup() gateway.HealthCheck {
	c := gateway.HealthCheck{Name: "backup", Summary: "of the token: " + d.tokenBackup()}
	if d.token.Info().Backup == hsm.BackupNone {
		c.Level, c.Advice = gateway.HealthWarning, "keep what must outlive the token in multi-Region keys with a replica"
	}
	return c
}

func checkPeer(p replication.PeerStatus) gateway.HealthCheck {
	c := gateway.HealthCheck{
		Name: "peer", Subject: string(p.Region), Summary: fmt.Sprintf("connected, %d keys unconfirmed", p.Unconfirmed),
		Values: map[string]float64{"unconfirmedKeys": float64(p.Unconfirmed)},
	}
	if p.Connected.IsZero() {
		c.Level, c.Summary, c.Advice = gateway.HealthProblem, fmt.Sprintf("not connected, %d keys unconfirmed: %s", p.Unconfirmed, p.LastError), "look at the peer and the network; it is tried for ever"
	}
	return c
}

// checkClock judges by how much the clocks differ at least.
func checkClock(p replication.PeerStatus, now time.Time) gateway.HealthCheck {
	c := gateway.HealthCheck{Name: "clock", Subject: string(p.Region)}
	if p.Clock.At.IsZero() {
		c.Level, c.Summary = gateway.HealthWarning, "not measured yet: there was no exchange"
		return c
	}
	c.Values = map[string]float64{
		"offsetSeconds": p.Clock.Offset.Seconds(), "errorSeconds": p.Clock.Error.Seconds(), "ageSeconds": now.Sub(p.Clock.At).Seconds(),
	}
	c.Summary = fmt.Sprintf("%+.3f s against ours, give or take %.3f s", p.Clock.Offset.Seconds(), p.Clock.Error.Seconds())
	switch apart := p.Clock.Apart(); {
	case apart >= keyops.MaxApart:
		c.Level, c.Advice = gateway.HealthProblem, "set the wrong one of the two; until then no key is destroyed here, and no approval counts"
	case apart > clockAlarm:
		c.Level, c.Advice = gateway.HealthWarning, "have both hosts set their clocks by the network"
	}
	return c
}

// clocks is the alarm of clocks that are too far apart.
func (d *daemon) clocks() error {
	if d.replicator == nil {
		return nil
	}
	if peer, apart := d.replicator.ClocksApart(); apart > clockAlarm {
		return fmt.Errorf("the clock of %s and ours are apart by %v at least", peer, apart.Round(time.Millisecond))
	}
	return nil
}

func (d *daemon) checkTransport(p replication.PeerStatus) gateway.HealthCheck {
	here, there := transport.EndOf(d.self.Descriptor), transport.EndOf(d.peers[p.Region].Descriptor)
	for _, pair := range d.keys.Severed() {
		if pair.Between(synchronization.EndOf(d.self.Descriptor), synchronization.EndOf(d.peers[p.Region].Descriptor)) {
			return severedTransport(string(p.Region))
		}
	}
	set := d.transport.Load()
	return transportOf(string(p.Region), epochsOf(set, here, there), epochsOf(set, there, here))
}

// severedTransport is of a pair that was disassociated: its keys are destroyed in the token,
// whatever its ceremonies say, and no other ones are taken.
func severedTransport(peer string) gateway.HealthCheck {
	return gateway.HealthCheck{Name: "transport", Subject: peer, Summary: "disassociated for good, without transport keys"}
}

// epochs is what one direction has: of how many classes there are keys, and the newest epoch.
type epochs struct {
	classes int
	newest  uint64
	held    int // epochs that are not retired
}

func epochsOf(s *transport.Set, from, to transport.End) (e epochs) {
	for _, class := range hsm.Classes {
		if k, ok := s.Newest(from, to, class); ok {
			e.classes++
			e.newest = max(e.newest, k.Name.Epoch)
		}
		e.held = max(e.held, len(s.Epochs(from, to, class)))
	}
	return e
}

func transportOf(peer string, out, in epochs) gateway.HealthCheck {
	c := gateway.HealthCheck{
		Name: "transport", Subject: peer, Summary: fmt.Sprintf("epoch %d to it, %d from it", out.newest, in.newest),
		Values: map[string]float64{"epochTo": float64(out.newest), "epochFrom": float64(in.newest), "epochsTo": float64(out.held), "epochsFrom": float64(in.held)},
	}
	for _, way := range []struct {
		name string
		e    epochs
	}{{"to it", out}, {"from it", in}} {
		switch {
		case way.e.classes == 0:
			c.Level, c.Summary = gateway.HealthProblem, "no transport keys "+way.name
		case way.e.classes < len(hsm.Classes) && c.Level == gateway.HealthOK:
			c.Level, c.Summary = gateway.HealthWarning, fmt.Sprintf("transport keys %s for %d of %d classes", way.name, way.e.classes, len(hsm.Classes))
		}
	}
	if c.Level != gateway.HealthOK {
		c.Advice = "hold the ceremony; both daemons take its keys within seconds"
	}
	return c
}

func checkCertificate(c gateway.CertificateDates, now time.Time) gateway.HealthCheck {
	left := c.NotAfter.Sub(now)
	out := gateway.HealthCheck{
		Name: "certificate", Subject: c.Name, Summary: fmt.Sprintf("%.0f days left, until %s", left.Hours()/24, c.NotAfter.UTC().Format(time.RFC3339)),
		Values: map[string]float64{"daysLeft": left.Hours() / 24},
	}
	switch {
	case left < certificateProblem:
		out.Level, out.Advice = gateway.HealthProblem, "put a new one in its place; it is read without a restart"
	case left < certificateWarning:
		out.Level, out.Advice = gateway.HealthWarning, "put a new one in its place; it is read without a restart"
	}
	return out
}

// checkLinkKey judges the TLS key of one end of the link between Regions.
func checkLinkKey(whose string, until, now time.Time) gateway.HealthCheck {
	c := gateway.HealthCheck{Name: "link-key", Subject: whose}
	if until.IsZero() {
		c.Level, c.Summary = gateway.HealthWarning, "none was shown yet"
		return c
	}
	left := until.Sub(now)
	c.Summary = fmt.Sprintf("%.1f hours left, until %s", left.Hours(), until.UTC().Format(time.RFC3339))
	c.Values = map[string]float64{"hoursLeft": left.Hours()}
	const advice = "its Region makes a new one every 12 hours, and has not: look at that daemon's log and its token"
	switch {
	case left < linkKeyProblem:
		c.Level, c.Advice = gateway.HealthProblem, advice
	case left < linkKeyWarning:
		c.Level, c.Advice = gateway.HealthWarning, advice
	}
	return c
}

func checkDisk(what, dir string) gateway.HealthCheck {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		c := verdict("disk", "", fmt.Errorf("%s: %w", dir, err), "look at the disk")
		c.Subject = what
		return c
	}
	return diskOf(what, float64(s.Bavail)*float64(s.Bsize), float64(s.Blocks)*float64(s.Bsize))
}

func diskOf(what string, free, total float64) gateway.HealthCheck {
	c := gateway.HealthCheck{
		Name: "disk", Subject: what, Summary: fmt.Sprintf("%.1f GiB free, %.0f%%", free/(1<<30), 100*free/max(total, 1)),
		Values: map[string]float64{"freeBytes": free, "totalBytes": total},
	}
	const advice = "make space: without any, nothing is changed and no call is answered"
	switch {
	case free < roomProblem*total:
		c.Level, c.Advice = gateway.HealthProblem, advice
	case free < roomWarning*total:
		c.Level, c.Advice = gateway.HealthWarning, advice
	}
	return c
}

func (d *daemon) checkSeals() gateway.HealthCheck {
	c := gateway.HealthCheck{Name: "seals", Summary: "all rows hold"}
	if n := d.keys.Refused(); n > 0 {
		c.Level, c.Advice = gateway.HealthProblem, seeFindings
		c.Summary = fmt.Sprintf("%d rows did not hold at the start, and what they decide is refused", n)
	}
	return c
}

func (d *daemon) checkAudit() gateway.HealthCheck {
	waiting, limit := d.audit.Waiting()
	c := verdict("audit", fmt.Sprintf("%d of %d records wait for the disk", waiting, limit), d.audit.Ready(), "make space on its disk, or look at the disk")
	c.Values = map[string]float64{"waiting": float64(waiting), "limit": float64(limit)}
	if c.Level == gateway.HealthOK && waiting > limit/2 {
		c.Level, c.Advice = gateway.HealthWarning, "records come faster than the disk takes them"
	}
	return c
}
