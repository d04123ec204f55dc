package keyops

import (
	"time"

	"github.com/keyferry/keyferry/keyops/material"
)

// Rotation is a key's setting of automatic rotation, and what has been used of its right to
// be rotated on demand.
type Rotation struct {
	Enabled  bool
	Days     int       // period; kept when the rotation is switched off
	Last     time.Time // when the key was last rotated automatically, or the rotation switched on
	Next     time.Time // when the next automatic rotation is due; zero unless Enabled
	OnDemand int       // rotations on demand in the key's life
}

// RotationType says why a key was rotated.
type RotationType string

// Values of RotationType.
const (
	RotationAutomatic RotationType = "AUTOMATIC"
	RotationOnDemand  RotationType = "ON_DEMAND"
)

// RotationEntry is one rotation that has happened.
type RotationEntry struct {
	Date     time.Time
	Type     RotationType
	Material material.ID // that became current
}

// ImportState says whether imported material is in the token.
type ImportState string

// Values of ImportState.
const (
	MaterialImported ImportState = "IMPORTED"
	MaterialPending  ImportState = "PENDING_IMPORT" // it expired, or its owner deleted it
)

// ExpirationModel says whether imported material expires.
type ExpirationModel string

// Values of ExpirationModel.
const (
	MaterialExpires       ExpirationModel = "KEY_MATERIAL_EXPIRES"
	MaterialDoesNotExpire ExpirationModel = "KEY_MATERIAL_DOES_NOT_EXPIRE"
)
