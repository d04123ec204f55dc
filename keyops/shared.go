package keyops

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
)

// The replication door: what package replication may do with keys. It decides nothing
// about access but what a peer's claims are bounded by, and audits under the cause that it
// is given.

// Cause says why replication changes a key, for the audit record.
type Cause struct {
	Event         string // such as SynchronizeMultiRegionKey
	Peer          region.Name
	CorrelationID string
}

// ReplicaClaim is what a peer says when it asks for a replica. The principal is its claim:
// this Region believes no more of it than the peer's Authority and its own policies allow.
type ReplicaClaim struct {
	Source        region.Name
	Key           arn.KeyID
	Account       arn.Account
	Principal     arn.Principal
	Spec          KeySpec
	Usage         KeyUsage
	Origin        Origin
	Policy        []byte // empty = the default policy
	Description   string
	Tags          []Tag
	Materials     int // how many the key has
	CorrelationID string
}

// Self returns this Region's descriptor.
func (s *Service) Self() region.Descriptor { return s.self }

// SharedKeys lists the multi-Region keys that are known here, deleted ones included, ordered
// by ID.
func (s *Service) SharedKeys() []arn.KeyID {
	var ids []arn.KeyID
	for _, k := range s.view.facts() {
		if k.Set != nil {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// SharedVersion grows with every change of what SharedKeys and SharedKey return.
func (s *Service) SharedVersion() uint64 { return s.view.shared.Load() }

// SharedKey returns a snapshot of a multi-Region key, which must not be changed, or
// ErrNotFound.
func (s *Service) SharedKey(id arn.KeyID) (*Key, error) {
	k := s.view.fact(id)
	if k == nil || k.Set == nil {
		if why := s.view.unreadable(id); why != nil {
			return nil, why
		}
		return nil, fmt.Errorf("multi-Region key %s: %w", id, ErrNotFound)
	}
	return k, nil
}

// UpdateShared changes a multi-Region key in one store transaction: fn changes a copy, this
// Region's own fact follows, the row is sealed, a mark is set for every peer that is or was
// a member if the facts changed, and the result is published. It is audited before this
// returns. If fn returns an error nothing is applied; ErrUnchanged is no error.
func (s *Service) UpdateShared(ctx context.Context, id arn.KeyID, cause Cause, fn func(*Key) error) error {
	old, err := s.SharedKey(id)
	if err != nil {
		return err
	}
	// The record follows the change, since the store says what was done should this Region
	// die between the two; but nothing is done that could not be recorded.
	if err := s.audit.Ready(); err != nil {
		return fmt.Errorf("changing key %s: %w", id, err)
	}
	var dismissed *mrk.Offer
	now, err := s.change(ctx, id, func(k *Key) error {
		offer, open := k.Set.Considering()
		if err := fn(k); err != nil {
			return err
		}
		if open && k.Set.Refused(offer) {
			dismissed = &offer
		}
		return nil
	}, nil)
	if err == nil && now.Version == old.Version {
		return nil
	}
	if err == nil && dismissed != nil {
		// The record of this change, which follows, says whether the log takes any.
		_ = s.auditDecision(ctx, old.Set.Primary(), *dismissed, mrk.ErrWithdrawn)
	}
	return s.auditEvent(ctx, cause, "", id, nil, err)
}

// CheckReplica decides, without any effect, whether this Region would take a replica: the
// account is served here, the claim is within what the source may ask for, the policies
// allow the claimed principal kms:CreateKey and do not deny it kms:ReplicateKey, the quotas
// have room, no related key is here, and the token can hold such keys. Its errors are *Error.
func (s *Service) CheckReplica(ctx context.Context, claim ReplicaClaim) error {
	if err := s.checkReplica(claim); err != nil {
		return answer(err) // not a nil *Error in an error
	}
	return nil
}

func (s *Service) checkReplica(claim ReplicaClaim) error {
	p := claim.Principal
	if !slices.Contains(s.accounts, claim.Account) || p.Account != claim.Account || p.Partition != s.partition {
		return refuse(ErrAccessDenied, "Account %s is not served in Region %s for %s.", claim.Account, s.self.Region, p)
	}
	if err := s.acceptable(claim); err != nil {
		return err
	}
	actions := []string{"kms:CreateKey"}
	if len(claim.Tags) > 0 {
		actions = append(actions, "kms:TagResource")
	}
	a := askerFor(p)
	a.says = saysOfNew(claim.Spec, claim.Usage, claim.Origin, true, Replica)
	for _, action := range actions {
		if d := s.decide(&a, action, "*", nil); !d.Allowed {
			return refuse(ErrAccessDenied, "User: %s is not authorized to perform: %s in Region %s: %s.", p, action, s.self.Region, d.Missing)
		}
	}
	if s.replicationDenied(&a, claim) {
		return refuse(ErrAccessDenied, "User: %s is denied kms:ReplicateKey from Region %s to Region %s by an identity policy there.", p, claim.Source, s.self.Region)
	}
	if err := s.thawed(); err != nil {
		return err
	}
	k := s.view.key(claim.Key)
	if k != nil && k.Account == claim.Account && k.unlistedBy(claim.Source) {
		return s.relistable(claim)
	}
	if k != nil || s.view.unreadable(claim.Key) != nil {
		return refuse(ErrAlreadyExists, "Key %s exists in Region %s already.", claim.Key, s.self.Region)
	}
	if !claim.Key.MultiRegion() {
		return refuse(ErrUnsupportedOperation, "Key %s is not a multi-Region key.", claim.Key)
	}
	if err := s.possible(claim.Spec, claim.Usage, claim.Origin, true); err != nil {
		return err
	}
	if _, err := s.words(&a, string(claim.Policy), claim.Description, claim.Tags, true); err != nil {
		return err
	}
	return s.underQuota(claim.Account, claim.Principal.String())
}

// relistable refuses what would seem to change a key that is here, and only be listed again.
func (s *Service) relistable(claim ReplicaClaim) error {
	if len(claim.Tags) > 0 || claim.Description != "" || len(claim.Policy) > 0 && !bytes.Equal(claim.Policy, policy.DefaultKeyPolicy(s.partition, string(claim.Account))) {
		return refuse(ErrAlreadyExists, "Key %s is in Region %s, with a key policy, description and tags of its own: replicate it without them, and change them there.", claim.Key, s.self.Region)
	}
	return nil
}

// unlistedBy reports whether the key is here and a Region that says that it has the primary key
// may not count it as a member: because it was evicted, or because restored backups have
// forgotten it, and perhaps this Region has not heard of the promotion since. Then ReplicateKey
// lists it again. What that Region signs decides, not what it says here.
func (k *Key) unlistedBy(primary region.Name) bool {
	if k.Set == nil || k.Set.Incarnation() == 0 || k.Set.Told() || k.Set.Destroying() {
		return false
	}
	return k.Set.Primary() != primary || !k.Set.Entry(k.Set.Self().Region).Status.In()
}

// AdmitReplica makes the row of a replica key, in state Creating, with the facts that set
// holds (rule 3). The caller has verified them; the claim is decided here.
func (s *Service) AdmitReplica(ctx context.Context, claim ReplicaClaim, set *mrk.Set) error {
	cause := Cause{Event: "CreateKey", Peer: claim.Source, CorrelationID: claim.CorrelationID}
	details := map[string]string{"claimedPrincipal": claim.Principal.String()}
	err := s.admitReplica(ctx, claim, set, func() error { return s.auditBegun(ctx, cause, claim.Account, claim.Key, details) })
	return s.auditEvent(ctx, cause, claim.Account, claim.Key, details, err)
}

// admitReplica calls begin once the claim was let in, before anything is made.
func (s *Service) admitReplica(ctx context.Context, claim ReplicaClaim, set *mrk.Set, begin func() error) error {
	if err := s.checkReplica(claim); guard3Policy.Stops(err != nil) {
		return err
	}
	if set.Self() != s.me() || set.Incarnation() == 0 {
		return fmt.Errorf("admitting a replica of key %s: %w", claim.Key, mrk.ErrForeign)
	}
	st := set.State()
	if set.Key() != claim.Key || st == nil || st.Account != claim.Account ||
		st.Spec != string(claim.Spec) || st.Usage != string(claim.Usage) || st.Origin != string(claim.Origin) {
		return fmt.Errorf("admitting a replica of key %s: %w", claim.Key, mrk.ErrRequest)
	}
	a := askerFor(claim.Principal)
	w, err := s.words(&a, string(claim.Policy), claim.Description, claim.Tags, true)
	if err != nil {
		return err
	}
	k := &Key{
		ID: claim.Key, Account: claim.Account, Spec: claim.Spec, Usage: claim.Usage, Origin: claim.Origin,
		Description: claim.Description, Policy: w.policy, Tags: w.tags,
		Created: s.clock().UTC(), Creator: claim.Principal.String(), State: keystate.Creating, Set: set.Clone(),
	}
	// A replica that was deleted here, and is asked for again, takes the place of the old row.
	var old *Key
	if e := s.view.entry(k.ID); e != nil {
		e.change.Lock()
		defer e.change.Unlock()
		old = e.key.Load()
	}
	if err := s.settle(ctx, nil, k); err != nil {
		return err
	}
	if err := begin(); err != nil {
		return err
	}
	return s.commit(ctx, func(*seal.Tx) error {
		// Asked again where nobody can come between.
		if s.view.fact(k.ID) != old || old != nil && !old.Gone() {
			return refuse(ErrAlreadyExists, "Key %s exists in Region %s already.", k.ID, s.self.Region)
		}
		if err := s.underPeerQuota(claim.Source); err != nil {
			return err
		}
		return s.underQuota(k.Account, k.Creator)
	}, pair{old, k})
}

// Signer signs statements in this Region's name, in the token.
func (s *Service) Signer() mrk.Signer { return regionKey{s.token, s.signing} }

// regionKey is the Region signing key.
type regionKey struct {
	token Token
	id    hsm.ID
}

func (k regionKey) Sign(ctx context.Context, p statement.Purpose, payload []byte) (statement.Signed, error) {
	return statement.Sign(ctx, statement.SignerFunc(func(ctx context.Context, digest []byte) ([]byte, error) {
		return k.token.Sign(ctx, k.id, hsm.RegionScheme, digest)
	}), p, payload)
}
