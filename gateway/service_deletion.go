package gateway

import (
	"context"

	"github.com/keyferry/keyferry/keyops"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (s *keyService) ScheduleKeyDeletion(ctx context.Context, r *kmsv1.ScheduleKeyDeletionRequest) (*kmsv1.ScheduleKeyDeletionResponse, error) {
	approvals, err := fromApprovals(r)
	if err != nil {
		return nil, err
	}
	out, err := s.keys.ScheduleKeyDeletion(ctx, callerOf(ctx), keyops.ScheduleKeyDeletionInput{
		KeyID: r.GetKeyId(), PendingWindowInDays: int(r.GetPendingWindowInDays()), Approvals: approvals,
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.ScheduleKeyDeletionResponse{
		KeyId:                out.KeyID,
		KeyState:             out.KeyState,
		DeletionDate:         toTime(out.DeletionDate),
		PendingWindowInDays:  uint32(out.PendingWindowInDays),
		ExpectedDeletionDate: toTime(out.Expected),
		ApprovalRequest:      out.ApprovalRequest,
	}, nil
}

func (s *keyService) CancelKeyDeletion(ctx context.Context, r *kmsv1.CancelKeyDeletionRequest) (*kmsv1.CancelKeyDeletionResponse, error) {
	out, err := s.keys.CancelKeyDeletion(ctx, callerOf(ctx), keyops.CancelKeyDeletionInput{KeyID: r.GetKeyId()})
	if err != nil {
		return nil, err
	}
	return &kmsv1.CancelKeyDeletionResponse{KeyId: out.KeyID}, nil
}

func (s *keyService) GetKeyLastUsage(ctx context.Context, r *kmsv1.GetKeyLastUsageRequest) (*kmsv1.GetKeyLastUsageResponse, error) {
	out, err := s.keys.GetKeyLastUsage(ctx, callerOf(ctx), keyops.GetKeyLastUsageInput{KeyID: r.GetKeyId()})
	if err != nil {
		return nil, err
	}
	resp := &kmsv1.GetKeyLastUsageResponse{
		KeyId:             out.KeyID,
		TrackingStartDate: toTime(out.TrackingStartDate),
		KeyCreationDate:   toTime(out.KeyCreationDate),
	}
	if u := out.KeyLastUsage; u != nil {
		resp.KeyLastUsage = &kmsv1.KeyLastUsage{Operation: u.Operation, Timestamp: toTime(u.Timestamp), KmsRequestId: u.KmsRequestID}
	}
	return resp, nil
}
