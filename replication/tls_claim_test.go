package replication

import (
	"testing"
	"time"
)

func TestTLSClaimHolds(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for _, tc := range []struct {
		name     string
		from, to int64
		want     bool
	}{
		{"just made", at(-clockSkew), at(certificateLife), true},
		{"at its end", at(-certificateLife - clockSkew), at(0), true},
		{"over", at(-certificateLife - clockSkew), at(-time.Second), false},
		{"not yet", at(time.Second), at(certificateLife), false},
		{"a second too long", at(-clockSkew - time.Second), at(certificateLife), false},
		{"for years", at(-clockSkew), at(10 * 365 * 24 * time.Hour), false},
		{"from the end to the beginning", at(certificateLife), at(-clockSkew), false},
		{"the whole range", 0, 1 << 40, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := (tlsClaim{notBefore: tc.from, notAfter: tc.to}).holds(now); (err == nil) != tc.want {
				t.Errorf("got %v, want it to hold: %v", err, tc.want)
			}
		})
	}
}
