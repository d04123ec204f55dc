// Package seal notices what was done to the store behind the daemon's back.
//
// Every sealed row carries an HMAC by the token's seal key over its name, version and
// body, so a row of anybody else's making, or moved to another name, is seen. One head
// covers which rows there are, at which versions, so that a row deleted or put back in an
// older version is seen too. The head is spread over 256 buckets: a change rewrites the
// buckets that it touches, and its cost does not grow with the whole store.
//
// A store that is put back as a whole is consistent with itself. Only a witness shows it:
// the head's version and hash go into audit checkpoints and messages to peers, and
// [Head.Behind] compares.
//
// Trust: the seal key never leaves the token, but who has its PIN can seal anything. A
// Book trusts its own memory and nothing that it reads.
//
// Concurrency: a [Book] may be used by many goroutines; its transactions run one at a time.
// [Book.Head] never waits for them.
//
// Durability: rows, buckets and head change in one store transaction.
package seal
