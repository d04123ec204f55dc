// Package storetest checks that a store keeps the contract of package store, and wraps one
// so that tests decide where it fails.
//
// It is used by tests only.
package storetest
