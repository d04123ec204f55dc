package mrk

import (
	"errors"
	"math"
	"testing"

	"github.com/keyferry/keyferry/keyops/wire"
)

// TestNumbersThatWouldWrap: an incarnation or counter at the end of its range would make
// whoever counts on from it begin at zero.
func TestNumbersThatWouldWrap(t *testing.T) {
	for n, refused := range map[uint64]bool{0: false, 1: false, maxNumber: false, maxNumber + 1: true, math.MaxUint64: true} {
		var w wire.Writer
		w.Uint(n)
		r := wire.NewReader(w.Out())
		got := decodeNumber(r)
		if err := r.Done(); errors.Is(err, wire.ErrMalformed) != refused || !refused && got != n {
			t.Errorf("number %d: got %d, %v; want a refusal: %v", n, got, err, refused)
		}
	}
}
