package keyops

import (
	"time"
)

// ScheduleKeyDeletionInput names a key by key ID or key ARN.
type ScheduleKeyDeletionInput struct {
	KeyID               string
	PendingWindowInDays int       // 7 to 30; 0 = 30
	Approvals           Approvals // for a multi-Region primary key only
}

// ScheduleKeyDeletionOutput says when the key is deleted.
type ScheduleKeyDeletionOutput struct {
	KeyID               string    // the key's ARN in this Region
	KeyState            string    // PendingDeletion, or PendingReplicaDeletion of a primary key with replica keys
	DeletionDate        time.Time // zero while PendingReplicaDeletion
	PendingWindowInDays int
	Expected            time.Time // the earliest, while PendingReplicaDeletion; zero while a replica key is not scheduled
	ApprovalRequest     []byte    // what operators are to approve, if that was asked for; then nothing has changed
}

// CancelKeyDeletionInput names a key by key ID or key ARN.
type CancelKeyDeletionInput struct{ KeyID string }

// CancelKeyDeletionOutput names the key, which is Disabled.
type CancelKeyDeletionOutput struct{ KeyID string } // the key's ARN in this Region

// EnableKeyRotationInput switches automatic rotation on, or changes its period.
type EnableKeyRotationInput struct {
	KeyID                string // key ID or key ARN
	RotationPeriodInDays int    // 90 to 2560; 0 = 365
}

// EnableKeyRotationOutput is empty.
type EnableKeyRotationOutput struct{}

// DisableKeyRotationInput names a key by key ID or key ARN.
type DisableKeyRotationInput struct{ KeyID string }

// DisableKeyRotationOutput is empty.
type DisableKeyRotationOutput struct{}

// GetKeyRotationStatusInput names a key by key ID or key ARN.
type GetKeyRotationStatusInput struct{ KeyID string }

// GetKeyRotationStatusOutput is the setting of automatic rotation, and what is under way.
type GetKeyRotationStatusOutput struct {
	KeyID                     string // the key's ARN in this Region
	KeyRotationEnabled        bool   // false while the key is pending deletion; the setting is kept
	RotationPeriodInDays      int    // 0 unless KeyRotationEnabled
	NextRotationDate          time.Time
	OnDemandRotationStartDate time.Time         // zero unless a rotation on demand is under way
	OnDemandRotationsLeft     int               // of the 25 that a key has in its life
	Progress                  *RotationProgress // nil unless a rotation is under way
}

// RotationProgress says which Regions a rotation of a multi-Region key still waits for.
type RotationProgress struct {
	KeyMaterialID string // of the pending material
	Type          RotationType
	Started       time.Time
	Holding       []string // Regions that have reported that they hold the material
	Awaited       []string // Regions that have not
	Out           []string // members that are not waited for: joining, or suspended
	Alone         bool     // nobody else is waited for, so the material would exist in one token only
}

// RotateKeyOnDemandInput names a key by key ID or key ARN.
type RotateKeyOnDemandInput struct {
	KeyID string
	// AcceptAlone accepts that the new material of a multi-Region key becomes current while it
	// is in this Region's token only, because no other Region is waited for. Given while a
	// rotation is under way, it accepts that for this rotation and begins no other.
	AcceptAlone bool
}

// RotateKeyOnDemandOutput names the key.
type RotateKeyOnDemandOutput struct{ KeyID string } // the key's ARN in this Region

// IncludeKeyMaterial says which materials ListKeyRotations lists.
type IncludeKeyMaterial string

// Values of IncludeKeyMaterial.
const (
	RotationsOnly  IncludeKeyMaterial = "ROTATIONS_ONLY"   // those that a rotation made current
	AllKeyMaterial IncludeKeyMaterial = "ALL_KEY_MATERIAL" // the first one and a pending one, too
)

// ListKeyRotationsInput asks for a page of a key's rotations.
type ListKeyRotationsInput struct {
	KeyID              string             // key ID or key ARN
	IncludeKeyMaterial IncludeKeyMaterial // default ROTATIONS_ONLY
	Limit              int                // 1 to 1000; 0 = 100
	Marker             string
}

// KeyMaterialState says what a material is to its key.
type KeyMaterialState string

// Values of KeyMaterialState.
const (
	MaterialCurrent                          KeyMaterialState = "CURRENT"
	MaterialNonCurrent                       KeyMaterialState = "NON_CURRENT"
	MaterialPendingRotation                  KeyMaterialState = "PENDING_ROTATION"
	MaterialPendingMultiRegionImportRotation KeyMaterialState = "PENDING_MULTI_REGION_IMPORT_AND_ROTATION"
)

// RotationsListEntry is one rotation, or one material, of a list.
type RotationsListEntry struct {
	KeyID                  string // the key's ARN in this Region
	KeyMaterialID          string
	KeyMaterialDescription string      // of imported material
	ImportState            ImportState // of imported material
	KeyMaterialState       KeyMaterialState
	ExpirationModel        ExpirationModel // of imported material
	ValidTo                time.Time       // zero unless imported material expires
	RotationDate           time.Time       // zero unless a rotation made the material current
	RotationType           RotationType    // empty unless a rotation made the material current
	// Holders is how many Regions were known to hold a multi-Region key's material when it
	// became current: it was as durable as that. 0 if it never did, and for single-Region keys.
	Holders int
	// WrittenOff tells that operators have given the material up: no token holds it any more.
	WrittenOff bool
}

// ListKeyRotationsOutput is a page of rotations, oldest first.
type ListKeyRotationsOutput struct {
	Rotations  []RotationsListEntry
	NextMarker string
	Truncated  bool
}

// GetKeyLastUsageInput names a key by key ID or key ARN.
type GetKeyLastUsageInput struct{ KeyID string }

// GetKeyLastUsageOutput says when the key was last used in this Region.
type GetKeyLastUsageOutput struct {
	KeyID             string        // the key's ARN in this Region
	KeyLastUsage      *KeyLastUsage // nil if the key was not used since TrackingStartDate
	TrackingStartDate time.Time
	KeyCreationDate   time.Time
}

// KeyLastUsage is the last cryptographic operation with a key that succeeded.
type KeyLastUsage struct {
	Operation    string // such as Decrypt
	Timestamp    time.Time
	KmsRequestID string // under which the audit log has it
}
