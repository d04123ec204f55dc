package replication_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
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

// all returns what a file has in this form.
func all(t *testing.T, file, form string) (names []string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(form).FindAllStringSubmatch(string(b), -1) {
		names = append(names, m[1])
	}
	return names
}

// declared returns what a file of the code declares in this form.
func declared(t *testing.T, file, form string) []string {
	t.Helper()
	names := all(t, file, form)
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
		{"messages", "## What is sent", "message/envelope.go", `(?m)^\tKind\w+ += "([a-z-]+)"`},
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

// The rules of the protocol are in the page's table, each with functions and a test that there
// are, and as many guards as bear its number.
func TestRulesOfThePage(t *testing.T) {
	page, err := os.ReadFile("../docs/replication.md")
	if err != nil {
		t.Fatal(err)
	}
	functions, tests, guards := map[string]bool{}, map[string]bool{}, map[string]int{}
	for _, dir := range []string{".", "simulation", "../keyops", "../keyops/mrk"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no files in %s: %v", dir, err)
		}
		for _, f := range files {
			into := functions
			if strings.HasSuffix(f, "_test.go") {
				into = tests
			}
			for _, name := range all(t, f, `(?m)^func (?:\([^)]*\) )?(\w+)\(`) {
				into[name] = true
			}
			if filepath.Base(f) != "guard.go" {
				continue
			}
			for _, numbers := range all(t, f, `guard\.Name = "((?:\d+(?:, )?)+)`) {
				for n := range strings.SplitSeq(numbers, ", ") {
					guards[n]++
				}
			}
		}
	}
	_, rest, _ := strings.Cut(string(page), "| rule | what happens | in the code | guards | test |")
	rows := regexp.MustCompile(`(?m)^\| (\d+) \| [^|]+ \| ([^|]+) \| (\d+) \| ([^|]+) \|$`).FindAllStringSubmatch(rest, -1)
	if len(rows) != 25 {
		t.Fatalf("the page has %d of the 25 rules", len(rows))
	}
	for i, row := range rows {
		if row[1] != strconv.Itoa(i+1) {
			t.Fatalf("row %d is about rule %s", i+1, row[1])
		}
		if row[3] != strconv.Itoa(guards[row[1]]) {
			t.Errorf("rule %s has %d guards in the code, and %s in the page", row[1], guards[row[1]], row[3])
		}
		for _, c := range []struct {
			cell string
			have map[string]bool
		}{{row[2], functions}, {row[4], tests}} {
			for name := range strings.SplitSeq(c.cell, ", ") {
				if !c.have[strings.Trim(name, "`")] {
					t.Errorf("rule %s: there is no %s", row[1], name)
				}
			}
		}
	}
}
