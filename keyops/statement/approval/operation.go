package approval

import (
	"fmt"
	"maps"
	"slices"
)

// Operation names what is approved, so that an approval of one operation never counts for another.
type Operation string

// Operations that need, or may need, approvals.
const (
	Offer            Operation = "ceremony-offer"           // hand transport keys to the establishment key of an offer
	ResealStore      Operation = "reseal-store"             // believe the rows of a store as they are
	ChangeRoster     Operation = "change-roster"            // put another roster in the place of this one
	ReplaceKeys      Operation = "replace-region-keys"      // put new signing and seal keys in the place of a Region's
	ReplaceLostKeys  Operation = "replace-lost-region-keys" // put new signing and seal keys in the place of a Region's, which are lost with its token
	ForcePromotion   Operation = "force-promotion"          // make a Region the primary Region without the one before
	SuspendRegion    Operation = "suspend-region"           // go on without a Region that may be alive
	Disassociate     Operation = "disassociate-replica"     // end a synchronization for good
	EvictReplica     Operation = "evict-replica"            // end a Region's membership of a multi-Region key
	WriteOffMaterial Operation = "write-off-material"       // give up a material that is in no token any more
	ConfirmClock     Operation = "confirm-clock"            // believe a clock that was set, so that what is due by it is destroyed
	DeletePrimaryKey Operation = "delete-primary-key"       // schedule the deletion of a multi-Region primary key
)

// operations is the one table of operations: what an operator is told, and whether a
// Region's configuration may do without approvals.
var operations = map[Operation]struct {
	words    string
	optional bool
}{
	Offer:            {"hand transport keys, which open multi-Region keys sent to this Region, to the establishment key below", false},
	ResealStore:      {"believe every row of this Region's store as it is now, whoever wrote it, and seal it anew", false},
	ChangeRoster:     {"let the operators below decide from now on, in the place of those who decide today", false},
	ReplaceKeys:      {"let the signing key below speak for this Region from now on, and seal its store with a new key", false},
	ReplaceLostKeys:  {"let the signing key below speak for this Region from now on without the word of the one before, which is lost with its token, and believe every row of its store as it is now", false},
	ForcePromotion:   {"make this Region the primary Region of the keys below without the consent of the one before", false},
	SuspendRegion:    {"go on without the Region below, which may be alive and then falls behind", true},
	Disassociate:     {"end the synchronization with the replica instance below, for good", true},
	EvictReplica:     {"end the membership of the Region below, whose replica key is then disabled", true},
	WriteOffMaterial: {"give up the key material below, which no token holds any more, and with it what was encrypted under it", true},
	ConfirmClock:     {"believe this Region's clock, by which this request expires, and delete the keys below at their dates by it", false},
	DeletePrimaryKey: {"schedule the deletion of the multi-Region primary key below, in the end for good", true},
}

// Words says in a sentence what is approved.
func (o Operation) Words() string { return operations[o].words }

// Known reports whether this version knows the operation.
func (o Operation) Known() bool {
	_, ok := operations[o]
	return ok
}

// Quorum says which operations need approvals in a Region. The zero Quorum demands them for
// every operation.
type Quorum struct{ free map[Operation]bool }

// NewQuorum demands approvals for the listed operations, and for those that no
// configuration can free of them, which need not be listed.
func NewQuorum(guarded []Operation) (Quorum, error) {
	q := Quorum{free: map[Operation]bool{}}
	for o, row := range operations {
		q.free[o] = row.optional
	}
	for i, o := range guarded {
		if !o.Known() {
			return Quorum{}, fmt.Errorf("operation %q: want some of %v", o, Optional())
		}
		if slices.Index(guarded, o) < i {
			return Quorum{}, fmt.Errorf("operation %q is there twice", o)
		}
		q.free[o] = false
	}
	return q, nil
}

// Needs reports whether the operation needs approvals. One that is not known does.
func (q Quorum) Needs(o Operation) bool { return !q.free[o] }

// Guarded lists the operations of a running daemon that need approvals, in order: those that
// a configuration may guard and has guarded, and forced promotions.
func (q Quorum) Guarded() []Operation {
	list := append(Optional(), ForcePromotion)
	slices.Sort(list)
	return slices.DeleteFunc(list, func(o Operation) bool { return !q.Needs(o) })
}

// Optional lists the operations that a configuration may guard, in order.
func Optional() []Operation {
	var list []Operation
	for _, o := range slices.Sorted(maps.Keys(operations)) {
		if operations[o].optional {
			list = append(list, o)
		}
	}
	return list
}
