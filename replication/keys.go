package replication

import (
	"context"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/synchronization"
)

// Keys is what this package needs of the Region's keys. *keyops.Service is one.
type Keys interface {
	// SharedKeys lists the multi-Region keys known here, deleted ones included.
	SharedKeys() []arn.KeyID
	// SharedVersion grows with every change of what SharedKeys and SharedKey return.
	SharedVersion() uint64
	// SharedKey returns a snapshot that must not be changed, or an error that wraps
	// keyops.ErrNotFound.
	SharedKey(arn.KeyID) (*keyops.Key, error)
	// UpdateShared changes one key in one durable transaction: fn changes a copy, and if its
	// facts change, a mark is set for every peer that is or was a member. An error of fn
	// applies nothing; keyops.ErrUnchanged is none.
	UpdateShared(ctx context.Context, id arn.KeyID, cause keyops.Cause, fn func(*keyops.Key) error) error
	// CheckReplica decides without effect whether a replica would be admitted. Its errors are
	// *keyops.Error.
	CheckReplica(context.Context, keyops.ReplicaClaim) error
	// CheckPrimary decides without effect whether the primary key would be taken over, with
	// errors as CheckReplica's.
	CheckPrimary(context.Context, keyops.PrimaryClaim) error
	// Associate decides whether this instance becomes a peer's replica instance, and writes it
	// down if the claim says so, with errors as CheckReplica's.
	Associate(context.Context, keyops.AssociationClaim) error
	// Disassociate decides whether this instance is severed from a peer's and frozen, and carries
	// it out if the claim is signed, with errors as CheckReplica's.
	Disassociate(context.Context, keyops.DisassociationClaim) (statement.Signed, error)
	// Severed returns the pairs of instances that are known here to be severed, ordered;
	// KeepSevered keeps those that a peer shows and that can be believed, durably.
	Severed() []synchronization.Severed
	KeepSevered(context.Context, []synchronization.Severed) error
	// ActsForNone reports whether this instance was disassociated, and does nothing as the
	// primary Region of a key.
	ActsForNone() bool
	// DecideOffer accepts or refuses the primary key that a peer offers, durably. An error
	// means that it is not decided.
	DecideOffer(ctx context.Context, source region.Name, o mrk.Offer, v mrk.Verifier, contact mrk.Contact) error
	// AdmitReplica makes a key that is Creating, with verified facts.
	AdmitReplica(context.Context, keyops.ReplicaClaim, *mrk.Set) error
	// RecreateKey makes a key that was lost with the store, disabled and without its policy,
	// with verified facts; used is what it has encrypted with.
	RecreateKey(ctx context.Context, set *mrk.Set, used []material.ID) error
	// WrapMaterial wraps a material that is held here, with one call of the token, under the
	// newest transport key of these epochs.
	WrapMaterial(ctx context.Context, id arn.KeyID, m material.ID, to region.Descriptor, epochs ...uint64) (mrk.Blob, error)
	// UnwrapEpochs returns the epochs of the transport keys under which a Region may send the
	// key's materials here, newest first.
	UnwrapEpochs(id arn.KeyID, from region.Descriptor) []uint64
	// InstallMaterial makes a wrapped material one that is held, or refuses it. A material
	// that is held already is not unwrapped again.
	InstallMaterial(ctx context.Context, id arn.KeyID, b mrk.Blob) error
	// Roster returns a version of the roster of a descriptor's instance, if it is known here,
	// and the newest version that is.
	Roster(of region.Descriptor, version uint64) (r approval.Roster, newest uint64, known bool)
	// RosterChanges returns the changes of that roster that are known here: the first makes
	// version 1, and each the next.
	RosterChanges(region.Descriptor) []approval.Change
	// KeepRoster verifies changes of an instance's roster from its descriptor on, and keeps
	// those that are new, durably.
	KeepRoster(ctx context.Context, of region.Descriptor, changes []approval.Change) error
	// Signer signs in this Region's name.
	Signer() mrk.Signer

	// Marks returns the outbox; Mark one of it.
	Marks() []keyops.Mark
	Mark(arn.KeyID, region.Name) (keyops.Mark, bool)
	// SaveMark records a failed try. It does not bring back a mark that was cleared.
	SaveMark(context.Context, keyops.Mark) error
	// ClearMark removes a mark if the facts of this hash are still the newest.
	ClearMark(ctx context.Context, key arn.KeyID, peer region.Name, confirmed mrk.Hash) error
	// Changed receives a value after marks or facts have changed. It holds at most one.
	Changed() <-chan struct{}

	// AuditHead and StoreHead are shown to peers; SaveWitness keeps what they show.
	AuditHead() (audit.SignedCheckpoint, bool)
	StoreHead() seal.Head
	SaveWitness(context.Context, keyops.Witness) error
	Witness(context.Context, region.Name) (keyops.Witness, error)
}
