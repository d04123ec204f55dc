package hsm

import (
	"errors"
	"strings"
	"testing"
)

// everySpec returns one spec for each role, algorithm and usage that there is.
func everySpec() []Spec {
	var all []Spec
	for role, algorithms := range roles {
		for algorithm, usages := range algorithms {
			for _, usage := range usages {
				s := Spec{Role: role, Algorithm: algorithm, Usage: usage, Name: "mrk-1/2:3"}
				if role == RoleImportStep {
					continue // no token object, so it has no label of its own
				}
				if role == RoleImportWrapping {
					all = append(all, importSpecs(s)...)
					continue
				}
				if role == RoleTransportSource || role == RoleTransportDestination {
					for _, s.Class = range Classes {
						all = append(all, s)
					}
					continue
				}
				all = append(all, s)
			}
		}
	}
	return all
}

func TestLabelRoundTrip(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range everySpec() {
		for _, s.Name = range []string{"", "x", strings.Repeat("n", maxName)} {
			label := s.Label()
			got, err := ParseLabel(label)
			if err != nil || got != s {
				t.Errorf("%q: got %+v, %v; want %+v", label, got, err, s)
			}
			if seen[label] {
				t.Errorf("%q labels two specs", label)
			}
			seen[label] = true
		}
	}
}

func TestParseLabelRefuses(t *testing.T) {
	const good = "keyferry-1 material AES_256 - - name"
	if _, err := ParseLabel(good); err != nil {
		t.Fatal(err)
	}
	for name, label := range map[string]string{
		"empty":              "",
		"another version":    "keyferry-2 material AES_256 - - name",
		"too few words":      "keyferry-1 material AES_256 - -",
		"too many words":     good + " more",
		"two spaces":         "keyferry-1 material AES_256 -  - name",
		"trailing space":     good + " ",
		"leading space":      " " + good,
		"unknown role":       "keyferry-1 other AES_256 - - name",
		"unknown algorithm":  "keyferry-1 material AES_128 - - name",
		"usage of a secret":  "keyferry-1 material AES_256 sign - name",
		"no usage of a pair": "keyferry-1 material EC_P256 - - name",
		"class of material":  "keyferry-1 material AES_256 - aes name",
		"transport, none":    "keyferry-1 transport-source AES_256 - - name",
		"transport, unknown": "keyferry-1 transport-source AES_256 - all name",
		"control character":  "keyferry-1 material AES_256 - - na\tme",
		"not ASCII":          "keyferry-1 material AES_256 - - nämé",
		"long name":          good + strings.Repeat("x", maxName),
	} {
		if s, err := ParseLabel(label); !errors.Is(err, ErrCaller) {
			t.Errorf("%s: got %+v, %v; want %v", name, s, err, ErrCaller)
		}
	}
}

func FuzzParseLabel(f *testing.F) {
	for _, s := range everySpec() {
		f.Add(s.Label())
	}
	f.Add("keyferry-1 - - - - -")
	f.Fuzz(func(t *testing.T, label string) {
		s, err := ParseLabel(label)
		if err != nil {
			return
		}
		if got := s.Label(); got != label {
			t.Errorf("%q is read as %+v, whose label is %q", label, s, got)
		}
		if err := s.Check(); err != nil {
			t.Errorf("%q is read as an invalid spec: %v", label, err)
		}
	})
}

func TestParseID(t *testing.T) {
	id := NewID()
	if got, err := ParseID(id.String()); err != nil || got != id {
		t.Errorf("got %s, %v; want %s", got, err, id)
	}
	for _, s := range []string{"", "00", id.String() + "00", strings.Repeat("g", 32), strings.Repeat("0", 31)} {
		if _, err := ParseID(s); err == nil {
			t.Errorf("%q was read as an ID", s)
		}
	}
	if other := NewID(); other == id {
		t.Error("two new IDs are equal")
	}
}
