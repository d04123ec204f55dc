package keyops

import (
	"context"
	"slices"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/region"
)

// DescribeKey returns a key's metadata, in every state.
func (s *Service) DescribeKey(ctx context.Context, caller Caller, in DescribeKeyInput) (DescribeKeyOutput, error) {
	return do(ctx, s, caller, "DescribeKey", target{ref: in.KeyID, tokens: in.GrantTokens}, func(ctx context.Context, c *call) (DescribeKeyOutput, error) {
		return DescribeKeyOutput{KeyMetadata: s.describe(ctx, c.key)}, nil
	})
}

// describe returns what callers see of a key.
func (s *Service) describe(ctx context.Context, k *Key) KeyMetadata {
	md := s.describeProperties(k)
	md.Exportability = s.exportability(ctx, k)
	if md.Enabled && s.deprived(ctx, k) {
		md.KeyState, md.Enabled = string(keystate.Unavailable), false
		if k.Origin == OriginExternal { // whose owner has the material
			md.KeyState = string(keystate.PendingImport)
		}
	}
	return md
}

// describeProperties leaves out what only the token knows.
func (s *Service) describeProperties(k *Key) KeyMetadata {
	state := k.stateAt(s.clock())
	md := KeyMetadata{
		AccountID: k.Account, KeyID: k.ID, ARN: k.arn, CreationDate: k.Created, Description: k.Description,
		Enabled: state == keystate.Enabled, KeyState: string(state), KeySpec: k.Spec, KeyUsage: k.Usage, Origin: k.Origin,
		MultiRegion: k.ID.MultiRegion(),
	}
	algorithms := slices.Clone(k.use().algorithms)
	switch k.Usage {
	case EncryptDecrypt:
		md.EncryptionAlgorithms = algorithms
	case SignVerify:
		md.SigningAlgorithms = algorithms
	case GenerateVerifyMac:
		md.MacAlgorithms = algorithms
	case KeyAgreement:
		md.KeyAgreementAlgorithms = algorithms
	}
	md.RotationDue = k.rotationDue()
	if k.Spec == SymmetricDefault && !k.Current.IsZero() {
		md.CurrentKeyMaterialID = k.Current.String()
	}
	md.DeletionDate = k.DeletionDate
	if k.State == keystate.PendingReplicaDeletion {
		md.PendingDeletionWindowInDays, md.ExpectedDeletionDate = k.PendingDays, s.expectedDeletion(k)
	}
	if m := k.Material(k.Current); m != nil && m.Import == MaterialImported {
		md.ExpirationModel, md.ValidTo = m.Expiration, m.Expires
	}
	if k.Set != nil {
		md.MultiRegionConfiguration = s.members(k)
	}
	return md
}

// members returns the set as this Region knows it.
func (s *Service) members(k *Key) *MultiRegionConfiguration {
	dates := map[region.Name]time.Time{s.self.Region: k.DeletionDate}
	for _, m := range k.Set.Members() {
		if m.Region != s.self.Region {
			dates[m.Region] = due(m)
		}
	}
	at := func(r region.Name) MultiRegionKey {
		return MultiRegionKey{ARN: s.keyARNIn(r, k.Account, k.ID), Region: r, Member: k.Set.Entry(r).Status.String(), DeletionDate: dates[r]}
	}
	e := k.Set.Epoch()
	primary := k.Set.Primary()
	conf := &MultiRegionConfiguration{MultiRegionKeyType: s.keyType(k), PrimaryKey: at(primary), ReplicaKeys: []MultiRegionKey{},
		Epoch: KeyEpoch{Generation: e.Line.Generation, Number: e.Number}, Certificate: k.Set.Head().String()}
	for _, m := range k.Set.Members() {
		if m.Region != primary {
			conf.ReplicaKeys = append(conf.ReplicaKeys, at(m.Region))
		}
	}
	return conf
}

// exportability says what the token itself says of the key's materials. One that could
// leave decides.
func (s *Service) exportability(ctx context.Context, k *Key) Exportability {
	e := ExportUnknown
	for _, m := range k.Materials {
		o, err := s.token.Lookup(ctx, m.Object)
		switch {
		case err != nil:
			return ExportUnknown
		case o.Extractable && !o.WrapWithTrusted:
			return ExportUnknown // no template of ours: the index should not have it
		case o.Extractable:
			e = ExportTransportOnly
		case e == ExportUnknown:
			e = ExportNever
		}
	}
	return e
}

