package keyops

import (
	"context"
	"errors"
	"slices"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/policy"
)

var errDryRun = &Error{Reason: ErrDryRun, Message: "The request would have succeeded, but the DryRun option is set."}

// target is what a call is about, as far as the request says.
type target struct {
	ref     string            // key ID, key ARN, alias name or alias ARN
	blob    arn.KeyID         // the key that a ciphertext names, if ref is empty
	alias   string            // alias name that the call changes: identity policies decide on it as well
	invalid error             // what is wrong with the request before any key is looked for
	context map[string]string // encryption context
	says    []say             // what else conditions of policies may ask of the request
	tokens  []string          // grant tokens
	retires string            // ID of the grant that the call would retire
	details map[string]string // what the audit record says of the request
	from    *target           // ReEncrypt: the key that opens; the rest of the target is the one that seals
}

// call is one call that has been let in.
type call struct {
	name   string
	op     operation
	caller Caller
	asker  asker
	key    *Key // the key that the call is on, as it was when the call was let in
	source *Key // ReEncrypt: the key that opens
	record record
}

// do is the one door: it resolves, authorises and audits every call, and only then runs
// the operation's body, which gets the key from nobody else.
func do[Out any](ctx context.Context, s *Service, caller Caller, name string, t target, body func(context.Context, *call) (Out, error)) (Out, error) {
	var out, none Out
	c, err := s.admit(ctx, caller, name, t)
	if err == nil {
		out, err = body(ctx, c)
	}
	failure := answer(err)
	if failure != nil {
		s.logFailure(c, failure)
	}
	// An answer that was not audited is not given.
	if err := s.audited(ctx, c, failure); err != nil {
		s.log.WithError(err).WithFields(c.fields()).Error("audit log refused a record, the call is refused")
		return none, answer(err)
	}
	if failure != nil {
		return none, failure
	}
	if c.uses() {
		s.touched(c, c.key)
		if c.source != nil {
			s.touched(c, c.source)
		}
	}
	return out, nil
}

// admit decides whether the call may go on. The call that it returns is never nil, so that
// refusals are audited like everything else.
func (s *Service) admit(ctx context.Context, caller Caller, name string, t target) (*call, error) {
	op, known := operations[name]
	c := &call{name: name, op: op, caller: caller}
	c.asker = askerFor(caller.Principal)
	c.asker.address, c.asker.encryption, c.asker.says, c.asker.retires = caller.SourceIP, t.context, t.says, t.retires
	s.begin(c, t)
	if !known {
		return c, internal(errors.New("operation without a row in the table"))
	}
	if t.invalid != nil {
		return c, t.invalid
	}
	if !slices.Contains(s.accounts, caller.Principal.Account) || caller.Principal.Partition != s.partition {
		return c, s.denied(c, c.action(), c.asker.arn, policy.Decision{})
	}
	switch op.scope {
	case anyone:
	case onAccount:
		if err := s.authorise(c, "*"); err != nil {
			return c, err
		}
		if err := s.melts(c, nil); err != nil {
			return c, err
		}
	case onKey:
		admit := s.admitKey
		if t.from != nil {
			admit = s.admitBoth
		}
		if err := admit(c, t); err != nil {
			return c, err
		}
	}
	if op.mutates {
		if err := s.intended(ctx, c); err != nil {
			return c, err
		}
	}
	return c, nil
}

// admitKey finds the key, decides whether the caller may, and whether its state allows it.
func (s *Service) admitKey(c *call, t target) error {
	granted, err := s.checkTokens(c, t.tokens)
	if err != nil {
		return err
	}
	r, err := s.resolve(c, t)
	if err != nil {
		return err
	}
	c.record.resource(r.named, r.id)
	c.asker.alias = r.alias
	if t.alias != "" {
		if err := s.authorise(c, s.aliasARN(c.caller.Principal.Account, t.alias)); err != nil {
			return err
		}
	}
	if c.key, err = s.permitted(c, &c.asker, c.action(), r, t.retires); err != nil {
		return err
	}
	c.record.resource(c.key.arn, c.key.ID)
	return s.ready(c, granted, c.key)
}

// permitted finds a key and decides whether the asker may act on it. retires is the ID of
// the grant that would be retired, if any.
func (s *Service) permitted(c *call, a *asker, action string, r resolved, retires string) (*Key, error) {
	key := s.view.key(r.id)
	if key == nil || key.Account != r.account || key.Account != c.caller.Principal.Account && !c.op.foreign {
		s.decide(a, action, r.named, s.decoy) // as for a key that is there, so that a refusal takes as long
		return nil, s.missing(c, action, r)
	}
	if g, ok := key.grant(retires); ok {
		kind, pairs := g.constraint()
		a.encryption, a.says = pairs, []say{{policy.GrantConstraintType, kind}}
	}
	d := s.decide(a, action, key.arn, key)
	if !d.Allowed && r.fromBlob && r.account != c.caller.Principal.Account {
		// The caller did not name another account's key: a ciphertext must not tell whether
		// there is one. Only the record does.
		c.record.decision(d)
		r.account = c.caller.Principal.Account
		return nil, s.missing(c, action, r)
	}
	if !d.Allowed {
		s.decide(&c.asker, r.listing(), "*", nil) // as for a key that is not there
		return nil, s.denied(c, action, r.named, d)
	}
	if d.Reason == policy.GrantAllow {
		c.record.detail("byGrant", d.Statement.Sid)
	}
	return key, nil
}

