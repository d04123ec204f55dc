package keystate_test

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/keystate"
)

const keyARN = "arn:aws:kms:eu-paris-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"

// footnotes are those of the AWS table: the error that a state and an origin give, or "".
var footnotes = map[string]func(keystate.State, keystate.Facts) string{
	"1": func(keystate.State, keystate.Facts) string { return "DisabledException: is disabled." },
	"3": func(s keystate.State, _ keystate.Facts) string {
		if s == keystate.PendingReplicaDeletion {
			return "KMSInvalidStateException: is pending replica deletion."
		}
		return "KMSInvalidStateException: is pending deletion."
	},
	"4": func(keystate.State, keystate.Facts) string {
		return "KMSInvalidStateException: is not pending deletion."
	},
	"5": func(keystate.State, keystate.Facts) string { return "KMSInvalidStateException: is pending import." },
	"6": func(_ keystate.State, f keystate.Facts) string {
		if f.External {
			return "UnsupportedOperationException: origin is EXTERNAL which is not valid for this operation."
		}
		return "UnsupportedOperationException: origin is AWS_KMS which is not valid for this operation."
	},
	"7": func(_ keystate.State, f keystate.Facts) string {
		if f.External {
			return "UnsupportedOperationException: origin is EXTERNAL which is not valid for this operation."
		}
		return ""
	},
	"9": func(_ keystate.State, f keystate.Facts) string {
		if f.External {
			return ""
		}
		return "UnsupportedOperationException: origin is AWS_KMS which is not valid for this operation."
	},
	"10": func(s keystate.State, f keystate.Facts) string {
		switch {
		case f.OldTarget:
			return ""
		case s == keystate.PendingReplicaDeletion:
			return "KMSInvalidStateException: is pending replica deletion."
		}
		return "KMSInvalidStateException: is pending deletion."
	},
	"11": func(keystate.State, keystate.Facts) string { return "KMSInvalidStateException: is unavailable." },
	"14": func(keystate.State, keystate.Facts) string { return "KMSInvalidStateException: is creating." },
	"15": func(keystate.State, keystate.Facts) string { return "KMSInvalidStateException: is updating." },
}

func init() { footnotes["8"] = footnotes["3"] }

// expected reads one cell of the file.
func expected(t *testing.T, cell string, s keystate.State, f keystate.Facts) string {
	t.Helper()
	if cell == "Y" {
		return ""
	}
	for code := range strings.SplitSeq(strings.TrimPrefix(cell, "?"), " or ") {
		note, ok := footnotes[code]
		if !ok {
			t.Fatalf("cell %q: no footnote %q", cell, code)
		}
		if text := note(s, f); text != "" {
			return text
		}
	}
	if !strings.HasPrefix(cell, "?") && !f.OldTarget {
		t.Fatalf("cell %q applies to no key with %+v", cell, f)
	}
	return ""
}

var columns = map[keystate.State]string{
	keystate.Enabled: "Enabled", keystate.Disabled: "Disabled",
	keystate.PendingDeletion: "PD", keystate.PendingReplicaDeletion: "PD",
	keystate.PendingImport: "PendingImport", keystate.Unavailable: "Unavailable",
	keystate.Creating: "Creating", keystate.Updating: "Updating",
}

// TestEveryOperationInEveryState compares the table with the one typed from AWS, over every
// operation, state, origin and role.
func TestEveryOperationInEveryState(t *testing.T) {
	file, err := os.Open("testdata/states.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r := csv.NewReader(file)
	r.Comment = '#'
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var ops []string
	compared := 0
	for _, row := range rows[1:] {
		op := keystate.Operation(row[0])
		ops = append(ops, row[0])
		for _, state := range keystate.States {
			for _, facts := range []keystate.Facts{{}, {External: true}, {OldTarget: true}, {External: true, OldTarget: true}} {
				if facts.OldTarget && op != "UpdateAlias" {
					continue
				}
				cell := ""
				for i, name := range rows[0] {
					if name == columns[state] {
						cell = row[i]
					}
				}
				want := expected(t, cell, state, facts)
				got := ""
				if err := keystate.Check(state, op, facts); err != nil {
					var e *keystate.Error
					if !errors.As(err, &e) || e.Op != op || e.State != state {
						t.Fatalf("%s in %s: got %#v, want an *Error that names both", op, state, err)
					}
					got = string(e.Reason) + ": " + strings.TrimPrefix(e.Message(keyARN), keyARN+" ")
				}
				if got != want {
					t.Errorf("%s in %s, %+v: got %q, want %q", op, state, facts, got, want)
				}
				compared++
			}
		}
	}
	if want := len(rows[1:])*8*2 + 8*2; compared != want {
		t.Errorf("compared %d cells, want %d", compared, want)
	}
	slices.Sort(ops)
	var have []string
	for _, op := range keystate.Operations() {
		have = append(have, string(op))
	}
	if diff := cmp.Diff(ops, have); diff != "" {
		t.Errorf("operations (-file +table):\n%s", diff)
	}
}

func TestCheckRefusesTheUnknown(t *testing.T) {
	for name, test := range map[string]struct {
		state keystate.State
		op    keystate.Operation
	}{
		"operation":   {keystate.Enabled, "Exfiltrate"},
		"state":       {"Enabling", "Encrypt"},
		"no key":      {keystate.None, "DescribeKey"},
		"letter case": {keystate.Enabled, "encrypt"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := keystate.Check(test.state, test.op, keystate.Facts{}); err == nil {
				t.Errorf("%s in %s: got no error", test.op, test.state)
			}
		})
	}
}

