package gateway

import (
	"context"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/synchronization"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// synchronizationService answers SynchronizationService out of keyops.
type synchronizationService struct {
	kmsv1.UnimplementedSynchronizationServiceServer
	keys keyops.Operations
}

func (s *synchronizationService) CreateSynchronization(ctx context.Context, _ *kmsv1.CreateSynchronizationRequest) (*kmsv1.CreateSynchronizationResponse, error) {
	out, err := s.keys.CreateSynchronization(ctx, callerOf(ctx), keyops.CreateSynchronizationInput{})
	if err != nil {
		return nil, err
	}
	return &kmsv1.CreateSynchronizationResponse{Synchronization: toSynchronization(out.Synchronization)}, nil
}

func (s *synchronizationService) ListSynchronizations(ctx context.Context, _ *kmsv1.ListSynchronizationsRequest) (*kmsv1.ListSynchronizationsResponse, error) {
	out, err := s.keys.ListSynchronizations(ctx, callerOf(ctx), keyops.ListSynchronizationsInput{})
	if err != nil {
		return nil, err
	}
	resp := &kmsv1.ListSynchronizationsResponse{}
	for _, y := range out.Synchronizations {
		resp.Synchronizations = append(resp.Synchronizations, toSynchronization(y))
	}
	return resp, nil
}

func (s *synchronizationService) GetSynchronization(ctx context.Context, r *kmsv1.GetSynchronizationRequest) (*kmsv1.GetSynchronizationResponse, error) {
	out, err := s.keys.GetSynchronization(ctx, callerOf(ctx), keyops.GetSynchronizationInput{SynchronizationID: r.GetSynchronizationId()})
	if err != nil {
		return nil, err
	}
	return &kmsv1.GetSynchronizationResponse{Synchronization: toSynchronization(out.Synchronization)}, nil
}

func (s *synchronizationService) AssociateReplicaInstance(ctx context.Context, r *kmsv1.AssociateReplicaInstanceRequest) (*kmsv1.AssociateReplicaInstanceResponse, error) {
	out, err := s.keys.AssociateReplicaInstance(ctx, callerOf(ctx), keyops.AssociateReplicaInstanceInput{
		SynchronizationID: r.GetSynchronizationId(), ReplicaInstance: r.GetReplicaInstance(),
		SynchronizationType: synchronization.Type(r.GetSynchronizationType()), Resources: r.GetResources(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.AssociateReplicaInstanceResponse{Synchronization: toSynchronization(out.Synchronization)}, nil
}

func (s *synchronizationService) DisassociateReplicaInstance(ctx context.Context, r *kmsv1.DisassociateReplicaInstanceRequest) (*kmsv1.DisassociateReplicaInstanceResponse, error) {
	approvals, err := fromApprovals(r)
	if err != nil {
		return nil, err
	}
	out, err := s.keys.DisassociateReplicaInstance(ctx, callerOf(ctx), keyops.DisassociateReplicaInstanceInput{
		SynchronizationID: r.GetSynchronizationId(), ReplicaInstance: r.GetReplicaInstance(),
		ConfirmInstanceID: r.GetConfirmInstanceId(), Approvals: approvals,
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.DisassociateReplicaInstanceResponse{Synchronization: toSynchronization(out.Synchronization), ApprovalRequest: out.ApprovalRequest}, nil
}

func (s *synchronizationService) UpdateSynchronization(ctx context.Context, r *kmsv1.UpdateSynchronizationRequest) (*kmsv1.UpdateSynchronizationResponse, error) {
	out, err := s.keys.UpdateSynchronization(ctx, callerOf(ctx), keyops.UpdateSynchronizationInput{
		SynchronizationID: r.GetSynchronizationId(), ReplicaInstance: r.GetReplicaInstance(),
		SynchronizationType: synchronization.Type(r.GetSynchronizationType()),
		AddResources:        r.GetAddResources(), RemoveResources: r.GetRemoveResources(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.UpdateSynchronizationResponse{Synchronization: toSynchronization(out.Synchronization)}, nil
}

func (s *synchronizationService) ListReplicaResources(ctx context.Context, r *kmsv1.ListReplicaResourcesRequest) (*kmsv1.ListReplicaResourcesResponse, error) {
	out, err := s.keys.ListReplicaResources(ctx, callerOf(ctx), keyops.ListReplicaResourcesInput{
		SynchronizationID: r.GetSynchronizationId(), ReplicaInstance: r.GetReplicaInstance(),
		Filter: keyops.ResourceFilter{Status: r.GetStatus(), FailureCause: r.GetFailureCause(), ResourceID: r.GetResourceId()},
		Limit:  int(r.GetLimit()), Marker: r.GetMarker(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.ListReplicaResourcesResponse{Resources: toSynchronizedResources(out.Resources), NextMarker: out.NextMarker, Truncated: out.Truncated}, nil
}

func (s *synchronizationService) ListSynchronizedResources(ctx context.Context, r *kmsv1.ListSynchronizedResourcesRequest) (*kmsv1.ListSynchronizedResourcesResponse, error) {
	out, err := s.keys.ListSynchronizedResources(ctx, callerOf(ctx), keyops.ListSynchronizedResourcesInput{
		SynchronizationID: r.GetSynchronizationId(),
		Filter:            keyops.ResourceFilter{Status: r.GetStatus(), FailureCause: r.GetFailureCause(), ResourceID: r.GetResourceId()},
		Limit:             int(r.GetLimit()), Marker: r.GetMarker(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.ListSynchronizedResourcesResponse{Resources: toSynchronizedResources(out.Resources), NextMarker: out.NextMarker, Truncated: out.Truncated}, nil
}

func toSynchronization(y keyops.Synchronization) *kmsv1.Synchronization {
	out := &kmsv1.Synchronization{
		SynchronizationId: string(y.ID),
		AccountId:         string(y.AccountID),
		CreationDate:      toTime(y.CreationDate),
		PrimaryRegion:     string(y.PrimaryRegion),
		PrimaryInstanceId: string(y.PrimaryInstance),
		Role:              string(y.Role),
	}
	for _, r := range y.Replicas {
		out.Replicas = append(out.Replicas, &kmsv1.ReplicaInstance{
			Region:              string(r.Region),
			InstanceId:          string(r.Instance),
			SynchronizationType: string(r.SynchronizationType),
			Resources:           r.Resources,
			Stage:               string(r.Stage),
			PrincipalArn:        r.Principal,
			CreationDate:        toTime(r.CreationDate),
		})
	}
	return out
}

func toSynchronizedResources(rows []keyops.SynchronizedResource) []*kmsv1.SynchronizedResource {
	var out []*kmsv1.SynchronizedResource
	for _, r := range rows {
		out = append(out, &kmsv1.SynchronizedResource{
			ResourceId:        r.ResourceID,
			ResourceType:      r.ResourceType,
			ReplicaRegion:     string(r.ReplicaRegion),
			ReplicaInstanceId: string(r.ReplicaInstance),
			Status:            kmsv1.ReplicationStatus(kmsv1.ReplicationStatus_value["REPLICATION_STATUS_"+r.Status]),
			FailureCause:      kmsv1.FailureCause(kmsv1.FailureCause_value["FAILURE_CAUSE_"+r.FailureCause]),
			FailureText:       r.FailureText,
		})
	}
	return out
}
