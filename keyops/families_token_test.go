package keyops_test

import (
	"testing"

	"github.com/keyferry/keyferry/keyops"
)

// TestFamiliesOnTokens tries the families on two SoftHSM tokens.
func TestFamiliesOnTokens(t *testing.T) {
	w := newRealTwo(t)
	for _, f := range families {
		if f.spec == keyops.RSA3072 || f.spec == keyops.RSA4096 {
			continue // the same mechanisms, and seconds to make
		}
		t.Run(f.String(), func(t *testing.T) { w.family(t, f) })
	}
}