func TestMessage(t *testing.T) {
	var e *keystate.Error
	if !errors.As(keystate.Check(keystate.Disabled, "Encrypt", keystate.Facts{}), &e) {
		t.Fatal("want an *Error")
	}
	if got, want := e.Message(keyARN), keyARN+" is disabled."; got != want {
		t.Errorf("Message: got %q, want %q", got, want)
	}
	if got, want := e.Error(), "Encrypt: key is disabled"; got != want {
		t.Errorf("Error: got %q, want %q", got, want)
	}
}

// TestEveryTransition has one character for each (from, to) pair: + may follow, = stays.
func TestEveryTransition(t *testing.T) {
	order := append([]keystate.State{keystate.None}, keystate.States...)
	want := map[keystate.State]string{
		//                              None Cre Ena Dis PImp PDel PRep Una Upd
		keystate.None:                   ".   +   +   .   +    .    .    .   .",
		keystate.Creating:               ".   =   +   .   +    +    .    .   .",
		keystate.Enabled:                ".   +   =   +   +    +    +    +   +",
		keystate.Disabled:               ".   +   +   =   +    +    +    +   .",
		keystate.PendingImport:          ".   +   +   .   =    +    +    .   .",
		keystate.PendingDeletion:        "+   +   .   +   .    =    +    .   .",
		keystate.PendingReplicaDeletion: ".   +   .   +   .    +    =    .   .",
		keystate.Unavailable:            ".   +   +   +   .    +    +    =   .",
		keystate.Updating:               ".   +   +   .   .    +    .    .   =",
	}
	for _, from := range order {
		marks := strings.Fields(want[from])
		for i, to := range order {
			err := keystate.Transition(from, to)
			if (err == nil) != (marks[i] != ".") {
				t.Errorf("from %q to %q: got %v, want %s", from, to, err, marks[i])
			}
			if err != nil && !errors.Is(err, keystate.ErrTransition) {
				t.Errorf("from %q to %q: got %v, want ErrTransition", from, to, err)
			}
		}
	}
	if err := keystate.Transition("Enabling", "Enabling"); err == nil {
		t.Error("an unknown state may stay: want an error")
	}
}

// TestOperationsReachTheirStates ties the two tables: what an operation is allowed to do in
// a state must be a transition from it.
func TestOperationsReachTheirStates(t *testing.T) {
	targets := map[keystate.Operation][]keystate.State{
		"EnableKey":           {keystate.Enabled},
		"DisableKey":          {keystate.Disabled},
		"ScheduleKeyDeletion": {keystate.PendingDeletion},
		"CancelKeyDeletion":   {keystate.Disabled},
	}
	for op, states := range targets {
		for _, from := range keystate.States {
			if keystate.Check(from, op, keystate.Facts{}) != nil {
				continue
			}
			for _, to := range states {
				if err := keystate.Transition(from, to); err != nil {
					t.Errorf("%s is allowed in %s: %v", op, from, err)
				}
			}
		}
	}
}

func TestParse(t *testing.T) {
	for _, s := range keystate.States {
		if got, err := keystate.Parse(string(s)); got != s || err != nil {
			t.Errorf("Parse(%q): got %q, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "enabled", "Deleted"} {
		if got, err := keystate.Parse(s); err == nil {
			t.Errorf("Parse(%q): got %q, want an error", s, got)
		}
	}
}

func ExampleCheck() {
	err := keystate.Check(keystate.PendingDeletion, "Encrypt", keystate.Facts{})
	var refused *keystate.Error
	if errors.As(err, &refused) {
		fmt.Println(refused.Reason)
		fmt.Println(refused.Message("arn:aws:kms:eu-paris-1:111122223333:key/mrk-1234"))
	}
	// Output:
	// KMSInvalidStateException
	// arn:aws:kms:eu-paris-1:111122223333:key/mrk-1234 is pending deletion.
}
