package main

import (
	"context"
	"slices"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/transport"
)

// ceremonies are the transcripts that the transport keys in use were made of, by name: a
// transcript never changes once it has its name.
type ceremonies struct {
	seen    []string
	refused bool // the last look was
}

// followCeremonies has the daemon take transport keys that are established, and drop those
// that are retired, while it serves.
func (d *daemon) followCeremonies(ctx context.Context) error {
	names, err := transport.Files(region.Dir(d.config.RegionDir))
	if err != nil {
		return err
	}
	c := &ceremonies{}
	// What was written since the directory was read is taken at the first look.
	if len(names) == len(d.transport.Load().Transcripts()) {
		c.seen = names
	}
	d.files.Add("transport keys", func(ctx context.Context, always bool) (bool, error) { return c.look(ctx, d, always) })
	return nil
}

// look takes what is new. The token looks first: it knows which objects the transcripts name
// before it lists them, and has them before anybody wraps with them.
func (c *ceremonies) look(ctx context.Context, d *daemon, always bool) (changed bool, err error) {
	names, err := transport.Files(region.Dir(d.config.RegionDir))
	if err != nil {
		return false, err
	}
	changed = !slices.Equal(names, c.seen)
	if !changed && !c.refused && !always {
		return false, nil
	}
	defer func() { c.refused = err != nil }()
	// The descriptor that was compared with the token at the start decides, not the file.
	set, err := transport.LoadOf(region.Dir(d.config.RegionDir), d.self)
	if err != nil {
		return false, err
	}
	before := d.known.Load()
	d.knowTransport(set)
	if err := d.token.Rescan(ctx); err != nil {
		d.known.Store(before)
		return false, err
	}
	d.transport.Store(&set)
	d.keys.UseTransport(set)
	if d.replicator != nil {
		d.replicator.RetryTransport(ctx)
	}
	c.seen = names
	return changed, nil
}

// knowTransport tells the token which objects the transcripts name as transport keys.
func (d *daemon) knowTransport(set transport.Set) {
	known := map[hsm.ID]bool{}
	for _, k := range set.All() {
		known[k.ID] = true
	}
	d.known.Store(&known)
}
