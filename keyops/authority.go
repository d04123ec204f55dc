package keyops

import (
	"slices"
	"strings"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/region"
)

// Authority bounds what one peer can do here and what it is sent, whatever policies allow.
// It comes from this Region's configuration, which no caller and no peer can change. The
// zero value permits nothing.
type Authority struct {
	Accept Accept
	// Send lists the accounts whose keys may go to the peer.
	Send []arn.Account
}

// Accept bounds the replicas that a peer can have made here. A peer says itself who acts
// there, and which materials its keys have: without bounds, a peer in wrong hands could fill
// this Region's token in the name of anybody who may create keys here.
type Accept struct {
	// Accounts are those whose keys the peer may replicate to here.
	Accounts []arn.Account
	// Principals are ARNs of those who may have asked for it there. One * in an ARN stands for
	// any text. Empty means anybody of these accounts.
	Principals []string
	// MaxKeys is how many keys here the peer may have asked for; 0 means as many as the
	// accounts' quotas.
	MaxKeys int
	// MaxMaterials is how many materials this Region holds of a key whose primary key is in
	// the peer's Region; 0 means as many as a key can have.
	MaxMaterials int
}

func (a Accept) principal(p arn.Principal) bool {
	who := p.String()
	return len(a.Principals) == 0 || slices.ContainsFunc(a.Principals, func(pattern string) bool {
		before, after, open := strings.Cut(pattern, "*")
		return pattern == who ||
			open && len(who) >= len(before)+len(after) && strings.HasPrefix(who, before) && strings.HasSuffix(who, after)
	})
}

// authority returns a Region's bounds, which are narrowest for one that is not known.
func (s *Service) authority(r region.Name) Authority {
	if s.peers == nil {
		return Authority{}
	}
	return s.peers.Authority(r)
}

// maySend refuses to let an account's keys go to a Region.
func (s *Service) maySend(account arn.Account, to region.Name) error {
	if slices.Contains(s.authority(to).Send, account) {
		return nil
	}
	return refuse(ErrAccessDenied, "The configuration of Region %s does not let keys of account %s go to Region %s.", s.self.Region, account, to)
}

// acceptable refuses a claim that is outside what its source may ask for, before any policy
// is asked about a principal that only the source has seen.
func (s *Service) acceptable(claim ReplicaClaim) error {
	a := s.authority(claim.Source).Accept
	switch {
	case !slices.Contains(a.Accounts, claim.Account):
		return refuse(ErrAccessDenied, "The configuration of Region %s accepts no keys of account %s from Region %s.", s.self.Region, claim.Account, claim.Source)
	case !a.principal(claim.Principal):
		return refuse(ErrAccessDenied, "The configuration of Region %s accepts no keys from Region %s that %s replicates.", s.self.Region, claim.Source, claim.Principal)
	case a.MaxMaterials > 0 && claim.Materials > a.MaxMaterials:
		return s.tooManyMaterials(claim.Key, claim.Source, a.MaxMaterials)
	}
	return s.underPeerQuota(claim.Source)
}

// underPeerQuota refuses a key more than a peer may ask for.
func (s *Service) underPeerQuota(source region.Name) error {
	most := s.authority(source).Accept.MaxKeys
	if most == 0 || s.view.admitted(source) < most {
		return nil
	}
	return refuse(ErrLimitExceeded, "Region %s has %d keys that Region %s asked for, as many as its configuration accepts.", s.self.Region, most, source)
}

// underMaterialQuota refuses a material more than the primary key's Region may have this one
// hold. It is that Region's word that lists materials, whoever sends them.
func (s *Service) underMaterialQuota(k *Key) error {
	primary := k.Set.Primary()
	if primary == s.self.Region {
		return nil
	}
	most := s.authority(primary).Accept.MaxMaterials
	if most == 0 || len(k.Held()) < most {
		return nil
	}
	return s.tooManyMaterials(k.ID, primary, most)
}

func (s *Service) tooManyMaterials(id arn.KeyID, source region.Name, most int) error {
	return refuse(ErrLimitExceeded, "The configuration of Region %s accepts %d materials of a key from Region %s; key %s has more.", s.self.Region, most, source, id)
}

// replicationDenied reports whether an identity policy here denies the principal the very
// call that it made in the source Region, asked with what the call was about. AWS needs
// kms:CreateKey of the destination and no more, so nothing here has to allow
// kms:ReplicateKey; but who writes "no replicas outside Europe" means every Region, and
// the source may not have that policy, or may not heed it.
func (s *Service) replicationDenied(a *asker, claim ReplicaClaim) bool {
	said := *a
	said.says = saysOfNew(claim.Spec, claim.Usage, claim.Origin, true, Primary)
	values := s.values(&said, nil)
	values[policy.RequestedRegion] = []string{string(claim.Source)}
	values[policy.ReplicaRegion] = []string{string(s.self.Region)}
	d := policy.Decide(policy.Request{
		Principal: a.arn, Action: "kms:ReplicateKey", Resource: s.keyARNIn(claim.Source, claim.Account, claim.Key), Context: values,
	}, nil, s.identities().For(a.arn))
	return d.Reason == policy.ExplicitDeny
}

// admitted counts the keys that a Region asked for, less those that are deleted.
func (v *view) admitted(source region.Name) int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	n := 0
	for _, e := range v.entries {
		k := e.key.Load()
		if k.Set == nil {
			continue
		}
		own, req := k.Set.Own(), k.Set.Admission()
		if req != nil && req.Source == source && (own == nil || !own.Deleted) {
			n++
		}
	}
	return n
}
