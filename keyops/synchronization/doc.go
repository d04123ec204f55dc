// Package synchronization holds what is true of a synchronization of an instance: one primary
// instance, up to three associated replica instances, and which of the primary instance's
// resources each of them is to have.
//
// It decides nothing about access and moves no key: package keyops keeps these values in
// sealed rows, acts on them through the replication of single keys, and asks here what the
// rules are. Values are not changed once they are published; changes are made on a clone.
package synchronization
