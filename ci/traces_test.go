package ci

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// promised are the names of errors and of causes of failure in the text.
var promised = regexp.MustCompile("`([A-Z][A-Za-z]+Exception|[A-Z]+(?:_[A-Z]+)+)`")

// TestReplicationPage demands of docs/replication.md that every trace of the protocol's
// design, and every abuse that it answers, names a test, and that each test exists; and that
// each error and cause it promises is one of those that there are.
func TestReplicationPage(t *testing.T) {
	exists := testNames(t)
	page, err := os.ReadFile("../docs/replication.md")
	if err != nil {
		t.Fatal(err)
	}
	reasons, err := os.ReadFile("../docs/reference/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	_, causes, _ := strings.Cut(string(page), "\n| cause | what to do |\n")
	causes, _, _ = strings.Cut(causes, "\n\n")
	traces, abuses := map[string]bool{}, 0
	for i, line := range strings.Split(string(page), "\n") {
		named := namedTest.FindAllStringSubmatch(line, -1)
		for _, m := range named {
			if !exists[m[1]] {
				t.Errorf("docs/replication.md:%d names %s, which does not exist", i+1, m[1])
			}
		}
		for _, m := range promised.FindAllStringSubmatch(line, -1) {
			if !strings.Contains(string(reasons), m[1]) && !strings.Contains(causes, m[1]) {
				t.Errorf("docs/replication.md:%d promises %s, which nothing answers", i+1, m[1])
			}
		}
		cells := strings.Split(line, "|")
		if len(cells) != 5 || len(named) == 0 {
			continue
		}
		if name := strings.TrimSpace(cells[1]); strings.HasPrefix(name, "CE") {
			traces[name] = true
		} else {
			abuses++
		}
	}
	for n := 1; n <= 22; n++ {
		if !traces[fmt.Sprintf("CE%d", n)] {
			t.Errorf("docs/replication.md has no tests for trace CE%d", n)
		}
		named := regexp.MustCompile(fmt.Sprintf(`^TestCE%d[^0-9]`, n))
		if !slices.ContainsFunc(slices.Collect(maps.Keys(exists)), named.MatchString) {
			t.Errorf("no test is named for trace CE%d", n)
		}
	}
	if abuses < 25 {
		t.Errorf("docs/replication.md has %d abuses: its table is not what this test takes it for", abuses)
	}
}
