// Package sqlite keeps a store in one SQLite file per Region.
//
// The file is in WAL mode with synchronous=FULL: when an update returns, it survives the
// loss of power as far as the disk keeps its promises. A commit that the disk answers with
// an I/O error may or may not survive; the store then closes itself (store.ErrOutcomeUnknown).
//
// The writer lease is a row that every update checks inside its own transaction. Beside the
// file, FILE.lock carries one advisory lock per term, which the kernel drops when the
// writer's process ends, however it ends: so the next writer on the same machine need not
// wait for the expiry. (WAL mode works on one machine only, so there is no other.)
//
// Migrations run when a lease is taken, never when a file is opened: a standby of a newer
// release must not change the tables under a writer of the release before.
//
// Trust: none in the file; see package seal. Files are made with mode 0600 and refused with
// any wider one.
package sqlite
