package region_test

import (
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops/region"
)

func TestParseName(t *testing.T) {
	for s, ok := range map[string]bool{
		"eu-paris-1": true, "us-gov-east-1": true, "ap-tokyo-12": true, "a-b-0": true,
		strings.Repeat("a", 26) + "-bcd-1": true, // 32 characters
		"":                                 false, "paris": false, "paris-1": false, "eu-paris": false, "eu-paris-": false, "eu-paris-1a": false,
		"eu-north-west-paris-1": false, "EU-paris-1": false, "eu-Paris-1": false, "eu_paris_1": false, "eu--paris-1": false, "-eu-paris-1": false,
		"eu1-paris-1": false, "eu-paris-1\n": false, " eu-paris-1": false, "eu-paris-١": false, "eu-paris-1/..": false, "*": false,
		strings.Repeat("a", 27) + "-bcd-1": false,
	} {
		got, err := region.ParseName(s)
		if (err == nil) != ok {
			t.Errorf("ParseName(%q): got %v, want ok %t", s, err, ok)
		}
		if ok && string(got) != s || !ok && got != "" {
			t.Errorf("ParseName(%q): got %q", s, got)
		}
	}
}

func TestParseInstanceID(t *testing.T) {
	for s, ok := range map[string]bool{
		"kfi-0123456789ab": true, "kfi-000000000000": true,
		"": false, "kfi-": false, "kfi-0123456789a": false, "kfi-0123456789abc": false, "kfi-0123456789AB": false,
		"KFI-0123456789ab": false, "kfi-0123456789ag": false, "0123456789ab": false, "kfi-0123456789ab\n": false,
	} {
		got, err := region.ParseInstanceID(s)
		if (err == nil) != ok {
			t.Errorf("ParseInstanceID(%q): got %v, want ok %t", s, err, ok)
		}
		if ok && string(got) != s || !ok && got != "" {
			t.Errorf("ParseInstanceID(%q): got %q", s, got)
		}
	}
}

func TestNewInstanceID(t *testing.T) {
	seen := map[region.InstanceID]bool{}
	for range 100 {
		id := region.NewInstanceID()
		if parsed, err := region.ParseInstanceID(string(id)); parsed != id || err != nil {
			t.Fatalf("made %q: %v", id, err)
		}
		if seen[id] {
			t.Fatalf("made %q twice", id)
		}
		seen[id] = true
	}
}

// FuzzParseName checks that what is accepted can be a file name, a part of an ARN and a
// part of a host name as it is.
func FuzzParseName(f *testing.F) {
	f.Add("eu-paris-1")
	f.Add("us-gov-east-1")
	f.Fuzz(func(t *testing.T, s string) {
		name, err := region.ParseName(s)
		if err != nil {
			return
		}
		if string(name) != s || len(s) > 32 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Errorf("accepted %q as %q", s, name)
		}
	})
}
