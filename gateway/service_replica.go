package gateway

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/region"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
	"github.com/keyferry/keyferry/replication"
)

// Replication tells how far other Regions have confirmed what this Region knows;
// *replication.Replicator does. Its methods answer from memory and may be called at once.
type Replication interface {
	// Status returns a row for each Region that has or is to have the key.
	Status(arn.KeyID) []ReplicaStatus
	// Peers returns a row for each peer, ordered by Region.
	Peers() []PeerStatus
}

// ReplicaStatus is what is known here of one member of a multi-Region key.
type ReplicaStatus = replication.RegionStatus

// PeerStatus is how the connection to one peer Region stands.
type PeerStatus = replication.PeerStatus

// ListReplicas asks keyops for the key first, which authorises and audits the call.
func (s *keyService) ListReplicas(ctx context.Context, r *kmsv1.ListReplicasRequest) (*kmsv1.ListReplicasResponse, error) {
	out, err := s.keys.DescribeKey(ctx, callerOf(ctx), keyops.DescribeKeyInput{KeyID: r.GetKeyId()})
	if err != nil {
		return nil, err
	}
	config := out.KeyMetadata.MultiRegionConfiguration
	if config == nil {
		return nil, &keyops.Error{Reason: keyops.ErrUnsupportedOperation, Message: out.KeyMetadata.ARN + " is not a multi-region key."}
	}
	status := map[region.Name]ReplicaStatus{}
	if s.replication != nil {
		for _, row := range s.replication.Status(out.KeyMetadata.KeyID) {
			status[row.Region] = row
		}
	}
	resp := &kmsv1.ListReplicasResponse{Replicas: []*kmsv1.Replica{toReplica(config.PrimaryKey, keyops.Primary, status)}}
	for _, k := range config.ReplicaKeys {
		resp.Replicas = append(resp.Replicas, toReplica(k, keyops.Replica, status))
	}
	return resp, nil
}

func toReplica(k keyops.MultiRegionKey, role keyops.MultiRegionKeyType, rows map[region.Name]ReplicaStatus) *kmsv1.Replica {
	row := rows[k.Region]
	out := &kmsv1.Replica{
		Region:               string(k.Region),
		KeyArn:               k.ARN,
		MultiRegionKeyType:   string(role),
		KeyState:             row.KeyState,
		Status:               kmsv1.ReplicationStatus(kmsv1.ReplicationStatus_value["REPLICATION_STATUS_"+row.Status]),
		FailureCause:         kmsv1.FailureCause(kmsv1.FailureCause_value["FAILURE_CAUSE_"+row.Cause]),
		FailureText:          row.Text,
		Attempts:             uint32(row.Attempts),
		NextAttemptTime:      toTime(row.NextTry),
		LagFacts:             uint32(row.LagFacts),
		LastSynchronizedTime: toTime(row.LastSynchronized),
		HeldKeyMaterialIds:   row.Held,
		DeletionDate:         toTime(k.DeletionDate),
	}
	if row.Lag > 0 {
		out.Lag = durationpb.New(row.Lag)
	}
	return out
}

// ListPeers asks keyops for the Region first, which authorises and audits the call.
func (s *regionService) ListPeers(ctx context.Context, _ *kmsv1.ListPeersRequest) (*kmsv1.ListPeersResponse, error) {
	if _, err := s.keys.DescribeRegion(ctx, callerOf(ctx), keyops.DescribeRegionInput{}); err != nil {
		return nil, err
	}
	resp := &kmsv1.ListPeersResponse{}
	if s.replication == nil {
		return resp, nil
	}
	for _, p := range s.replication.Peers() {
		resp.Peers = append(resp.Peers, &kmsv1.Peer{
			Region:           string(p.Region),
			InstanceId:       string(p.Instance),
			Fingerprint:      p.Fingerprint,
			Address:          p.Address,
			Connected:        !p.Connected.IsZero(),
			ConnectedTime:    toTime(p.Connected),
			LastExchangeTime: toTime(p.LastExchange),
			LastError:        p.LastError,
			UnconfirmedKeys:  uint32(p.Unconfirmed),
		})
	}
	return resp, nil
}
