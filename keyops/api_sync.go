package keyops

import (
	"time"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/synchronization"
)

// CreateSynchronizationInput is empty: the serving instance becomes the primary instance.
type CreateSynchronizationInput struct{}

// CreateSynchronizationOutput is the new synchronization, which has no replica instance yet.
type CreateSynchronizationOutput struct{ Synchronization Synchronization }

// Synchronization is what an instance knows of a synchronization that it is part of.
type Synchronization struct {
	ID              synchronization.ID
	AccountID       arn.Account
	CreationDate    time.Time
	PrimaryRegion   region.Name
	PrimaryInstance region.InstanceID
	// Role is PRIMARY where the resources come from, and REPLICA where they go to. A replica
	// instance knows its own association only, without its resources.
	Role     MultiRegionKeyType
	Replicas []ReplicaInstance
}

// ReplicaInstance is one association of a synchronization.
type ReplicaInstance struct {
	Region              region.Name
	Instance            region.InstanceID
	SynchronizationType synchronization.Type
	Resources           []string // selected resource IDs, in order; empty if all
	Stage               synchronization.Stage
	Principal           string // ARN of who made the association, under whose authority it acts
	CreationDate        time.Time
}

// AssociateReplicaInstanceInput names a replica instance by its ID or its Region.
type AssociateReplicaInstanceInput struct {
	SynchronizationID   string
	ReplicaInstance     string
	SynchronizationType synchronization.Type
	Resources           []string // key IDs, key ARNs; at least one if SELECTED_RESOURCES, else none
}

// AssociateReplicaInstanceOutput is the synchronization with the new association.
type AssociateReplicaInstanceOutput struct{ Synchronization Synchronization }

// UpdateSynchronizationInput adds resources to an association. Nothing takes any away.
type UpdateSynchronizationInput struct {
	SynchronizationID   string
	ReplicaInstance     string
	SynchronizationType synchronization.Type // empty = as it is
	AddResources        []string             // key IDs, key ARNs
	RemoveResources     []string             // always refused
}

// UpdateSynchronizationOutput is the synchronization as it is now.
type UpdateSynchronizationOutput struct{ Synchronization Synchronization }

// DisassociateReplicaInstanceInput ends an association, which cannot be undone.
type DisassociateReplicaInstanceInput struct {
	SynchronizationID string
	ReplicaInstance   string    // an instance ID, or a Region
	ConfirmInstanceID string    // the replica instance's ID, once more
	Approvals         Approvals // of the replica instance's operators
}

// DisassociateReplicaInstanceOutput is the synchronization as it is now.
type DisassociateReplicaInstanceOutput struct {
	Synchronization Synchronization
	ApprovalRequest []byte // what operators are to approve, if that was asked for
}

// GetSynchronizationInput names a synchronization.
type GetSynchronizationInput struct{ SynchronizationID string }

// GetSynchronizationOutput is the synchronization.
type GetSynchronizationOutput struct{ Synchronization Synchronization }

// ListSynchronizationsInput is empty: an instance is part of few.
type ListSynchronizationsInput struct{}

// ListSynchronizationsOutput is every synchronization of the caller's account that this
// instance is part of.
type ListSynchronizationsOutput struct{ Synchronizations []Synchronization }

// ResourceFilter says which rows of a view are asked for; the zero value is all of them.
type ResourceFilter struct {
	Status       string // such as FAILED
	FailureCause string // such as ACCESS_DENIED
	ResourceID   string
}

// ListSynchronizedResourcesInput asks for a page of the view of all replica instances.
type ListSynchronizedResourcesInput struct {
	SynchronizationID string
	Filter            ResourceFilter
	Limit             int // 1 to 1000; 0 = 100
	Marker            string
}

// ListSynchronizedResourcesOutput is a page, ordered by resource and replica instance.
type ListSynchronizedResourcesOutput struct {
	Resources  []SynchronizedResource
	NextMarker string
	Truncated  bool
}

// ListReplicaResourcesInput asks for a page of the view of one replica instance.
type ListReplicaResourcesInput struct {
	SynchronizationID string
	ReplicaInstance   string
	Filter            ResourceFilter
	Limit             int // 1 to 1000; 0 = 100
	Marker            string
}

// ListReplicaResourcesOutput is a page, ordered by resource.
type ListReplicaResourcesOutput struct {
	Resources  []SynchronizedResource
	NextMarker string
	Truncated  bool
}

// SynchronizedResource is one resource in one replica instance.
type SynchronizedResource struct {
	ResourceID      string
	ResourceType    string // KEY
	ReplicaRegion   region.Name
	ReplicaInstance region.InstanceID
	Status          string // PENDING, IN_PROGRESS, SYNCHRONIZED, FAILED or SUSPENDED
	FailureCause    string // empty if there is none
	FailureText     string
}
