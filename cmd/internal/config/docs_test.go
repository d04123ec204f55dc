package config

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestIdentityPageIsValid has every piece of configuration on the page take its place in a
// whole file.
func TestIdentityPageIsValid(t *testing.T) {
	page, err := os.ReadFile("../../../docs/identity.md")
	if err != nil {
		t.Fatal(err)
	}
	pieces := regexp.MustCompile("(?s)```yaml\nclients:\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(pieces) < 3 {
		t.Fatalf("the page has %d pieces of configuration", len(pieces))
	}
	head, rules, _ := strings.Cut(minimal, "  principals:\n")
	for _, p := range pieces {
		text := head + p[1]
		if !strings.HasPrefix(p[1], "  principals:") {
			text += "  principals:\n" + rules
		}
		if _, err := Parse("c.yaml", []byte(text)); err != nil {
			t.Errorf("%s\n%v", p[1], err)
		}
	}
}
