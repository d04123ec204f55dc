package keyops

import (
	"strings"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/region"
)

// resolved is the key that a call names, which need not exist.
type resolved struct {
	account  arn.Account
	id       arn.KeyID
	named    string // ARN of what the caller named: an alias is not told by its key
	alias    string // alias/<name>, if that is how the key is named
	fromBlob bool
}

// resolve finds out which key a call names. It says nothing about which keys exist.
func (s *Service) resolve(c *call, t target) (resolved, error) {
	own := c.caller.Principal.Account
	switch {
	case t.ref == "" && t.blob != "":
		// A ciphertext does not say whose key made it; the key does.
		r := resolved{account: own, id: t.blob, fromBlob: true}
		if k := s.view.key(t.blob); k != nil {
			r.account = k.Account
		}
		r.named = s.keyARN(own, t.blob)
		return r, nil
	case t.ref == "":
		return resolved{}, invalid("keyId", "have length greater than or equal to 1")
	case len(t.ref) > maxReference:
		return resolved{}, invalid("keyId", "have length less than or equal to %d", maxReference)
	case strings.HasPrefix(t.ref, "arn:"):
		return s.resolveARN(c, t.ref)
	case strings.HasPrefix(t.ref, "alias/"):
		return s.resolveAlias(c, own, t.ref, t.ref)
	}
	id, err := arn.ParseKeyID(t.ref)
	if err != nil {
		return resolved{}, badKeyID(t.ref)
	}
	return resolved{account: own, id: id, named: s.keyARN(own, id)}, nil
}

func (s *Service) resolveARN(c *call, ref string) (resolved, error) {
	res, err := arn.ParseResource(ref)
	if err != nil {
		return resolved{}, refuse(ErrInvalidArn, "Invalid arn '%s'", clip(ref))
	}
	var where arn.Key // of an alias, too: the fields before the name are the same
	if res.Key != nil {
		where = *res.Key
	} else {
		where = arn.Key{Partition: res.Alias.Partition, Region: res.Alias.Region, Account: res.Alias.Account}
	}
	// A Region answers for its own keys only and forwards nothing.
	if where.Partition != s.partition {
		return resolved{}, refuse(ErrNotFound, "Invalid arn %s", where.Partition)
	}
	if where.Region != s.self.Region {
		return resolved{}, refuse(ErrNotFound, "Invalid arn %s", where.Region)
	}
	if res.Alias != nil {
		return s.resolveAlias(c, where.Account, res.Alias.Name, ref)
	}
	return resolved{account: where.Account, id: where.ID, named: ref}, nil
}

func (s *Service) resolveAlias(c *call, account arn.Account, name, ref string) (resolved, error) {
	if _, err := arn.ParseAliasName(name); err != nil || !c.op.aliases {
		return resolved{}, badKeyID(ref)
	}
	r := resolved{account: account, named: s.aliasARN(account, name), alias: name}
	r.id, _ = s.view.target(account, name)
	return r, nil
}

func badKeyID(ref string) error { return refuse(ErrNotFound, "Invalid keyId '%s'", clip(ref)) }

func (s *Service) keyARN(a arn.Account, id arn.KeyID) string { return s.keyARNIn(s.self.Region, a, id) }

func (s *Service) keyARNIn(r region.Name, a arn.Account, id arn.KeyID) string {
	return arn.Key{Partition: s.partition, Region: r, Account: a, ID: id}.String()
}

func (s *Service) aliasARN(a arn.Account, name string) string {
	return arn.Alias{Partition: s.partition, Region: s.self.Region, Account: a, Name: name}.String()
}

// clip keeps hostile input from filling logs and answers.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
