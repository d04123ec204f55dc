package replication

import "github.com/keyferry/keyferry/keyops/guard"

// Guards of the protocol that stand where messages are. Those that decide on facts are in
// package mrk.
const (
	guardSession guard.Name = "heard: not by a message of before the start"
	guardHeard   guard.Name = "heard: a digest exchange of this run is complete"
)
