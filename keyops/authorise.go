package keyops

import (
	"net"
	"strconv"
	"time"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/policy"
)

// say is a value of one condition key, as the request has it, defaults filled in.
type say struct{ key, value string }

// asker is on whose behalf policies are asked, with all that their conditions may be about.
type asker struct {
	principal  arn.Principal
	arn        string            // the principal's
	address    string            // host:port of the caller; empty if a peer speaks for the principal
	encryption map[string]string // encryption context
	alias      string            // the alias by which the request names the key
	says       []say
	retires    string // ID of the grant that it would retire
}

func askerFor(p arn.Principal) asker { return asker{principal: p, arn: p.String()} }

// decide asks the policies whether an action is allowed on a resource: a key with its key
// policy, or something that has none and is decided by identity policies alone.
func (s *Service) decide(a *asker, action, resource string, key *Key) policy.Decision {
	var keyPolicy *policy.Policy
	var grants []policy.Grant
	if key != nil {
		keyPolicy, grants = key.policy, key.grantsFor(a)
	}
	req := policy.Request{Principal: a.arn, Action: action, Resource: resource}
	identity := s.identities().For(a.arn)
	// Without values every condition counts against the caller, so what is allowed now is
	// allowed whatever the values are, and most calls need none.
	if d := policy.Decide(req, keyPolicy, identity, grants...); d.Allowed {
		return d
	}
	req.EncryptionContext, req.Context = a.encryption, s.values(a, key)
	return policy.Decide(req, keyPolicy, identity, grants...)
}

// values returns the values of the condition keys. What the request or the key does not
// have is left out.
func (s *Service) values(a *asker, key *Key) map[string][]string {
	v := map[string][]string{
		policy.RequestedRegion: {string(s.self.Region)},
		policy.CurrentTime:     {s.clock().UTC().Format(time.RFC3339)},
		policy.SecureTransport: {"true"}, // there are no listeners without TLS
	}
	if host, _, err := net.SplitHostPort(a.address); err == nil {
		v[policy.SourceIP] = []string{host}
	} else if a.address != "" {
		v[policy.SourceIP] = []string{a.address}
	}
	if a.alias != "" {
		v[policy.RequestAlias] = []string{a.alias}
	}
	for _, x := range a.says {
		if x.value != "" {
			v[x.key] = append(v[x.key], x.value)
		}
	}
	if key == nil {
		return v
	}
	v[policy.KeySpec] = []string{string(key.Spec)}
	v[policy.KeyUsage] = []string{string(key.Usage)}
	v[policy.KeyOrigin] = []string{string(key.Origin)}
	v[policy.MultiRegion] = []string{strconv.FormatBool(key.Set != nil)}
	if key.Set != nil {
		v[policy.MultiRegionKeyType] = []string{string(s.keyType(key))}
	}
	for _, alias := range key.Aliases {
		v[policy.ResourceAliases] = append(v[policy.ResourceAliases], alias.Name)
	}
	return v
}

// keyType returns the role of this Region's key in its set.
func (s *Service) keyType(k *Key) MultiRegionKeyType {
	if k.Set.Primary() == s.self.Region {
		return Primary
	}
	return Replica
}

// saysOfNew returns what conditions may ask of a key that is to be made.
func saysOfNew(spec KeySpec, usage KeyUsage, origin Origin, multiRegion bool, as MultiRegionKeyType) []say {
	says := []say{
		{policy.KeySpec, string(spec)},
		{policy.KeyUsage, string(usage)},
		{policy.KeyOrigin, string(origin)},
		{policy.MultiRegion, strconv.FormatBool(multiRegion)},
	}
	if multiRegion {
		says = append(says, say{policy.MultiRegionKeyType, string(as)})
	}
	return says
}
