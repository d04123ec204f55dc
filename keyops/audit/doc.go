// Package audit keeps the record of who did what, so that it can be checked later.
//
// The log is lines of JSON in numbered files. Each line carries the hash of the one before
// it; checkpoints, signed by the Region signing key in the token, cover all lines up to
// theirs and the head of the store. docs/audit.md has the table of fields, and is tested
// against this package.
//
// Trust: whoever can write the files can cut off what no checkpoint covers, or all of it;
// who has the token's PIN can sign another history. Peers record the checkpoints that they
// were shown, and [Verify] compares. [Reconcile] compares what Regions say of each other.
//
// Durability: [Log.Append] returns once the record is on disk. [Log.Queue] returns once it
// is in memory, and on disk within the flush interval. When the disk refuses, every call
// fails until it takes what is waiting: nothing that was accepted is dropped while the
// process lives, and nothing half-written stays behind. Only the newest file is ever written.
//
// Concurrency: a Log may be used by many goroutines. One goroutine encodes, chains and
// writes; many records share one fsync, and none waits for a lock that is held during it.
package audit
