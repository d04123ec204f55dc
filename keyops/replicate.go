package keyops

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/region"
)

// ReplicateKey makes a replica of a multi-Region primary key in another Region (rule 2). It
// returns once the replica is listed, durably; the material follows by itself. If the
// other Region cannot be reached now, the call is accepted and that Region decides when it
// hears of it: the replication status says what became of it.
func (s *Service) ReplicateKey(ctx context.Context, caller Caller, in ReplicateKeyInput) (ReplicateKeyOutput, error) {
	return s.replicate(ctx, caller, in, nil, true)
}

// replicate is ReplicateKey, for a caller or for a synchronization in its principal's name;
// details say which. ask is false if the other Region is known not to answer now.
func (s *Service) replicate(ctx context.Context, caller Caller, in ReplicateKeyInput, details map[string]string, ask bool) (ReplicateKeyOutput, error) {
	t := target{ref: in.KeyID, says: []say{{policy.ReplicaRegion, in.ReplicaRegion}}, details: details}
	return do(ctx, s, caller, "ReplicateKey", t, func(ctx context.Context, c *call) (ReplicateKeyOutput, error) {
		c.record.detail("replicaRegion", clip(in.ReplicaRegion))
		to, err := s.replicaRegion(c.key, in.ReplicaRegion)
		if err != nil {
			return ReplicateKeyOutput{}, err
		}
		if err := s.maySend(c.key.Account, to.Region); err != nil {
			return ReplicateKeyOutput{}, err
		}
		w, err := s.words(&c.asker, in.Policy, in.Description, in.Tags, in.BypassPolicyLockoutSafetyCheck)
		if err != nil {
			return ReplicateKeyOutput{}, err
		}
		claim := ReplicaClaim{
			Source: s.self.Region, Key: c.key.ID, Account: c.key.Account, Principal: caller.Principal,
			Spec: c.key.Spec, Usage: c.key.Usage, Origin: c.key.Origin,
			Policy: w.policy, Description: in.Description, Tags: in.Tags, Materials: len(c.key.Set.Listed()),
			CorrelationID: caller.correlation(),
		}
		if ask {
			if err := s.peers.CheckReplica(ctx, to.Region, claim); guard2Destination.Stops(err != nil && !errors.Is(err, ErrPeerUnreachable)) {
				return ReplicateKeyOutput{}, refusedBy(to.Region, err)
			}
		}
		now, err := s.addMember(ctx, c, to, claim)
		if err != nil {
			return ReplicateKeyOutput{}, err
		}
		return ReplicateKeyOutput{
			ReplicaKeyMetadata: s.describeReplica(now, to.Region, in.Description),
			ReplicaPolicy:      string(claim.Policy),
			ReplicaTags:        in.Tags,
		}, nil
	})
}

// replicaRegion checks that the key can be replicated, and where to.
func (s *Service) replicaRegion(k *Key, name string) (region.Descriptor, error) {
	var none region.Descriptor
	if err := s.isPrimary(k); err != nil {
		return none, err
	}
	to, err := region.ParseName(name)
	if err != nil {
		return none, invalid("replicaRegion", "satisfy regular expression pattern: ^([a-z]+-){2,3}\\d+$")
	}
	if to == s.self.Region {
		return none, refuse(ErrAlreadyExists, "Key %s exists in Region %s already.", k.ID, to)
	}
	if s.peers == nil {
		return none, refuse(ErrInvalidArn, "Region %s is not known here.", to)
	}
	d, known := s.peers.Peer(to)
	if !known {
		return none, refuse(ErrInvalidArn, "Region %s is not known here.", to)
	}
	if d.Partition != s.partition {
		return none, refuse(ErrInvalidArn, "Region %s is in another partition.", to)
	}
	return d, s.together(d)
}

// refusedBy passes on what another Region said, which is an answer like one of ours.
func refusedBy(r region.Name, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return &Error{Reason: e.Reason, Message: fmt.Sprintf("Region %s refuses the replica: %s", r, e.Message), cause: err}
	}
	return err
}

// addMember lists the new replica.
func (s *Service) addMember(ctx context.Context, c *call, to region.Descriptor, claim ReplicaClaim) (*Key, error) {
	req := mrk.CreateRequest{
		Principal: claim.Principal.String(), CorrelationID: claim.CorrelationID,
		Description: claim.Description, Policy: claim.Policy,
	}
	for _, t := range claim.Tags {
		req.Tags = append(req.Tags, mrk.Tag(t))
	}
	now, err := s.change(ctx, c.key.ID, func(k *Key) error {
		if err := s.still(c, k); err != nil {
			return err
		}
		return k.Set.AddMember(ctx, s.Signer(), to.Region, to.Instance, req)
	}, nil)
	if errors.Is(err, mrk.ErrMember) {
		return nil, refuse(ErrAlreadyExists, "Key %s exists in Region %s already.", c.key.ID, to.Region)
	}
	if err != nil {
		return nil, s.unmanaged(c.key, err)
	}
	return now, nil
}

// describeReplica returns the metadata of a replica that is about to be made.
func (s *Service) describeReplica(k *Key, to region.Name, description string) KeyMetadata {
	md := s.describeProperties(k)
	md.ARN = s.keyARNIn(to, k.Account, k.ID)
	md.CreationDate, md.Description = s.clock().UTC(), description
	md.Enabled, md.KeyState, md.CurrentKeyMaterialID = false, string(keystate.Creating), ""
	md.Exportability = ExportTransportOnly
	md.MultiRegionConfiguration.MultiRegionKeyType = Replica
	return md
}
