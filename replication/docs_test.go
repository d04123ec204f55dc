package replication_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// table returns the names in the first column of the page's first table after a heading or
// sentence.
func table(t *testing.T, page, after string) []string {
	t.Helper()
	_, rest, ok := strings.Cut(page, after)
	if !ok {
		t.Fatalf("docs/replication.md does not have %q", after)
	}
	var names []string
	rows := 0
	for line := range strings.Lines(rest) {
		cells := strings.Split(line, "|")
		switch {
		case len(cells) < 3 && rows > 0:
			slices.Sort(names)
			return names
		case len(cells) < 3:
			continue
		}
		if rows++; rows > 2 { // the first two are the head
			for name := range strings.SplitSeq(cells[1], ",") {
				names = append(names, strings.Trim(name, " `"))
			}
		}
	}
	slices.Sort(names)
	return names
}

// declared returns what a file of the code declares in this form.
func declared(t *testing.T, file, form string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(form).FindAllStringSubmatch(string(b), -1) {
		names = append(names, m[1])
	}
	if len(names) == 0 {
		t.Fatalf("%s declares nothing like %s", file, form)
	}
	slices.Sort(names)
	return names
}

// The protocol's tables in docs/replication.md name what the code has: messages, the status of
// members and of replicas, causes of failure.
func TestTablesOfThePage(t *testing.T) {
	b, err := os.ReadFile("../docs/replication.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ what, after, file, form string }{
		{"messages", "## What is sent", "envelope.go", `(?m)^\tkind\w+ += "([a-z-]+)"`},
		{"members", "## Members", "../keyops/mrk/state.go", `(?:statusNames = \[\.\.\.\]string\{|, )"([A-Z]+)"`},
		{"replicas", "## Status", "status.go", `(?m)^\tStatus\w+ += "([A-Z_]+)"`},
		{"causes", "| SUSPENDED | not waited for |", "../keyops/mrk/errors.go", `(?m)^\tCause\w+ +Cause = "([A-Z_]+)"`},
	} {
		t.Run(tt.what, func(t *testing.T) {
			if diff := cmp.Diff(declared(t, tt.file, tt.form), table(t, string(b), tt.after)); diff != "" {
				t.Errorf("the code has (-), the page has (+)\n%s", diff)
			}
		})
	}
}
