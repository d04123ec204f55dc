// Package seededtest lets property tests draw the same values in every run.
//
// A test that draws others each time fails for a change that has nothing to do with it, and
// passes when it is run again. So tests that use pgregory.net/rapid import this package for
// its effect; RAPID_SEED=0, or -rapid.seed=0 for one package, lets chance choose again, and
// a failure prints the seed that replays it.
package seededtest

import (
	"flag"
	"os"

	_ "pgregory.net/rapid" // has the flag
)

func init() {
	if os.Getenv("RAPID_SEED") != "" {
		return
	}
	if err := flag.Set("rapid.seed", "1"); err != nil {
		panic(err)
	}
}
