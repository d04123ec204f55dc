package keyops_test

import (
	"errors"
	"fmt"
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
	want := statesPage(t)
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

func statesPage(t *testing.T) string {
	var b strings.Builder
	b.WriteString(`# Key states

Which operation a key allows in which state, as AWS KMS has it. The table is generated from the code that decides (` + "`keyops/keystate`" + `), and a test compares the two. The states of related keys are independent: a replica key works while the primary key is disabled, pending deletion or out of reach.

✓ allowed; D = DisabledException; S = KMSInvalidStateException; U = UnsupportedOperationException. Two marks: for a key made here, then for one of origin EXTERNAL.

`)
	rows := keyops.OperationRows()
	b.WriteString("| operation |")
	for _, s := range keystate.States {
		fmt.Fprintf(&b, " %s |", s)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(keystate.States)) + "\n")
	for _, op := range keystate.Operations() {
		name := string(op)
		if !rows[name] {
			name += " (later)"
		}
		fmt.Fprintf(&b, "| %s |", name)
		for _, s := range keystate.States {
			made, external := cell(t, s, op, false), cell(t, s, op, true)
			if made == external {
				fmt.Fprintf(&b, " %s |", made)
			} else {
				fmt.Fprintf(&b, " %s / %s |", made, external)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

func cell(t *testing.T, s keystate.State, op keystate.Operation, external bool) string {
	t.Helper()
	err := keystate.Check(s, op, keystate.Facts{External: external})
	if err == nil {
		return "✓"
	}
	var e *keystate.Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	return map[keystate.Reason]string{keystate.ReasonDisabled: "D", keystate.ReasonInvalidState: "S", keystate.ReasonUnsupported: "U"}[e.Reason]
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
