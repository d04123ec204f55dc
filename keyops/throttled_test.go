package keyops_test

import (
	"context"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

func TestRecordThrottled(t *testing.T) {
	r := keyopstest.New(t, keyopstest.Options{})
	since := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	for _, tt := range []struct {
		name string
		in   keyops.ThrottledCalls
		want map[string]string
	}{
		{"one principal", keyops.ThrottledCalls{Caller: keyopstest.Admin(), Operation: "Encrypt", Count: 12, Since: since},
			map[string]string{"refusedCalls": "12", "since": "2026-05-04T03:02:01Z", "firstOperation": "Encrypt"}},
		{"the others", keyops.ThrottledCalls{Count: 3, Since: since},
			map[string]string{"refusedCalls": "3", "since": "2026-05-04T03:02:01Z"}},
	} {
		if err := r.RecordThrottled(context.Background(), tt.in); err != nil {
			t.Fatal(err)
		}
		if _, err := r.AuditLog().Checkpoint(context.Background()); err != nil { // and all before it is on disk
			t.Fatal(err)
		}
		var got line
		for _, l := range auditLines(t, r, tt.in.Caller.RequestID) {
			if l.Event == keyops.EventThrottleCalls {
				got = l
			}
		}
		principal := ""
		if tt.in.Caller.Principal.Name != "" {
			principal = tt.in.Caller.Principal.String()
		}
		if got.Principal != principal || got.Outcome != "Error" || got.Error != "ThrottlingException" || got.Type != "ServiceEvent" {
			t.Errorf("%s: recorded %+v", tt.name, got)
		}
		for key, want := range tt.want {
			if got.Details[key] != want {
				t.Errorf("%s: %s is %q, want %q", tt.name, key, got.Details[key], want)
			}
		}
		if len(got.Details) != len(tt.want) {
			t.Errorf("%s: details are %v", tt.name, got.Details)
		}
	}
}
