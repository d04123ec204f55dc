package ci

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

var (
	testFunc  = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	namedTest = regexp.MustCompile("`(Test\\w+)`")
)

// TestSecurityPage demands of docs/security.md that each attack names a test, and that each
// test it names exists: a claim without a test is worth nothing, and tests are renamed.
func TestSecurityPage(t *testing.T) {
	exists := testNames(t)
	page, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	attacks := 0
	for i, line := range strings.Split(string(page), "\n") {
		named := namedTest.FindAllStringSubmatch(line, -1)
		for _, m := range named {
			if !exists[m[1]] {
				t.Errorf("docs/security.md:%d names %s, which does not exist", i+1, m[1])
			}
		}
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| attack |") || strings.HasPrefix(line, "| --- |") {
			continue
		}
		attacks++
		if len(named) == 0 {
			t.Errorf("docs/security.md:%d: an attack without a test: %s", i+1, line)
		}
	}
	if attacks < 30 {
		t.Errorf("docs/security.md has %d attacks: its tables are not what this test takes them for", attacks)
	}
}

// testNames returns the names of all tests.
func testNames(t *testing.T) map[string]bool {
	exists := map[string]bool{}
	files(t, []string{"_test.go"}, func(_ string, data []byte) {
		for _, m := range testFunc.FindAllSubmatch(data, -1) {
			exists[string(m[1])] = true
		}
	})
	return exists
}
