package keyops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/seal"
)

// EventRecreateKey is the audit event of a key that a Region had lost with its store, and
// made again from what the other Regions know of it.
const EventRecreateKey = "RecreateKey"

// lostPolicy returns the policy of a key whose own one is lost. It lets those read it and put
// another whom the identity policies of the account make administrators of keys, and lets
// nobody use the key: any guess at the old policy could be more open than that was.
func lostPolicy(account arn.Account) []byte {
	return fmt.Appendf(nil, `{"Version":"2012-10-17","Id":"keyferry-policy-lost","Statement":[{"Sid":"AdministratorsPutAnotherPolicy","Effect":"Allow",`+
		`"Principal":{"AWS":"%s"},"Action":["kms:DescribeKey","kms:GetKeyPolicy","kms:ListKeyPolicies","kms:PutKeyPolicy"],"Resource":"*"}]}`, account)
}

// PolicyLost reports whether the key was made again without its policy, and nobody has put
// another since.
func (k *Key) PolicyLost() bool { return bytes.Equal(k.Policy, lostPolicy(k.Account)) }

// RecreateKey makes the row of a multi-Region key that this Region has had and that its
// store, restored from a backup of before the key, does not know. set was verified by
// mrk.Recreate, and used is what the key encrypted with. Its materials come back from this
// Region's token and from the others. Policy, description, tags, aliases and grants are of
// this Region alone, and lost: the key is Disabled until an administrator has put a policy.
func (s *Service) RecreateKey(ctx context.Context, set *mrk.Set, used []material.ID) error {
	st := set.State()
	cause := Cause{Event: EventRecreateKey, Peer: st.Epoch.Region}
	err := s.recreate(ctx, set, used, func() error { return s.auditBegun(ctx, cause, st.Account, set.Key(), nil) })
	if err == nil {
		s.log.WithField("key", set.Key()).
			Error("ALARM: a multi-Region key was lost with the store, and is here again, disabled and without its policy")
	}
	return s.auditEvent(ctx, cause, st.Account, set.Key(), nil, err)
}

func (s *Service) recreate(ctx context.Context, set *mrk.Set, used []material.ID, begin func() error) error {
	id, st := set.Key(), set.State()
	switch {
	case set.Self() != s.me() || set.Incarnation() == 0:
		return fmt.Errorf("recreating key %s: %w", id, mrk.ErrForeign)
	case s.view.fact(id) != nil || s.view.unreadable(id) != nil:
		return refuse(ErrAlreadyExists, "Key %s exists in Region %s already.", id, s.self.Region)
	case !slices.Contains(s.accounts, st.Account):
		return refuse(ErrAccessDenied, "Account %s is not served in Region %s.", st.Account, s.self.Region)
	}
	k := &Key{
		ID: id, Account: st.Account, Spec: KeySpec(st.Spec), Usage: KeyUsage(st.Usage), Origin: Origin(st.Origin),
		Policy: lostPolicy(st.Account), Created: time.Unix(st.Created, 0).UTC(), State: keystate.Disabled,
		Used: slices.Clone(used), Set: set.Clone(),
	}
	if err := s.possible(k.Spec, k.Usage, k.Origin, false); err != nil {
		return err
	}
	if err := s.settle(ctx, nil, k); err != nil {
		return err
	}
	if err := begin(); err != nil {
		return err
	}
	// No quota is asked: the key was within it.
	err := s.commit(ctx, func(*seal.Tx) error {
		if s.view.fact(id) != nil {
			return refuse(ErrAlreadyExists, "Key %s exists in Region %s already.", id, s.self.Region)
		}
		return nil
	}, pair{nil, k})
	if err != nil {
		return err
	}
	return s.takeBackAll(ctx, id)
}

// takeBackAll gives a key the materials that are in the token still. What this run does not
// come to, the next start does.
func (s *Service) takeBackAll(ctx context.Context, id arn.KeyID) error {
	e := s.view.entry(id)
	if e == nil {
		return nil
	}
	e.install.Lock() // what is being unwrapped has no row yet either
	defer e.install.Unlock()
	for _, o := range s.token.Objects() {
		key, _, err := parseLabel(o.Spec.Name)
		if err != nil || key != id || !o.Spec.Material() || s.listed(o.ID) {
			continue
		}
		if err := s.takeBack(ctx, o); err != nil && !errors.Is(err, errOrphan) && !errors.Is(err, errNotOurs) {
			return fmt.Errorf("taking back object %s of key %s: %w", o.ID, id, err)
		}
	}
	return nil
}
