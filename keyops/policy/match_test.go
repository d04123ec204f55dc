package policy

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestGlob(t *testing.T) {
	for _, test := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "abc", true}, {"?", "", false}, {"?", "a", true},
		{"a*", "a", true}, {"a*c", "abbc", true}, {"a*c", "abbd", false}, {"*a*", "bab", true}, {"**", "x", true},
		{"a?c", "abc", true}, {"a?c", "ac", false}, {"*?", "", false}, {"*?", "a", true}, {"?*?", "a", false},
		{"*ab*ab", "abab", true}, {"*ab*abc", "ababab", false}, {"*", "*", true}, {"a", "*", false}, {"?*", "**", true},
		{"?", "ä", true}, {"??", "ä", false}, {"*??", "€", false}, {"*??", "ä€", true}, {"a?c", "aäc", true}, {"ä*", "äb", true}, {"*ä", "€ä", true},
		{"*a", "*", false}, {"*b", "a*b", true},
	} {
		if got := glob(test.pattern, test.text); got != test.want {
			t.Errorf("glob(%q, %q): got %t, want %t", test.pattern, test.text, got, test.want)
		}
	}
}

// TestGlobIsNotExponential gives a naive matcher more work than the universe has time for.
func TestGlobIsNotExponential(t *testing.T) {
	start := time.Now()
	if glob(strings.Repeat("*a", 500)+"b", strings.Repeat("a", maxText)) {
		t.Error("got a match, want none")
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %s, want less than a second", took)
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("a*b?", "aabb")
	f.Add("*", "*")
	f.Add("*?ä", "€ä")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 64 || len(text) > 64 || !utf8.ValidString(pattern) || !utf8.ValidString(text) {
			return
		}
		re := regexp.QuoteMeta(pattern)
		re = strings.ReplaceAll(strings.ReplaceAll(re, `\*`, `.*`), `\?`, `.`)
		if got, want := glob(pattern, text), regexp.MustCompile("^(?s:"+re+")$").MatchString(text); got != want {
			t.Errorf("glob(%q, %q): got %t, want %t", pattern, text, got, want)
		}
	})
}

// TestActionTable keeps the table in order and within the bits of an actionSet.
func TestActionTable(t *testing.T) {
	for i, a := range actions {
		if i > 0 && actions[i-1].name >= a.name {
			t.Errorf("%s does not come after %s", a.name, actions[i-1].name)
		}
		if a.on == 0 || a.crossAccount && a.on != onKey {
			t.Errorf("%s: acts on %b, across accounts %t", a.name, a.on, a.crossAccount)
		}
		var s actionSet
		if !s.addPattern("kms:" + a.name) {
			t.Errorf("%s is not found by its name", a.name)
		}
		for j := range actions {
			if s.has(j) != (i == j) {
				t.Errorf("the set of %s has %s: %t", a.name, actions[j].name, s.has(j))
			}
		}
	}
}

func TestNearest(t *testing.T) {
	for name, want := range map[string]string{
		"kms:encript": "kms:Encrypt", "kms:GenerateDataKeys": "kms:GenerateDataKey", "Verfy": "kms:Verify",
		"kms:Launch": "", "": "", strings.Repeat("x", maxText): "",
	} {
		if got := nearest(name); got != want {
			t.Errorf("nearest(%.20q): got %q, want %q", name, got, want)
		}
	}
}

// TestActionsPage writes the table of docs/policy.md from the code and compares.
func TestActionsPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	table := actionsTable()
	if got := strings.Count(table, "`") / 2; got != len(actions)+2 { // two rows name the resource *
		t.Errorf("the table has %d names, want %d: a kind of action has no row", got-2, len(actions))
	}
	if !strings.Contains(string(page), table) {
		t.Errorf("docs/policy.md has another table of actions; want\n%s", table)
	}
}

// TestReasonsPage looks for the row of every reason.
func TestReasonsPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	for r := range reasons {
		answer := "no"
		if reasons[r].missing == "" {
			answer = "yes"
		}
		if row := fmt.Sprintf("| `%s` | %s | ", Reason(r), answer); !strings.Contains(string(page), row) {
			t.Errorf("docs/policy.md has no row %q", row)
		}
	}
}

// actionsTable has one row for each kind of resource and reach.
func actionsTable() string {
	kinds := []struct {
		on           resourceKind
		crossAccount bool
		words        string
	}{
		{onKey, true, "a key | yes"}, {onKey, false, "a key | no"}, {onKey | onNothing, false, "a key, or `*` | no"},
		{onKey | onAlias, false, "a key and an alias | no"}, {onNothing, false, "`*` | no"},
	}
	var rows strings.Builder
	for _, k := range kinds {
		var names []string
		for _, a := range actions {
			if a.on == k.on && a.crossAccount == k.crossAccount {
				names = append(names, "`"+a.name+"`")
			}
		}
		fmt.Fprintf(&rows, "| %s | %s |\n", strings.Join(names, ", "), k.words)
	}
	return rows.String()
}
