package hsm

import (
	"testing"

	"github.com/miekg/pkcs11"
)

// TestRoom: what a token does not know is not taken for a number.
func TestRoom(t *testing.T) {
	for _, tt := range []struct {
		name        string
		info        pkcs11.TokenInfo
		free, total uint64
	}{
		{"known", pkcs11.TokenInfo{FreePrivateMemory: 40, TotalPrivateMemory: 100}, 40, 100},
		{"full", pkcs11.TokenInfo{FreePrivateMemory: 0, TotalPrivateMemory: 100}, 0, 100},
		{"SoftHSM, which says unavailable", pkcs11.TokenInfo{FreePrivateMemory: ^uint(0), TotalPrivateMemory: ^uint(0)}, 0, 0},
		{"free unknown", pkcs11.TokenInfo{FreePrivateMemory: ^uint(0), TotalPrivateMemory: 100}, 0, 0},
		{"boundless", pkcs11.TokenInfo{}, 0, 0},
		{"nonsense", pkcs11.TokenInfo{FreePrivateMemory: 101, TotalPrivateMemory: 100}, 0, 0},
	} {
		if free, total := room(tt.info); free != tt.free || total != tt.total {
			t.Errorf("%s: %d of %d, want %d of %d", tt.name, free, total, tt.free, tt.total)
		}
	}
}
