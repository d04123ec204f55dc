//go:build mutation

package mrk

import (
	_ "embed"
	"os"
	"regexp"
)

// switchedOff is the one guard that this run of the tests does without.
var switchedOff = guard(os.Getenv("KEYFERRY_GUARD_OFF"))

func off(g guard) bool { return g == switchedOff }

//go:embed guard.go
var table string

// Guards lists all guards.
func Guards() []string {
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^\tguard\w+\s+guard\s*= "([^"]+)"`).FindAllStringSubmatch(table, -1) {
		names = append(names, m[1])
	}
	return names
}

// Redundant names the guards whose absence nothing can notice, and why they are kept.
var Redundant = map[string]string{
	string(guard5Deleted): "rule 23 has removed such a member before; the rule does not rely on that order",
	string(guard5Others):  "rule 11 has demoted who lacks what is held here, and rule 5 demands that it is; the rule does not rely on that order",
}
