package store_test

import (
	"testing"

	"github.com/keyferry/keyferry/keyops/store"
)

// TestSealedKinds pins the exceptions: a kind that is not sealed can be edited by whoever
// can write the file.
func TestSealedKinds(t *testing.T) {
	for kind, want := range map[store.Kind]bool{
		store.KindMeta: false, store.KindHead: false, store.KindBucket: false, store.KindMark: false,
		"key": true, "intent": true, "peer": true, "tombstone": true, "": true, "Meta": true, "anything": true,
	} {
		if got := kind.Sealed(); got != want {
			t.Errorf("kind %q: sealed is %t, want %t", kind, got, want)
		}
	}
}
