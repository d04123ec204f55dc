package ceremony

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store/sqlite"
	"github.com/keyferry/keyferry/keyops/transport"
)

// emptyToken refuses a token that holds a Region's keys: the present keys are not lost if
// they are here, and those of another instance have another store.
func emptyToken(c *hsm.Ceremony) error {
	for _, o := range c.Objects() {
		if o.Spec.Role == hsm.RoleRegionSigning || o.Spec.Role == hsm.RoleSeal {
			return fmt.Errorf("token %s holds a key of role %q for %s: --lost is for a new, empty token", c.Info().Serial, o.Spec.Role, o.Spec.Name)
		}
	}
	return nil
}

// lost makes the replacement of keys that are lost with their token, and adds to the request
// what is to be believed of the store, which no key can check any more.
func (t Tool) lost(ctx context.Context, c *hsm.Ceremony, own, next region.SignedDescriptor, seal hsm.ID, q approval.Request, opt RekeyOptions) (r region.Replacement, _ approval.Request, err error) {
	if r, err = region.NewLostReplacement(own, next); err != nil {
		return r, q, err
	}
	db, err := sqlite.Open(ctx, sqlite.Config{Path: opt.Store})
	if err != nil {
		return r, q, err
	}
	defer db.Close()
	custody := keyops.Custody{Self: own, Token: c.Token, Seal: seal, Store: db}
	if custody.Witnessed, err = witnessed(opt.Audit, next); err != nil {
		return r, q, err
	}
	in, err := custody.Inspect(ctx)
	if err != nil {
		return r, q, err
	}
	roster, _, err := t.Dir.LoadRosters(own.Descriptor)
	if err != nil {
		return r, q, err
	}
	return r, region.RequestLost(roster, own, next, q.Serial, q.Expires, in.Unsealed()), nil
}

// witnessed returns the store's head at the last checkpoint of an audit log, if it has one.
func witnessed(dir string, of region.SignedDescriptor) ([]audit.StoreHead, error) {
	keys, err := of.Keys()
	if err != nil {
		return nil, err
	}
	last, err := audit.Newest(dir, keys)
	if err != nil || last.Number == 0 {
		return nil, err
	}
	return []audit.StoreHead{last.Store}, nil
}

// notYetSealed refuses a store that the seal key of a replacement of lost keys has sealed.
func (t Tool) notYetSealed(ctx context.Context, c *hsm.Ceremony, own region.SignedDescriptor, r region.Replacement, path string) error {
	next, err := r.Open(own)
	if err != nil {
		return err
	}
	in, err := inspect(ctx, c, own, next.Descriptor, path)
	if err == nil && in.Findings.Head() == nil && in.Rows > 0 {
		err = errors.New("the store is sealed with the new keys: finish with rekey")
	}
	return err
}

// retireLost writes down that the transport keys which this token does not hold are gone.
// Their other ends are then retired at the peers, and ceremonies held again.
func (t Tool) retireLost(ctx context.Context, c *hsm.Ceremony, own region.Descriptor) error {
	set, err := transport.Load(t.Dir)
	if err != nil {
		return err
	}
	sgn, err := signer(c, own)
	if err != nil {
		return err
	}
	live := set.All()
	for _, tr := range set.Transcripts() {
		inUse := func(k transport.Key) bool { return slices.Contains(live, k) }
		here := func(k transport.Key) bool {
			return slices.ContainsFunc(c.Objects(), func(o hsm.Object) bool { return o.ID == k.ID })
		}
		if tr.Event != transport.Established || !slices.ContainsFunc(tr.Keys, inUse) || slices.ContainsFunc(tr.Keys, here) {
			continue
		}
		tr.Event, tr.At = transport.Retired, t.Now().Truncate(time.Second).UTC()
		if err := t.record(ctx, tr, own, sgn); err != nil {
			return err
		}
		t.say("transport keys %s are lost: retire their other end, and hold the ceremony again", tr.Name)
	}
	return nil
}
