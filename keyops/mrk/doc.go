// Package mrk is what Regions tell each other about one multi-Region key, and the rules by
// which a Region believes, answers and acts.
//
// Four kinds of facts exist. Each has one writer, who numbers and signs it once; anybody
// may pass it on; for each writer the newest number wins, so order, loss and repetition of
// messages change nothing:
//
//   - Certificate: who is the primary key's Region in which epoch, proven by the one before.
//   - State: the primary Region's word about shared properties, materials and members.
//   - Member: each Region's word about itself.
//   - Blob: one material wrapped for one destination. It is proven by its material ID,
//     recomputed in the destination's token, and is not part of a Set.
//
// A Set is what this Region durably knows of one key. Its methods are the transitions of
// the protocol as pure functions: no clock, no network, no store, no token, no randomness;
// what they need of those is handed in. After each method that changes a Set, the caller
// stores the Set in the same transaction as the rest of the key, and only then acts on it
// or sends it.
//
// Trust: a fact is believed when its writer's signature verifies under the key that this
// Region has pinned for that writer, and when the writer may write it: a state only under a
// certificate whose chain reaches back to the one that this Region holds. A writer that
// signs two different facts with one number is not believed at all: the second is refused
// and the set is Frozen until the writer has numbered past both.
//
// Concurrency: a Set is not safe for concurrent use; Clone before changing a published one.
// Durability: none here; Marshal has one encoding, committed as vectors in testdata.
package mrk
