// Package replication carries facts and wrapped materials of multi-Region keys between
// Regions, and says how far that has come.
//
// What is sent follows from what is known: the outbox is a set of marks "this peer has not
// confirmed my newest facts of this key", which package keyops writes in the transaction of
// each change. One sender per peer drains them for ever, with backoff. Digests, exchanged
// on a schedule and after connecting, find what marks have missed. A mark is cleared when
// the peer, in a signed answer, shows the hash of the same facts and lacks no material.
//
// Trust: a connection is believed to be a peer's when its TLS key was certified by the
// Region signing key that this Region has pinned; a message when that key has signed it for
// this instance. Then the message is parsed, strictly. What it says is a claim: facts are
// judged by package mrk, materials by the token, principals by this Region's policies. The
// network between Regions can delay and repeat, and repeating changes nothing.
//
// Concurrency: all methods may be called at once. Durability: everything durable is
// written by package keyops; what this package keeps itself is rebuilt after a start.
//
// This package never sees a token and never imports package hsm.
package replication
