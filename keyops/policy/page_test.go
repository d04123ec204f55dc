package policy_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/policy"
)

// TestPage parses every example of docs/policy.md as what it is said to be.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```$").FindAllSubmatch(page, -1)
	seen := map[string]int{}
	var refusal error
	for _, b := range blocks {
		kind, text := string(b[1]), b[2]
		seen[kind]++
		switch kind {
		case "json keypolicy":
			if found := policy.Lint(mustParse(t, text, policy.KeyPolicy)); len(found) > 0 {
				t.Errorf("example of a key policy: %+v", found)
			}
		case "json identities":
			if found := mustIdentities(t, text).Lint(); len(found) > 0 {
				t.Errorf("example of identity policies: %+v", found)
			}
		case "json refused":
			_, refusal = policy.Parse(text, policy.KeyPolicy)
		case "text refusal":
			if want := strings.TrimSpace(string(text)); refusal == nil || refusal.Error() != want {
				t.Errorf("refused example: got %v, want %s", refusal, want)
			}
		default:
			t.Errorf("example of unknown kind %q", kind)
		}
	}
	want := map[string]int{"json keypolicy": 5, "json identities": 1, "json refused": 1, "text refusal": 1}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("examples (-want +got):\n%s", diff)
	}
	var onPage, inCode any
	if err := json.Unmarshal(blocks[0][2], &onPage); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(policy.DefaultKeyPolicy("aws", "111122223333"), &inCode); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(inCode, onPage); diff != "" {
		t.Errorf("the default key policy on the page (-code +page):\n%s", diff)
	}
}
