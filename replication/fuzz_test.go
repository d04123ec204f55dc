package replication_test

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/replication"
)

// FuzzParse looks for a panic, and for bytes that are accepted but are not the one encoding
// of what they say.
func FuzzParse(f *testing.F) {
	names := slices.Sorted(maps.Keys(replication.Parsers))
	f.Add(byte(0), replication.EmptyDigest())
	f.Add(byte(7), replication.FactsBody("mrk-00112233445566778899aabbccddeeff", mrk.Facts{}, mrk.Hash{1}, nil))
	f.Add(byte(4), replication.ConfirmBody("mrk-00112233445566778899aabbccddeeff"))
	for i := range names {
		f.Add(byte(i), []byte{0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1})
	}
	f.Fuzz(func(t *testing.T, which byte, p []byte) {
		name := names[int(which)%len(names)]
		again, err := replication.Parsers[name](p)
		if err == nil && !bytes.Equal(again, p) {
			t.Errorf("%s: accepted bytes that are not what would be written", name)
		}
	})
}
