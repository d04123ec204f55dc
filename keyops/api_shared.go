package keyops

// UpdatePrimaryRegionInput names the key, which is the primary key here, and the Region whose
// replica is to become the primary key.
type UpdatePrimaryRegionInput struct {
	KeyID         string
	PrimaryRegion string
}

// UpdatePrimaryRegionOutput has nothing to say: DescribeKey shows both keys Updating until
// the hand-over has ended.
type UpdatePrimaryRegionOutput struct{}

// PromoteKeyInput asks to make the key of this Region the primary key without the consent of
// the Region that has it. The request that operators approve always has a list of keys, of
// this key alone if nothing else is said.
type PromoteKeyInput struct {
	KeyID          string   // key ID or key ARN
	SuspendRegions []string // not waited for from the start, because they are dark: those of the request
	KeyPlace
	Approvals [][]byte // as "keyferry approve" writes them
}

// PromoteKeyOutput names the key, which is the primary key now.
type PromoteKeyOutput struct {
	KeyID      string // the key's ARN in this Region
	Generation uint64 // of the line of epochs that begins here
}

// SuspendReplicaInput names the key, which is the primary key here, and the Region that is not
// to be waited for any more.
type SuspendReplicaInput struct {
	KeyID         string
	ReplicaRegion string
	KeyPlace      // of an approval of many keys
	Approvals     Approvals
}

// SuspendReplicaOutput has the request that operators are to approve, if that was asked for.
type SuspendReplicaOutput struct{ ApprovalRequest []byte }

// EvictReplicaInput names the key, which is the primary key here, and the Region whose
// membership ends.
type EvictReplicaInput struct {
	KeyID         string
	ReplicaRegion string
	KeyPlace      // of an approval of many keys
	Approvals     Approvals
}

// EvictReplicaOutput has the request that operators are to approve, if that was asked for.
type EvictReplicaOutput struct{ ApprovalRequest []byte }

// WriteOffKeyMaterialInput names the key, which is the primary key here, and a material that no
// Region holds any more.
type WriteOffKeyMaterialInput struct {
	KeyID         string
	KeyMaterialID string // 64 hexadecimal digits
	Approvals     Approvals
}

// WriteOffKeyMaterialOutput has the request that operators are to approve, if that was asked for.
type WriteOffKeyMaterialOutput struct{ ApprovalRequest []byte }
