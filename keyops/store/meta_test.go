package store

import (
	"bytes"
	"testing"
	"time"
)

func FuzzDecodeMeta(f *testing.F) {
	f.Add(Meta{Instance: "kfi-0123456789ab", StoreID: "id", Created: time.Unix(1, 2)}.encode())
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := decodeMeta(body)
		if err == nil && !bytes.Equal(m.encode(), body) {
			t.Errorf("accepted %x, writes %x", body, m.encode())
		}
	})
}
