// Package hsm is the only door to the PKCS#11 token.
//
// A process opens one module, and as a rule one token of it, logs in once and keeps a fixed
// pool of sessions until it exits. Objects are named by their CKA_ID; object handles never
// leave the package. Every object is made from the template of its [Role], which states
// every usage flag, the allowed mechanisms and, last, CKA_MODIFIABLE=false: whoever holds
// the user PIN can otherwise switch on decryption at either end of a wrapping key and read
// all that it ever wrapped.
//
// Concurrency: all methods of [Token] may be called at once. Token-object writes are
// serialised, because SoftHSM 2.6.1 corrupts its index under concurrent writers. Waiting
// for a session obeys the caller's context; a call that overruns it gives the caller its
// error and retires the session, since a PKCS#11 call cannot be cancelled.
//
// Availability: a token that goes away is reconnected in the background while calls fail
// at once with [ErrUnavailable]. C_Finalize is called in one place, when the token cannot
// be reached otherwise, with no call running and no other token in use.
//
// Durability: an object that Generate or Unwrap has returned is in the token for good. A
// write whose error is [ErrOutcomeUnknown] may or may not be.
//
// Trust: PINs are read from files, not kept and never logged. Nothing in this package
// returns key bytes. Objects are believed only as far as their attributes, read back from
// the token, are their role's; the rest is quarantined. Errors carry the function and the
// CKR value, never template values.
package hsm
