package gateway

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/region"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// regionService answers RegionService out of keyops and replication.
type regionService struct {
	kmsv1.UnimplementedRegionServiceServer
	keys        keyops.Operations
	replication Replication
	region      region.Name
	version     string
	doctor      func(context.Context) []HealthCheck
	now         func() time.Time
}

func (s *regionService) DescribeRegion(ctx context.Context, _ *kmsv1.DescribeRegionRequest) (*kmsv1.DescribeRegionResponse, error) {
	out, err := s.keys.DescribeRegion(ctx, callerOf(ctx), keyops.DescribeRegionInput{})
	if err != nil {
		return nil, err
	}
	resp := &kmsv1.DescribeRegionResponse{
		Region:          string(out.Region),
		InstanceId:      string(out.Instance),
		Partition:       out.Partition,
		Fingerprint:     out.Fingerprint,
		SoftwareVersion: s.version,
		Token: &kmsv1.TokenInfo{
			Label:        out.Token.Label,
			Serial:       out.Token.Serial,
			Manufacturer: out.Token.Manufacturer,
			Model:        out.Token.Model,
			Firmware:     out.Token.Firmware,
			Profile:      out.Token.Profile,
			Backup:       out.Token.Backup,
		},
		Boundary: boundaries[out.Boundary],
		KeyQuota: uint32(out.KeyQuota),
		KeyCount: uint32(out.KeyCount),

		RosterVersion:      out.Roster,
		Operators:          uint32(out.Operators),
		ApprovalsNeeded:    uint32(out.ApprovalsNeeded),
		ApprovedOperations: out.ApprovedOperations,

		WrappingAlgorithms: toStrings(out.WrappingAlgorithms),
		WrappingKeySpecs:   toStrings(out.WrappingKeySpecs),
	}
	for _, k := range out.KeySpecs {
		resp.KeySpecs = append(resp.KeySpecs, &kmsv1.KeySpecSupport{
			KeySpec:     string(k.KeySpec),
			KeyUsages:   toStrings(k.KeyUsages),
			Algorithms:  toStrings(k.Algorithms),
			Supported:   k.Supported,
			MultiRegion: k.MultiRegion,
			Reason:      k.Reason,
		})
	}
	return resp, nil
}

func (s *regionService) GetCallerIdentity(ctx context.Context, _ *kmsv1.GetCallerIdentityRequest) (*kmsv1.GetCallerIdentityResponse, error) {
	out, err := s.keys.GetCallerIdentity(ctx, callerOf(ctx), keyops.GetCallerIdentityInput{})
	if err != nil {
		return nil, err
	}
	who := identityOf(ctx)
	return &kmsv1.GetCallerIdentityResponse{
		AccountId:      string(out.Account),
		Arn:            out.ARN,
		Region:         string(s.region),
		CredentialType: who.means,
		PrincipalRule:  uint32(who.rule),
		ExpireTime:     timestamppb.New(who.expires),
	}, nil
}
