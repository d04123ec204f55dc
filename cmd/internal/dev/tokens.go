package dev

import (
	"context"
	"fmt"
	"os"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/softhsm"
)

// Each Region has a SoftHSM store of its own, as each would have a machine of its own.
func (d *Deployment) tokenDir(r region.Name) string { return d.in(r, "softhsm") }

func (d *Deployment) makeTokens(ctx context.Context) error {
	for _, r := range d.Regions() {
		token, err := d.makeToken(ctx, r)
		if err != nil {
			return err
		}
		d.say("%s has the token with serial number %s", r, token.Serial)
	}
	return nil
}

func (d *Deployment) makeToken(ctx context.Context, r region.Name) (softhsm.Token, error) {
	if token, err := d.token(ctx, r); err == nil {
		return token, nil
	} else if exists(d.regionDir(r).Own()) {
		return token, fmt.Errorf("the token of %s is not usable, and its keys are in no other place: %w", r, err)
	}
	// No Region was initialised on it, so whatever an interrupted run left is worth nothing.
	if err := os.RemoveAll(d.tokenDir(r)); err != nil {
		return softhsm.Token{}, err
	}
	made, err := softhsm.Provision(ctx, d.tokenDir(r), string(r))
	if err != nil {
		return softhsm.Token{}, err
	}
	return made[0], nil
}

func (d *Deployment) token(ctx context.Context, r region.Name) (softhsm.Token, error) {
	return softhsm.Open(ctx, d.tokenDir(r), string(r))
}

func (d *Deployment) regionDir(r region.Name) region.Dir { return region.Dir(d.in(r, "region")) }
