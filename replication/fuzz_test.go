package replication_test

import (
	"bytes"
	"testing"

	"github.com/keyferry/keyferry/replication"
)

// FuzzTLSClaim looks for a panic, and for bytes that are accepted but are not the one encoding
// of what they say.
func FuzzTLSClaim(f *testing.F) {
	f.Add([]byte{0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, p []byte) {
		if again, err := replication.ParseTLSClaim(p); err == nil && !bytes.Equal(again, p) {
			t.Error("accepted bytes that are not what would be written")
		}
	})
}
