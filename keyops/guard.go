package keyops

import "github.com/keyferry/keyferry/keyops/guard"

// Guards of the protocol that need a token, a policy or a clock, by the number of their rule.
// Those that facts alone decide are in package mrk.
const (
	guardState        guard.Name = "2, 12, 13: the state of the key allows it"
	guard2Destination guard.Name = "2 destination would take it"
	guard3Policy      guard.Name = "3 policies and configuration allow it"
	guard4Material    guard.Name = "4 unwrapped material is what it is called"
	guard9Held        guard.Name = "9 encrypts with what it holds"
	guard9Used        guard.Name = "9 used before it encrypts"

	guardApproved     guard.Name = "10, 25, write-off: approved by a quorum"
	guard13Policy     guard.Name = "13 policies and configuration allow it"
	guard13Transport  guard.Name = "13 transport keys to every member"
	guard16Updating   guard.Name = "16 Updating ends"
	guard16Deletion   guard.Name = "16 no deletion goes on at a fenced primary Region"
	guard19Lost       guard.Name = "19 permit lost with an object"
	guard19Unknown    guard.Name = "19 permit lost to an object without a row"
	guard19Restored   guard.Name = "19 permit lost to a store that went back"
	guard22Everywhere guard.Name = "22, 24 due by the other Region's clock"
)
