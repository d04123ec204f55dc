package main

import (
	"math"
	"testing"
	"time"

	"github.com/keyferry/keyferry/gateway"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/replication"
)

const (
	fine    = gateway.HealthOK
	warning = gateway.HealthWarning
	problem = gateway.HealthProblem
)

// TestChecks: each limit one below, at it, and one above.
func TestChecks(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	clock := func(offset, err time.Duration) gateway.HealthCheck {
		return checkClock(replication.PeerStatus{Clock: replication.Clock{Offset: offset, Error: err, At: now}}, now)
	}
	certificate := func(left time.Duration) gateway.HealthCheck {
		return checkCertificate(gateway.CertificateDates{NotAfter: now.Add(left)}, now)
	}
	capacity := func(free uint64, perDay int) gateway.HealthCheck {
		return capacityOf(hsm.Capacity{Objects: 100, Free: free, Total: 1000}, keyops.Growth{New: perDay, Over: 24 * time.Hour})
	}
	quota := func(keys int) gateway.HealthCheck { return quotaOf(keyops.Growth{Fullest: keys, Quota: 100}) }
	all := epochs{classes: len(hsm.Classes), newest: 1, held: 1}
	few := epochs{classes: 1, newest: 1, held: 1}
	day := 24 * time.Hour
	for _, tt := range []struct {
		name string
		got  gateway.HealthCheck
		want gateway.HealthLevel
	}{
		{"clocks as one", clock(0, time.Millisecond), fine},
		{"clocks 2 s apart", clock(2*time.Second, 0), fine},
		{"clocks over 2 s apart", clock(2*time.Second+1, 0), warning},
		{"clocks over 2 s apart, the other way", clock(-2*time.Second-1, 0), warning},
		{"perhaps over 2 s apart", clock(3*time.Second, time.Second), fine},
		{"clocks less than 60 s apart", clock(-time.Minute+1, 0), warning},
		{"clocks 60 s apart", clock(-time.Minute, 0), problem},
		{"clocks not measured", checkClock(replication.PeerStatus{}, now), warning},

		{"certificate for 30 days", certificate(30 * day), fine},
		{"certificate for less", certificate(30*day - 1), warning},
		{"certificate for 3 days", certificate(3 * day), warning},
		{"certificate for less than 3", certificate(3*day - 1), problem},
		{"certificate that has ended", certificate(-1), problem},

		{"a link key for 10 hours", checkLinkKey("", now.Add(10*time.Hour), now), fine},
		{"for less", checkLinkKey("", now.Add(10*time.Hour-1), now), warning},
		{"for 2 hours", checkLinkKey("", now.Add(2*time.Hour), now), warning},
		{"for less than 2", checkLinkKey("", now.Add(2*time.Hour-1), now), problem},
		{"none shown", checkLinkKey("", time.Time{}, now), warning},

		{"a tenth of the token free", capacity(100, 0), fine},
		{"less", capacity(99, 0), warning},
		{"a fiftieth", capacity(20, 0), warning},
		{"less than that", capacity(19, 0), problem},
		{"full in 100 days", capacity(500, 1), fine},
		{"full in 50 days", capacity(500, 2), warning},
		{"a token that does not say", capacityOf(hsm.Capacity{Objects: 1}, keyops.Growth{New: 9, Over: day}), fine},

		{"90 of 100 keys", quota(90), fine},
		{"91 of 100 keys", quota(91), warning},
		{"99 of 100 keys", quota(99), warning},
		{"100 of 100 keys", quota(100), problem},

		{"a tenth of the disk free", diskOf("", 10, 100), fine},
		{"less", diskOf("", 9.9, 100), warning},
		{"a fiftieth of the disk", diskOf("", 2, 100), warning},
		{"less than that", diskOf("", 1.9, 100), problem},

		{"transport keys both ways", transportOf("", all, all), fine},
		{"some classes only", transportOf("", all, few), warning},
		{"none to the peer", transportOf("", epochs{}, all), problem},
		{"none from the peer", transportOf("", few, epochs{}), problem},

		{"a peer that is connected", checkPeer(replication.PeerStatus{Connected: now}), fine},
		{"a peer that is not", checkPeer(replication.PeerStatus{}), problem},
	} {
		if tt.got.Level != tt.want {
			t.Errorf("%s: level %d, want %d: %s", tt.name, tt.got.Level, tt.want, tt.got.Summary)
		}
		if tt.got.Summary == "" || tt.got.Level == problem && tt.got.Advice == "" {
			t.Errorf("%s: says %q, advises %q", tt.name, tt.got.Summary, tt.got.Advice)
		}
	}
	// 500 bytes are used by 100 objects: five each, two a day, 500 left.
	if days := capacity(500, 2).Values["fullInDays"]; math.Abs(days-50) > 1e-9 {
		t.Errorf("full in %v days, want 50", days)
	}
	if c := checkDisk("store", t.TempDir()); c.Values["totalBytes"] <= 0 {
		t.Errorf("the disk of a directory: %+v", c)
	}
	if c := checkDisk("store", "/nowhere/at/all"); c.Level != problem {
		t.Errorf("the disk of no directory: %+v", c)
	}
}
