package gateway

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyferry/keyferry/keyops"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// HealthLevel is how one thing stands.
type HealthLevel int

// Levels of health, the worst last.
const (
	HealthOK      HealthLevel = iota // nothing to do
	HealthWarning                    // works, and will not for ever
	HealthProblem                    // does not work, or something is refused because of it
)

// HealthCheck is one thing that was looked at. The words go to operators, so they name no
// secret and may name paths.
type HealthCheck struct {
	Name, Subject string
	Level         HealthLevel
	Summary       string
	Advice        string
	Values        map[string]float64 // the unit is part of the name
}

var healthLevels = map[HealthLevel]kmsv1.HealthLevel{
	HealthOK:      kmsv1.HealthLevel_HEALTH_LEVEL_OK,
	HealthWarning: kmsv1.HealthLevel_HEALTH_LEVEL_WARNING,
	HealthProblem: kmsv1.HealthLevel_HEALTH_LEVEL_PROBLEM,
}

// GetRegionHealth asks keyops for the Region first, which authorises and audits the call.
func (s *regionService) GetRegionHealth(ctx context.Context, _ *kmsv1.GetRegionHealthRequest) (*kmsv1.GetRegionHealthResponse, error) {
	out, err := s.keys.DescribeRegion(ctx, callerOf(ctx), keyops.DescribeRegionInput{})
	if err != nil {
		return nil, err
	}
	resp := &kmsv1.GetRegionHealthResponse{Region: string(out.Region), InstanceId: string(out.Instance), Time: timestamppb.New(s.now())}
	if s.doctor == nil {
		return resp, nil
	}
	for _, c := range s.doctor(ctx) {
		resp.Checks = append(resp.Checks, &kmsv1.HealthCheck{
			Name: c.Name, Subject: c.Subject, Level: healthLevels[c.Level], Summary: c.Summary, Advice: c.Advice, Values: c.Values,
		})
	}
	return resp, nil
}
