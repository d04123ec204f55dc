// Package keyops is the one door to keys: it authorises, audits, checks states, calls the
// token and writes the store.
//
// Every operation of [Service] first resolves the key that it names, decides whether the
// caller may, and writes the audit record, refusals included; only then does the
// operation's body run, and it gets the key from nobody else. Nothing above this package
// can reach a key another way, and nothing above it is trusted to have checked anything.
//
// Trust: what callers send is hostile. What the token answers is believed, except that
// a material's identity is recomputed in the token before it is first used. Rows of the
// store are believed when their seal holds. What another Region says is believed as far as
// package mrk has verified it.
//
// Concurrency: all methods may be called at once. Requests read an immutable snapshot of
// one key and hold no lock while the token works. Changes to one key are serialised.
//
// Durability: a management operation returns after the store and the audit log are on
// disk. A cryptographic operation changes nothing but counters; its audit record may be
// lost with the last flush interval. The order of writes that makes a crash harmless is
// the table in order.go, described in docs/write-order.md.
package keyops
