package dev

import (
	"context"
	"os"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/softhsm"
)

// profile is the vendor profile of every token here.
const profile = "softhsm2"

// Each Region has a SoftHSM store of its own, as each would have a machine of its own.
func (d *Deployment) tokenDir(r region.Name) string { return d.in(r, "softhsm") }

func (d *Deployment) regionDir(r region.Name) region.Dir { return region.Dir(d.in(r, "region")) }

// makeTokens makes the token of each Region that is not initialised. Whatever an interrupted
// run has left of such a Region is worth nothing: its token may hold half of its keys.
func (d *Deployment) makeTokens(ctx context.Context) error {
	for _, r := range d.Regions() {
		if exists(d.regionDir(r).Own()) {
			continue
		}
		for _, dir := range []string{d.tokenDir(r), string(d.regionDir(r))} {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
		made, err := softhsm.Provision(ctx, d.tokenDir(r), string(r))
		if err != nil {
			return err
		}
		d.say("%s has the token with serial number %s", r, made[0].Serial)
	}
	return nil
}

func (d *Deployment) token(ctx context.Context, r region.Name) (softhsm.Token, error) {
	return softhsm.Open(ctx, d.tokenDir(r), string(r))
}

func (d *Deployment) soPINFile(r region.Name) string { return d.in(r, "softhsm", string(r)+".so-pin") }

// tokenEnv is the whole environment of a process that uses the token.
func tokenEnv(t softhsm.Token) []string { return []string{softhsm.ConfEnv + "=" + t.Conf} }
