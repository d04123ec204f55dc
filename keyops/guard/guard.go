// Package guard names the conditions that the rules of the replication protocol demand.
//
// Each guard stands in the code where it decides, and can be switched off in a build with the
// tag "mutation" only, which exists to show that the tests notice its absence. In every other
// build nothing can switch it off, and it costs a comparison.
//
// Packages declare their guards as constants of type [Name], in a file guard.go. Everything may
// be called at once.
package guard

// Name is one guard: the number of the rule in the protocol, and what it demands.
type Name string

// Stops reports whether a violated condition refuses what the rule would do.
func (n Name) Stops(violated bool) bool { return violated && !off(n) }
