// Package keystate says which operation a key allows in which state, what a refused caller
// is told, and which state may follow which.
//
// Both are tables, and the only place where they are decided; they follow AWS KMS, whose
// clients act on the error names and match on the texts. A state is about one Region's key:
// related multi-Region keys have states of their own, but for what the transitions say.
// The package is pure and safe for concurrent use.
package keystate

import (
	"errors"
	"fmt"
	"slices"
)

// State is the state of a key in one Region. Keys are Enabled, in AWS's sense of the
// boolean, in state Enabled only.
type State string

// States of keys. None is the state before creation and after deletion, and is never seen
// by callers.
const (
	None                   State = ""
	Creating               State = "Creating"               // a replica key without its materials yet
	Enabled                State = "Enabled"                // usable
	Disabled               State = "Disabled"               // switched off by its owner
	PendingImport          State = "PendingImport"          // of origin EXTERNAL, with material missing
	PendingDeletion        State = "PendingDeletion"        // to be deleted at its date
	PendingReplicaDeletion State = "PendingReplicaDeletion" // a primary key to be deleted once its replica keys are
	Unavailable            State = "Unavailable"            // seen only: enabled, and what it encrypts with is not in the token
	Updating               State = "Updating"               // handing over, or taking over, the role of primary key
)

// States lists every state that a key can be seen in.
var States = []State{Creating, Enabled, Disabled, PendingImport, PendingDeletion, PendingReplicaDeletion, Unavailable, Updating}

// ErrTransition is wrapped by the errors of Transition.
var ErrTransition = errors.New("key state cannot follow")

// transitions lists what may follow each state, each with its cause. Staying is no
// transition. Beside these, any key may become
//   - Creating, when it was evicted and is replicated again as another incarnation;
//   - PendingDeletion, when peers say that this incarnation was deleted, as to a Region whose
//     store was restored from before.
var transitions = map[State][]State{
	None: {
		Creating,      // ReplicateKey, at the replica key
		Enabled,       // CreateKey
		PendingImport, // CreateKey of origin EXTERNAL
	},
	Creating: {
		Enabled,         // all materials are here, and the primary key's Region says ACTIVE
		PendingImport,   // the same for origin EXTERNAL, whose material never travels
		PendingDeletion, // ScheduleKeyDeletion
	},
	Enabled: {
		Disabled,               // DisableKey, or the replica key was evicted
		PendingImport,          // imported material expired or was deleted
		PendingDeletion,        // ScheduleKeyDeletion
		PendingReplicaDeletion, // ScheduleKeyDeletion of a primary key with replica keys
		Unavailable,            // its material is no longer in the token
		Updating,               // UpdatePrimaryRegion, at both ends
	},
	Disabled: {
		Enabled,                // EnableKey
		PendingImport,          // imported material expired or was deleted
		PendingDeletion,        // ScheduleKeyDeletion
		PendingReplicaDeletion, // ScheduleKeyDeletion of a primary key with replica keys
		Unavailable,            // its material is no longer in the token
	},
	PendingImport: {
		Enabled,                // ImportKeyMaterial of the last that was missing
		PendingDeletion,        // ScheduleKeyDeletion
		PendingReplicaDeletion, // ScheduleKeyDeletion of a primary key with replica keys
	},
	PendingDeletion: {
		None,                   // deleted at its date
		Disabled,               // CancelKeyDeletion
		Creating,               // CancelKeyDeletion of a replica key that never had its materials: it may not be enabled without
		PendingReplicaDeletion, // promoted by force while replica keys exist: the primary key goes last
	},
	PendingReplicaDeletion: {
		Disabled,        // CancelKeyDeletion, or another Region was promoted by force
		PendingDeletion, // its last replica key is gone
	},
	Unavailable: {
		Enabled,                // its material is back
		Disabled,               // its material is back, and it was disabled before or meanwhile
		PendingDeletion,        // ScheduleKeyDeletion
		PendingReplicaDeletion, // ScheduleKeyDeletion of a primary key with replica keys
	},
	Updating: {
		Enabled, // the hand-over is complete or was refused, or another Region was promoted by force
	},
}

// Parse checks the name of a state that a key can be seen in.
func Parse(s string) (State, error) {
	if !slices.Contains(States, State(s)) {
		return None, fmt.Errorf("key state %q: want one of %v", s, States)
	}
	return State(s), nil
}

// Transition returns nil if a key may go from one state to another, or stay where it is.
func Transition(from, to State) error {
	exists := slices.Contains(States, from)
	if slices.Contains(transitions[from], to) || exists && (to == from || to == Creating || to == PendingDeletion) {
		return nil
	}
	return fmt.Errorf("%w: from %q to %q", ErrTransition, from, to)
}
