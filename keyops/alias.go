package keyops

import (
	"context"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/seal"
)

// aliasTarget checks an alias name and makes the target of an operation on it.
func aliasTarget(name, ref string) target {
	t := target{ref: ref, alias: name}
	if !strings.HasPrefix(name, "alias/") {
		t.invalid = refuse(ErrValidation, "Alias must start with the prefix \"alias/\".")
	} else if _, err := arn.ParseAliasName(name); err != nil {
		t.invalid = &Error{Reason: ErrInvalidAliasName, Message: err.Error(), cause: err}
	}
	return t
}

// CreateAlias gives a key another name, which is new in the account.
func (s *Service) CreateAlias(ctx context.Context, caller Caller, in CreateAliasInput) (CreateAliasOutput, error) {
	t := aliasTarget(in.AliasName, in.TargetKeyID)
	return do(ctx, s, caller, "CreateAlias", t, func(ctx context.Context, c *call) (CreateAliasOutput, error) {
		_, err := s.change(ctx, c.key.ID, func(k *Key) error {
			if err := s.still(c, k); err != nil {
				return err
			}
			if len(k.Aliases) >= maxAliases {
				return refuse(ErrLimitExceeded, "%s has %d aliases, which is the limit.", k.arn, maxAliases)
			}
			now := s.clock().UTC()
			k.addAlias(Alias{Name: in.AliasName, Created: now, Updated: now})
			return nil
		}, func(*seal.Tx) error {
			// Asked inside the transaction: nobody else can take the name before it ends.
			if _, taken := s.view.target(c.key.Account, in.AliasName); taken {
				return refuse(ErrAlreadyExists, "An alias with the name %s already exists", s.aliasARN(c.key.Account, in.AliasName))
			}
			return nil
		})
		return CreateAliasOutput{}, err
	})
}

// UpdateAlias points an alias to another key of the same spec and usage.
func (s *Service) UpdateAlias(ctx context.Context, caller Caller, in UpdateAliasInput) (UpdateAliasOutput, error) {
	t := aliasTarget(in.AliasName, in.TargetKeyID)
	return do(ctx, s, caller, "UpdateAlias", t, func(ctx context.Context, c *call) (UpdateAliasOutput, error) {
		from, err := s.aliasHolder(c, in.AliasName)
		if err != nil {
			return UpdateAliasOutput{}, err
		}
		if err := s.allows(from, c.name, keystate.Facts{OldTarget: true}); err != nil {
			return UpdateAliasOutput{}, err
		}
		if from.Spec != c.key.Spec || from.Usage != c.key.Usage {
			return UpdateAliasOutput{}, refuse(ErrValidation,
				"Alias %s points to a key of spec %s and usage %s; it can only be updated to another such key.", s.aliasARN(from.Account, in.AliasName), from.Spec, from.Usage)
		}
		c.record.detail("previousKeyId", string(from.ID))
		return UpdateAliasOutput{}, s.moveAlias(ctx, c, in.AliasName, from.ID)
	})
}

// DeleteAlias removes an alias; the key stays.
func (s *Service) DeleteAlias(ctx context.Context, caller Caller, in DeleteAliasInput) (DeleteAliasOutput, error) {
	t := aliasTarget(in.AliasName, in.AliasName)
	return do(ctx, s, caller, "DeleteAlias", t, func(ctx context.Context, c *call) (DeleteAliasOutput, error) {
		_, err := s.change(ctx, c.key.ID, func(k *Key) error {
			if err := s.still(c, k); err != nil {
				return err
			}
			if _, ok := k.takeAlias(in.AliasName); !ok {
				return s.noAlias(k.Account, in.AliasName)
			}
			return nil
		}, nil)
		return DeleteAliasOutput{}, err
	})
}

// aliasHolder returns the key that an alias of the caller's account points to, if the
// caller may change the alias there, too.
func (s *Service) aliasHolder(c *call, name string) (*Key, error) {
	account := c.caller.Principal.Account
	id, ok := s.view.target(account, name)
	if k := s.view.key(id); ok && k != nil {
		if d := s.decide(&c.asker, c.action(), k.arn, k); !d.Allowed {
			return nil, s.denied(c, c.action(), s.aliasARN(account, name), d)
		}
		return k, s.melts(c, k)
	}
	return nil, s.missing(c, c.action(), resolved{account: account, named: s.aliasARN(account, name), alias: name})
}

func (s *Service) noAlias(a arn.Account, name string) error {
	return refuse(ErrNotFound, "Alias %s is not found.", s.aliasARN(a, name))
}

// moveAlias takes the alias from one key and gives it to the call's, in one transaction.
func (s *Service) moveAlias(ctx context.Context, c *call, name string, from arn.KeyID) error {
	unlock := s.lockBoth(from, c.key.ID)
	defer unlock()
	old, now := s.view.key(from), s.view.key(c.key.ID)
	if old == nil || now == nil {
		return s.noAlias(c.key.Account, name) // one of them was deleted meanwhile
	}
	if err := s.still(c, now); err != nil {
		return err
	}
	source := old.clone()
	a, ok := source.takeAlias(name)
	if !ok {
		return s.noAlias(old.Account, name)
	}
	a.Updated = s.clock().UTC()
	if from == c.key.ID {
		source.addAlias(a)
		return s.commitSettled(ctx, pair{old, source})
	}
	dest := now.clone()
	if len(dest.Aliases) >= maxAliases {
		return refuse(ErrLimitExceeded, "%s has %d aliases, which is the limit.", dest.arn, maxAliases)
	}
	dest.addAlias(a)
	return s.commitSettled(ctx, pair{old, source}, pair{now, dest})
}

// lockBoth locks one or two keys for a change, always in the same order.
func (s *Service) lockBoth(a, b arn.KeyID) (unlock func()) {
	ids := []arn.KeyID{a, b}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	var locked []*entry
	for _, id := range ids {
		if e := s.view.entry(id); e != nil { // or the key was deleted meanwhile
			e.change.Lock()
			locked = append(locked, e)
		}
	}
	return func() {
		for _, e := range locked {
			e.change.Unlock()
		}
	}
}

// addAlias adds an alias and keeps the order.
func (k *Key) addAlias(a Alias) {
	i, _ := slices.BinarySearchFunc(k.Aliases, a.Name, func(x Alias, name string) int { return strings.Compare(x.Name, name) })
	k.Aliases = slices.Insert(k.Aliases, i, a)
}

// takeAlias removes an alias and returns it.
func (k *Key) takeAlias(name string) (Alias, bool) {
	i := slices.IndexFunc(k.Aliases, func(a Alias) bool { return a.Name == name })
	if i < 0 {
		return Alias{}, false
	}
	a := k.Aliases[i]
	k.Aliases = slices.Delete(k.Aliases, i, i+1)
	return a, true
}

// commitSettled settles the changed keys, then commits them together.
func (s *Service) commitSettled(ctx context.Context, pairs ...pair) error {
	for _, p := range pairs {
		if err := s.settle(ctx, p.old, p.now); err != nil {
			return err
		}
	}
	return s.commit(ctx, nil, pairs...)
}
