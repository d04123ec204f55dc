// Package store holds a Region's durable state as rows, behind one small interface.
//
// A [Store] keeps [Row] values named by kind and ID. All changes happen in [Store.Update],
// one serialisable transaction at a time, durable when it returns. Only the holder of the
// writer lease may change anything; a second daemon on the same store waits as a standby.
//
// Trust: none. Whoever can write the file can change every row; package seal notices it.
// Rows hold metadata only, never key material.
//
// Concurrency: a Store may be used by many goroutines. Updates run one after another; views
// run beside them, each on the state of the moment at which it began.
package store
