package dev

import (
	"context"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
)

// Admin is the client that every deployment has and that may do everything.
const Admin = "admin"

// Up makes what is missing of the deployment and starts what is not running, and returns
// when every Region serves and is connected to every other.
func (d *Deployment) Up(ctx context.Context) error {
	unlock, err := lock(d.path("lock"))
	if err != nil {
		return err
	}
	defer unlock()
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"making certificates", d.makeCertificates},
		{"making tokens", d.makeTokens},
		{"initialising Regions", d.initRegions},
		{"holding ceremonies", d.holdCeremonies},
		{"starting daemons", d.startAll},
	}
	for _, s := range steps {
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return d.await(ctx, d.Regions(), RegionStatus.Ready)
}

func (d *Deployment) makeCertificates(context.Context) error {
	if err := d.makeAuthority(); err != nil {
		return err
	}
	for _, r := range d.plan.Regions {
		if err := d.makeServerCertificate(r); err != nil {
			return err
		}
	}
	_, err := d.MakeClient(Admin)
	return err
}

func (d *Deployment) startAll(ctx context.Context) error {
	for _, r := range d.plan.Regions {
		if err := d.ensureRunning(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (d *Deployment) ensureRunning(ctx context.Context, r RegionPlan) error {
	if p, running := d.process(r.Name); running {
		d.say("%s runs as process %d", r.Name, p.PID)
		return nil
	}
	token, err := d.token(ctx, r.Name)
	if err != nil {
		return err
	}
	if err := d.writeDaemonConfig(r, token); err != nil {
		return err
	}
	p, err := d.launch(r.Name, token)
	if err != nil {
		return err
	}
	d.say("%s started as process %d, gRPC %s, REST https://%s", r.Name, p.PID, loopback(r.GRPC), loopback(r.REST))
	return nil
}

// Start starts the daemon of one Region and returns when it serves. It does not wait for
// peers, which may be down on purpose.
func (d *Deployment) Start(ctx context.Context, name region.Name) error {
	r, err := d.region(name)
	if err != nil {
		return err
	}
	unlock, err := lock(d.path("lock"))
	if err != nil {
		return err
	}
	defer unlock()
	begin := time.Now()
	if err := d.ensureRunning(ctx, r); err != nil {
		return err
	}
	err = d.await(ctx, []region.Name{name}, func(s RegionStatus) bool { return s.Serving })
	if err == nil {
		d.say("%s serves after %v", name, time.Since(begin).Round(time.Millisecond))
	}
	return err
}
