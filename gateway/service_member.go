package gateway

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/region"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (s *keyService) PromoteKey(ctx context.Context, r *kmsv1.PromoteKeyRequest) (*kmsv1.PromoteKeyResponse, error) {
	out, err := s.keys.PromoteKey(ctx, callerOf(ctx), keyops.PromoteKeyInput{
		KeyID: r.GetKeyId(), SuspendRegions: r.GetSuspendRegions(),
		KeyPlace: fromPlace(r), Approvals: r.GetApprovals(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.PromoteKeyResponse{KeyId: out.KeyID, Generation: out.Generation}, nil
}

func (s *keyService) SuspendReplica(ctx context.Context, r *kmsv1.SuspendReplicaRequest) (*kmsv1.SuspendReplicaResponse, error) {
	approvals, err := fromApprovals(r)
	if err != nil {
		return nil, err
	}
	out, err := s.keys.SuspendReplica(ctx, callerOf(ctx), keyops.SuspendReplicaInput{
		KeyID: r.GetKeyId(), ReplicaRegion: r.GetReplicaRegion(), KeyPlace: fromPlace(r), Approvals: approvals,
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.SuspendReplicaResponse{ApprovalRequest: out.ApprovalRequest}, nil
}

func (s *keyService) EvictReplica(ctx context.Context, r *kmsv1.EvictReplicaRequest) (*kmsv1.EvictReplicaResponse, error) {
	approvals, err := fromApprovals(r)
	if err != nil {
		return nil, err
	}
	out, err := s.keys.EvictReplica(ctx, callerOf(ctx), keyops.EvictReplicaInput{
		KeyID: r.GetKeyId(), ReplicaRegion: r.GetReplicaRegion(), KeyPlace: fromPlace(r), Approvals: approvals,
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.EvictReplicaResponse{ApprovalRequest: out.ApprovalRequest}, nil
}

func (s *keyService) WriteOffKeyMaterial(ctx context.Context, r *kmsv1.WriteOffKeyMaterialRequest) (*kmsv1.WriteOffKeyMaterialResponse, error) {
	approvals, err := fromApprovals(r)
	if err != nil {
		return nil, err
	}
	out, err := s.keys.WriteOffKeyMaterial(ctx, callerOf(ctx), keyops.WriteOffKeyMaterialInput{
		KeyID: r.GetKeyId(), KeyMaterialID: r.GetKeyMaterialId(), Approvals: approvals,
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.WriteOffKeyMaterialResponse{ApprovalRequest: out.ApprovalRequest}, nil
}

// placed is a request about one key of a list that operators approve.
type placed interface {
	GetKeyCount() uint64
	GetKeyIndex() uint64
	GetPath() [][]byte
}

func fromPlace(r placed) keyops.KeyPlace {
	return keyops.KeyPlace{KeyCount: r.GetKeyCount(), KeyIndex: r.GetKeyIndex(), Path: r.GetPath()}
}

// approvable is a request of an operation that takes approvals.
type approvable interface {
	GetApprovals() [][]byte
	GetRequestApprovals() bool
	GetApprovalLife() *durationpb.Duration
}

func fromApprovals(r approvable) (keyops.Approvals, error) {
	a := keyops.Approvals{Files: r.GetApprovals(), Request: r.GetRequestApprovals()}
	if life := r.GetApprovalLife(); life != nil {
		if life.CheckValid() != nil {
			return a, &keyops.Error{Reason: keyops.ErrValidation, Message: "approvalLife is not a duration."}
		}
		if a.Life = life.AsDuration(); a.Life == 0 {
			a.Life = -time.Second // said, and of no length: keyops refuses it
		}
	}
	return a, nil
}

// synchronized adds to the members of a key how far each has confirmed what is known here.
func (s *keyService) synchronized(k keyops.KeyMetadata, set *kmsv1.MultiRegionConfiguration) {
	if set == nil || s.replication == nil {
		return
	}
	rows := map[region.Name]ReplicaStatus{}
	for _, row := range s.replication.Status(k.KeyID) {
		rows[row.Region] = row
	}
	for _, m := range append([]*kmsv1.MultiRegionKey{set.GetPrimaryKey()}, set.GetReplicaKeys()...) {
		row, known := rows[region.Name(m.GetRegion())]
		if !known {
			continue
		}
		m.ReplicationStatus = kmsv1.ReplicationStatus(kmsv1.ReplicationStatus_value["REPLICATION_STATUS_"+row.Status])
		m.FailureCause = kmsv1.FailureCause(kmsv1.FailureCause_value["FAILURE_CAUSE_"+row.Cause])
		m.LastSynchronizedTime = toTime(row.LastSynchronized)
		if row.Lag > 0 {
			m.Lag = durationpb.New(row.Lag)
		}
	}
}
