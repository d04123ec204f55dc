package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// in is one key as a Region has it; pairs are property and value.
func in(members string, pairs ...string) relatedKey {
	k := relatedKey{
		values: map[string]string{driftState: "Enabled", driftDescription: "", driftAliases: "", driftTags: "", driftPolicy: "p"},
		denied: map[string]string{}, members: strings.Fields(members),
	}
	for i := 0; i < len(pairs); i += 2 {
		k.values[pairs[i]] = pairs[i+1]
	}
	return k
}

func TestCompareRegions(t *testing.T) {
	const a, b = "eu-paris-1", "us-east-1"
	both := a + " " + b
	denied := in(both)
	denied.denied[driftPolicy] = "no"
	for _, tc := range []struct {
		name        string
		found       map[string]map[string]relatedKey
		unread      map[string]string
		ignore      []string
		keys        int
		differences []difference
		blind       []blindSpot
	}{
		{name: "equal", found: map[string]map[string]relatedKey{a: {"k": in(both)}, b: {"k": in(both)}}, keys: 1},
		{name: "a key without replicas", found: map[string]map[string]relatedKey{a: {"k": in(a)}, b: {}}},
		{
			name:        "every property",
			found:       map[string]map[string]relatedKey{a: {"k": in(both, driftState, "Disabled", driftTags, "x=1")}, b: {"k": in(both)}},
			keys:        1,
			differences: []difference{{"k", driftState, map[string]string{a: "Disabled", b: "Enabled"}}, {"k", driftTags, map[string]string{a: "x=1", b: ""}}},
		},
		{
			name:  "ignored",
			found: map[string]map[string]relatedKey{a: {"k": in(both, driftState, "Disabled")}, b: {"k": in(both)}}, ignore: []string{driftState},
			keys: 1,
		},
		{
			name:        "a replica that is not there",
			found:       map[string]map[string]relatedKey{a: {"k": in(both)}, b: {}},
			keys:        1,
			differences: []difference{{"k", driftPresence, map[string]string{a: "present", b: "absent"}}},
		},
		{
			name:   "a Region that does not answer proves nothing",
			found:  map[string]map[string]relatedKey{a: {"k": in(both)}},
			unread: map[string]string{b: "no answer"},
			blind:  []blindSpot{{Region: b, Reason: "no answer"}},
		},
		{
			name:  "a Region that the configuration does not name",
			found: map[string]map[string]relatedKey{a: {"k": in(both + " ap-tokyo-1")}, b: {"k": in(both)}},
			keys:  1,
			blind: []blindSpot{{KeyID: "k", Region: "ap-tokyo-1", Reason: "the configuration names no such Region"}},
		},
		{
			name:  "a policy that may not be read",
			found: map[string]map[string]relatedKey{a: {"k": denied}, b: {"k": in(both)}},
			keys:  1,
			blind: []blindSpot{{KeyID: "k", Region: a, Property: driftPolicy, Reason: "no"}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := compareRegions(tc.found, tc.unread, tc.ignore)
			if r.Keys != tc.keys {
				t.Errorf("%d keys compared, want %d", r.Keys, tc.keys)
			}
			if d := cmp.Diff(append([]difference{}, tc.differences...), r.Differences); d != "" {
				t.Errorf("differences (-want +got):\n%s", d)
			}
			if d := cmp.Diff(append([]blindSpot{}, tc.blind...), r.NotCompared); d != "" {
				t.Errorf("not compared (-want +got):\n%s", d)
			}
		})
	}
}

func TestComparablePolicy(t *testing.T) {
	here := comparablePolicy(`{"Version":"2012-10-17", "Statement":[{"Resource":"arn:aws:kms:eu-paris-1:1:key/x","Effect":"Allow"}]}`, "eu-paris-1")
	there := comparablePolicy(`{"Statement":[{"Effect":"Allow","Resource":"arn:aws:kms:us-east-1:1:key/x"}],"Version":"2012-10-17"}`, "us-east-1")
	if here != there {
		t.Errorf("the same policy in two Regions:\n%s\n%s", here, there)
	}
	elsewhere := comparablePolicy(`{"Statement":[{"Effect":"Allow","Resource":"arn:aws:kms:us-east-1:1:key/x"}],"Version":"2012-10-17"}`, "eu-paris-1")
	if here == elsewhere {
		t.Error("an ARN of another Region counts as the Region's own")
	}
}

func TestWriteDrift(t *testing.T) {
	r := driftReport{
		Regions: []string{"eu-paris-1", "us-east-1"}, Keys: 1,
		Differences: []difference{{"mrk-1", driftTags, map[string]string{"us-east-1": "", "eu-paris-1": "x=1"}}},
		NotCompared: []blindSpot{{Region: "ap-tokyo-1", Reason: "no answer"}},
	}
	var out, errs bytes.Buffer
	a := &app{Streams: Streams{Out: &out, Err: &errs}}
	if err := a.writeDrift(r); err != nil {
		t.Fatal(err)
	}
	want := "mrk-1: tags not the same everywhere\n  eu-paris-1: x=1\n  us-east-1: (none)\nall keys in ap-tokyo-1: not compared: no answer\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	if exitCode(errDrift) != ExitDrift {
		t.Errorf("exit code %d", exitCode(errDrift))
	}
}
