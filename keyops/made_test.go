package keyops_test

import (
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/keyopstest"
)

// TestMade asks what was made since a time, one second before, at, and after a key was made,
// and for what does not fit.
func TestMade(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	r := keyopstest.New(t, keyopstest.Options{Clock: func() time.Time { return now }})
	old := create(t, r, keyops.CreateKeyInput{})
	made := now
	now = now.Add(time.Hour)
	recent := create(t, r, keyops.CreateKeyInput{MultiRegion: true})
	stranger := hsm.NewID()
	first := materialObject(t, r, old.KeyID) // the stranger will say that it is this key's too
	if _, err := r.Fake.Generate(t.Context(), first.Spec, stranger); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		since time.Time
		want  []arn.KeyID // after the stranger, which has no time
	}{
		{"just before the first", made.Add(-time.Nanosecond), []arn.KeyID{old.KeyID, recent.KeyID}},
		{"at the first", made, []arn.KeyID{old.KeyID, recent.KeyID}},
		{"just after the first", made.Add(time.Nanosecond), []arn.KeyID{recent.KeyID}},
		{"after all", now.Add(time.Nanosecond), nil},
	} {
		all, err := r.MadeSince(t, tt.since)
		if err != nil || len(all) != len(tt.want)+1 || all[0].Object != stranger || !strings.Contains(all[0].Suspect, "no row names") {
			t.Errorf("%s: %+v, %v", tt.name, all, err)
			continue
		}
		for i, id := range tt.want {
			if m := all[i+1]; m.Key != id || m.Way != keyops.WayMade || !m.Current || m.Suspect != "" {
				t.Errorf("%s: %+v, want %s", tt.name, m, id)
			}
		}
	}
	if err := r.Fake.Destroy(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	all, err := r.MadeSince(t, now.Add(time.Hour))
	if err != nil || len(all) != 2 || all[1].Key != old.KeyID || !strings.Contains(all[1].Suspect, "not in the token") {
		t.Errorf("with an object that is gone: %+v, %v", all, err)
	}
}
