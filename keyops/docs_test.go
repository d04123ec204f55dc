package keyops_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/keystate"
)

// TestWriteOrderPage: the page lists the steps of the code, in their order.
func TestWriteOrderPage(t *testing.T) {
	page, err := os.ReadFile("../docs/write-order.md")
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z.-]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		steps = append(steps, m[1])
	}
	if !slices.Equal(steps, keyops.Steps()) {
		t.Errorf("docs/write-order.md has the steps\n%v\nthe code has\n%v", steps, keyops.Steps())
	}
}

// TestStatesPage: the page is what the state table says. With KEYFERRY_UPDATE set it is
// written anew.
func TestStatesPage(t *testing.T) {
	const path = "../docs/reference/states.md"
	want := keystate.Page()
	if strings.Contains(want, "?") {
		t.Error("the page has an operation in a state of which the table says nothing")
	}
	if os.Getenv("KEYFERRY_UPDATE") != "" {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the state table says; KEYFERRY_UPDATE=1 go test ./keyops -run TestStatesPage writes it", path)
	}
}

// TestGrantsPage: the policy that the page shows does what the page says.
func TestGrantsPage(t *testing.T) {
	page, err := os.ReadFile("../docs/grants.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```json keypolicy\n(.*?)```").FindSubmatch(page)
	if block == nil {
		t.Fatal("the page shows no policy")
	}
	r := keyopstest.New(t, keyopstest.Options{})
	k := create(t, r, keyops.CreateKeyInput{Policy: string(block[1])})
	in := keyops.CreateGrantInput{KeyID: k.ARN, GranteePrincipal: appARN, Operations: []string{"DescribeKey", "Decrypt"}}
	grant(t, r, in)
	in.Operations = append(in.Operations, "Encrypt")
	_, err = r.CreateGrant(t.Context(), admin(), in)
	want(t, err, keyops.ErrAccessDenied, "")
}

// TestFrozenPage: the page lists what a frozen instance does as the table of operations has it.
// With KEYFERRY_UPDATE set it is written anew.
func TestFrozenPage(t *testing.T) {
	const path, begin = "../docs/synchronization.md", "-run TestFrozenPage -->\n"
	words := map[string]string{"yes": "allowed", "other": "refused for multi-Region keys", "no": "refused"}
	table := "\n| operation | in a frozen instance |\n| --- | --- |\n"
	operations := keyops.FrozenOperations()
	for _, name := range slices.Sorted(maps.Keys(operations)) {
		table += "| `" + name + "` | " + words[operations[name]] + " |\n"
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, after, ok := strings.Cut(string(page), begin)
	if !ok {
		t.Fatalf("%s has no place for the table", path)
	}
	if os.Getenv("KEYFERRY_UPDATE") != "" {
		after = table
		if err := os.WriteFile(path, []byte(before+begin+table), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if after != table {
		t.Errorf("%s is not what the table of operations says; KEYFERRY_UPDATE=1 go test ./keyops -run TestFrozenPage writes it", path)
	}
}