// ready refuses grant tokens that are for none of the call's keys, and states that do not
// allow it.
func (s *Service) ready(c *call, granted []arn.KeyID, keys ...*Key) error {
	for _, id := range granted {
		if !slices.ContainsFunc(keys, func(k *Key) bool { return k.ID == id }) {
			return errGrantToken
		}
	}
	for _, k := range keys {
		if err := s.melts(c, k); err != nil {
			return err
		}
		if err := s.allows(k, c.name, keystate.Facts{}); err != nil {
			return err
		}
	}
	return nil
}

// still asks again, on the newest copy of the key and under its lock, what was asked when
// the call was let in: a permission that has ended since lets no change through.
func (s *Service) still(c *call, k *Key) error {
	if d := s.decide(&c.asker, c.action(), k.arn, k); !d.Allowed {
		return s.denied(c, c.action(), k.arn, d)
	}
	if err := s.melts(c, k); err != nil {
		return err
	}
	return s.allows(k, c.name, keystate.Facts{})
}

// allows asks the table of key states.
func (s *Service) allows(key *Key, operation string, facts keystate.Facts) error {
	state := key.State
	if facts.External = key.Origin == OriginExternal; facts.External {
		state = key.stateAt(s.clock())
	}
	err := keystate.Check(state, keystate.Operation(operation), facts)
	if !guardState.Stops(err != nil) {
		return nil
	}
	return fromState(err, key.arn)
}

// action is what policies call the operation.
func (c *call) action() string { return "kms:" + c.name }

// authorise decides on a resource that has no policy of its own: an alias, or everything.
func (s *Service) authorise(c *call, resource string) error {
	if d := s.decide(&c.asker, c.action(), resource, nil); !d.Allowed {
		return s.denied(c, c.action(), resource, d)
	}
	return nil
}

// denied is the one refusal. It says the same whether the resource exists, has a policy
// that does not allow the call, or has one that denies it; the record says which.
func (s *Service) denied(c *call, action, resource string, d policy.Decision) error {
	c.record.decision(d)
	return refuse(ErrAccessDenied,
		"User: %s is not authorized to perform: %s on resource: %s, because no policy allows it, a policy denies it, or there is no such resource. Request ID: %s; \"keyferry policy explain\" says what is missing.",
		c.asker.arn, action, resource, c.caller.RequestID)
}

// listing is the permission with which a caller may know whether what it names exists.
func (r resolved) listing() string {
	if r.alias != "" {
		return "kms:ListAliases"
	}
	return "kms:ListKeys"
}

// missing answers for a key that is not there, or cannot be read. Only a caller that may
// list what exists in its account, and so knows already, hears more than a refusal.
func (s *Service) missing(c *call, action string, r resolved) error {
	d := s.decide(&c.asker, r.listing(), "*", nil)
	if !d.Allowed || r.account != c.caller.Principal.Account {
		return s.denied(c, action, r.named, d)
	}
	if r.fromBlob {
		return fromBlob(errors.New("no such key"))
	}
	if why := s.view.unreadable(r.id); why != nil {
		return &Error{Reason: ErrInternal, Message: "the stored row of this key fails its seal, so the key is not used; its operator has to look at the store", cause: why}
	}
	if r.alias != "" {
		return refuse(ErrNotFound, "Alias %s is not found.", r.named)
	}
	return refuse(ErrNotFound, "Key '%s' does not exist", r.named)
}

// check refuses a usage or an algorithm that the call's key does not have. field is the
// request's field that names the algorithm; fallback is what its absence means.
func (c *call) check(u KeyUsage, a Algorithm, field string, fallback Algorithm) error {
	return c.key.has(c.name, u, a, field, fallback)
}

func (k *Key) has(operation string, u KeyUsage, a Algorithm, field string, fallback Algorithm) error {
	if k.Usage != u {
		return refuse(ErrInvalidKeyUsage, "%s key usage is %s which is not valid for %s.", k.arn, k.Usage, operation)
	}
	if a == "" {
		a = fallback
	}
	switch {
	case a == "":
		return invalid(field, "not be null")
	case slices.Contains(k.use().algorithms, a):
		return nil
	case algorithmExists(a):
		return refuse(ErrInvalidKeyUsage, "Algorithm %s is incompatible with key spec %s.", a, k.Spec)
	}
	return invalid(field, "satisfy enum value set: %v", k.use().algorithms)
}