// EnableKey switches a disabled key on again.
func (s *Service) EnableKey(ctx context.Context, caller Caller, in EnableKeyInput) (EnableKeyOutput, error) {
	return do(ctx, s, caller, "EnableKey", target{ref: in.KeyID}, func(ctx context.Context, c *call) (EnableKeyOutput, error) {
		return EnableKeyOutput{}, s.turn(ctx, c, keystate.Enabled)
	})
}

// DisableKey switches a key off. It holds for this Region's key only.
func (s *Service) DisableKey(ctx context.Context, caller Caller, in DisableKeyInput) (DisableKeyOutput, error) {
	return do(ctx, s, caller, "DisableKey", target{ref: in.KeyID}, func(ctx context.Context, c *call) (DisableKeyOutput, error) {
		return DisableKeyOutput{}, s.turn(ctx, c, keystate.Disabled)
	})
}

func (s *Service) turn(ctx context.Context, c *call, to keystate.State) error {
	_, err := s.change(ctx, c.key.ID, func(k *Key) error {
		if err := s.still(c, k); err != nil {
			return err
		}
		shut := k.Set != nil && k.Set.Shut()
		if to == keystate.Disabled && shut && k.State == to && !k.Withheld {
			k.Withheld = true
			return nil
		}
		if k.State == to {
			return ErrUnchanged
		}
		if to == keystate.Enabled && shut {
			return refuse(ErrInvalidState, "%s was evicted from its multi-Region key by the primary key's Region; replicate it again to use it.", k.arn)
		}
		if err := keystate.Transition(k.State, to); err != nil {
			return refuse(ErrInvalidState, "%s cannot be %s now.", k.arn, to)
		}
		k.State = to
		return nil
	}, nil)
	return err
}

// GetCallerIdentity returns who the service takes the caller for.
func (s *Service) GetCallerIdentity(ctx context.Context, caller Caller, _ GetCallerIdentityInput) (GetCallerIdentityOutput, error) {
	return do(ctx, s, caller, "GetCallerIdentity", target{}, func(context.Context, *call) (GetCallerIdentityOutput, error) {
		return GetCallerIdentityOutput{ARN: caller.Principal.String(), Account: caller.Principal.Account}, nil
	})
}

// DescribeRegion returns what this Region is and what its token can do.
func (s *Service) DescribeRegion(ctx context.Context, caller Caller, _ DescribeRegionInput) (DescribeRegionOutput, error) {
	return do(ctx, s, caller, "DescribeRegion", target{}, func(_ context.Context, c *call) (DescribeRegionOutput, error) {
		info, can, roster := s.token.Info(), s.token.Capabilities(), s.operators()
		return DescribeRegionOutput{
			Region: s.self.Region, Instance: s.self.Instance, Partition: s.partition, Fingerprint: s.fingerprint,
			Boundary: string(s.boundary),
			Token: TokenDescription{
				Label: info.Label, Serial: info.Serial, Manufacturer: info.Manufacturer,
				Model: info.Model, Firmware: info.Firmware, Profile: info.Profile, Backup: string(info.Backup),
			},
			KeySpecs: s.support(can),
			// Package hsm has AWS's names, too.
			WrappingAlgorithms: as[WrappingAlgorithm](can.ImportSchemes), WrappingKeySpecs: as[WrappingKeySpec](can.ImportKeys),
			Roster: roster.Version, Operators: len(roster.Operators), ApprovalsNeeded: roster.Threshold,
			ApprovedOperations: as[string](s.quorum.Guarded()),
			KeyQuota:           s.quota, KeyCount: s.view.count(c.caller.Principal.Account),
		}, nil
	})
}

// as gives names another type.
func as[To, From ~string](names []From) []To {
	var out []To
	for _, n := range names {
		out = append(out, To(n))
	}
	return out
}

// support says of every key spec whether this token can hold such keys.
func (s *Service) support(can hsm.Capabilities) []KeySpecSupport {
	var list []KeySpecSupport
	for _, row := range specs {
		e := KeySpecSupport{KeySpec: row.spec, Reason: row.limit}
		for _, u := range row.uses {
			limit := can.Of(u.token, u.tokenUsage)
			if !limit.Generate || !limit.Use {
				e.Reason = limit.Limit
				continue
			}
			e.Supported, e.MultiRegion = true, limit.Wrap
			if !limit.Wrap {
				e.Reason = limit.Limit
			}
			e.KeyUsages = append(e.KeyUsages, u.usage)
			e.Algorithms = append(e.Algorithms, u.algorithms...)
		}
		list = append(list, e)
	}
	return list
}
