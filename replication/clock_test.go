package replication

import (
	"testing"
	"time"
)

// TestMeasured: an answer that was sent during the exchange tells the offset up to half of
// how long that took.
func TestMeasured(t *testing.T) {
	begun := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name        string
		sent        time.Duration // after begun, by the peer's clock
		took        time.Duration
		offset, err time.Duration
		apart       time.Duration
	}{
		{"equal clocks", time.Second, 2 * time.Second, 0, time.Second, 0},
		{"ahead", 61 * time.Second, 2 * time.Second, time.Minute, time.Second, 59 * time.Second},
		{"behind", -59 * time.Second, 2 * time.Second, -time.Minute, time.Second, 59 * time.Second},
		{"a slow exchange says little", 3 * time.Second, 10 * time.Second, -2 * time.Second, 5 * time.Second, 0},
	} {
		c := measured(begun.Add(tt.sent).UnixNano(), begun, begun.Add(tt.took))
		if c.Offset != tt.offset || c.Error != tt.err || c.Apart() != tt.apart {
			t.Errorf("%s: %+v, apart %v; want offset %v, error %v, apart %v", tt.name, c, c.Apart(), tt.offset, tt.err, tt.apart)
		}
	}
}

// TestBetter: a precise measurement stays for a minute, and not for ever.
func TestBetter(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	before := Clock{Error: time.Millisecond, At: at}
	for _, tt := range []struct {
		name string
		next Clock
		want bool
	}{
		{"as precise", Clock{Error: time.Millisecond, At: at.Add(time.Second)}, true},
		{"less precise", Clock{Error: time.Second, At: at.Add(sampleAge)}, false},
		{"less precise, later", Clock{Error: time.Second, At: at.Add(sampleAge + 1)}, true},
		{"less precise, after this clock was set back", Clock{Error: time.Second, At: at.Add(-time.Hour)}, true},
	} {
		if got := tt.next.better(before); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	if !before.better(Clock{}) {
		t.Error("a first measurement is not taken")
	}
}
