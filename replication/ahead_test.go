package replication

import (
	"testing"
	"time"
)

// A clock that is put back puts off nothing by more than what is ever waited for.
func TestAhead(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for after, want := range map[time.Duration]bool{
		-time.Hour: false, 0: false, 1: true, time.Minute - 1: true, time.Minute: true, time.Minute + 1: false, 24 * time.Hour: false,
	} {
		if got := ahead(now, now.Add(after), time.Minute); got != want {
			t.Errorf("%s from now: %t", after, got)
		}
	}
}
