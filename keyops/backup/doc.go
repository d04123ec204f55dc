// Package backup copies what a Region keeps outside its token, and puts it back.
//
// A backup is a directory: a copy of the store, the audit log, the files of the Region's
// directory, and a manifest that names each of them with its hash and is signed by the
// Region signing key. It holds no secret, and nothing of the token: whoever restores it has
// the token, or a copy that the token's own means have made.
//
// The audit log is copied first, the store second, the Region's directory last. So the store
// is never behind the checkpoints beside it, and the directory shows what the store has
// seen: what is restored together starts together.
//
// Trust: a backup is believed as far as its manifest's signature goes, which says that this
// Region made it and not that it is the newest. That an older one is put back is noticed as
// for any other store (see package seal); the copy is stamped besides, so that the Region
// manages no shared key before it has heard the others.
package backup
