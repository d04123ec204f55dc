package strictyaml

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type file struct {
	Name    string            `yaml:"name"`
	Count   int               `yaml:"count,omitempty"`
	On      bool              `yaml:"on"`
	Every   time.Duration     `yaml:"every"`
	Words   []string          `yaml:"words"`
	Section section           `yaml:"section"`
	List    []section         `yaml:"list"`
	Map     map[name]section  `yaml:"map"`
	Plain   map[string]string `yaml:"plain"`
}

type section struct {
	Value string `yaml:"value"`
}

type name string

func TestDecode(t *testing.T) {
	var got file
	doc := Decode("f", []byte(`name: n
count: 3
on: true
every: 1h30m
words: [a, "1"]
section: {value: v}
list:
  - {value: x}
  - value: y
map: {k: {value: m}}
plain: {a: b}
`), &got)
	if err := doc.Err(); err != nil {
		t.Fatal(err)
	}
	want := file{Name: "n", Count: 3, On: true, Every: 90 * time.Minute, Words: []string{"a", "1"},
		Section: section{"v"}, List: []section{{"x"}, {"y"}}, Map: map[name]section{"k": {"m"}}, Plain: map[string]string{"a": "b"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
	for path, line := range map[string]int{"name": 1, "words[1]": 5, "list[1].value": 9, "map.k.value": 10, "list[1].missing": 9, "nowhere": 0} {
		if got := doc.line(path); got != line {
			t.Errorf("line of %s = %d, want %d", path, got, line)
		}
	}
	if !doc.Has("count") || doc.Has("map.z") {
		t.Errorf("Has(count) = %v, Has(map.z) = %v", doc.Has("count"), doc.Has("map.z"))
	}
}

func TestMistakes(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", "", "f: the file is empty"},
		{"only a comment", "# x\n", "f: the file is empty"},
		{"not a mapping", "- a\n", "f:1: want keys and values, not a list"},
		{"unknown", "nmae: x\n", "f:1: nmae: unknown key: did you mean name?"},
		{"unknown in a list", "list: [{valeu: x}]\n", "f:1: list[0].valeu: unknown key: did you mean value?"},
		{"twice", "on: true\non: false\n", "f:2: on: given twice, first in line 1: remove one"},
		{"merge", "section: {<<: {value: x}}\n", "f:1: section: a key must be a plain word"},
		{"alias", "name: &a x\nwords: [*a]\n", "f:1: name: anchors and aliases are not supported: write the value out\nf:2: words[0]: anchors and aliases are not supported: write the value out"},
		{"null", "name: ~\n", "f:1: name: no value: give one, or leave the key out"},
		{"number for text", "name: 7\n", `f:1: name: want text, not "7": write it in quotes`},
		{"bool for text", "name: yes\n", ""},
		{"text for a number", "count: many\n", `f:1: count: want a whole number, not "many"`},
		{"fraction", "count: 1.5\n", `f:1: count: want a whole number, not "1.5"`},
		{"too large", "count: 99999999999999999999\n", `f:1: count: want a whole number, not "99999999999999999999"`},
		{"text for a bool", "on: maybe\n", `f:1: on: want true or false, not "maybe"`},
		{"list for text", "name: [a]\n", "f:1: name: want text, not a list"},
		{"text for a list", "words: a\n", `f:1: words: want a list, not "a"`},
		{"number for a duration", "every: 5\n", `f:1: every: want a duration such as 500ms, 30s or 1h30m, not "5"`},
		{"list for a duration", "every: [1s]\n", "f:1: every: want a duration such as 500ms, 30s or 1h30m, not a list"},
		{"all at once", "nmae: x\ncount: many\n", "f:1: nmae: unknown key: did you mean name?\nf:2: count: want a whole number, not \"many\""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := Decode("f", []byte(tt.text), new(file)).Err(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReport(t *testing.T) {
	doc := Decode("f", []byte("name: x\nsection: {value: y}\n"), new(file))
	doc.Report("section.other", "is %d", 7)
	var e *Error
	if err := doc.Err(); !errors.As(err, &e) || err.Error() != "f:2: section.other: is 7" {
		t.Errorf("error = %v", err)
	}
	broken := Decode("f", []byte("name: [\n"), new(file))
	broken.Report("name", "is missing")
	if err := broken.Err(); err == nil || strings.Contains(err.Error(), "missing") {
		t.Errorf("a file that is not YAML: %v", err)
	}
}

func TestLoad(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f.yaml")
	if _, err := Load(name, new(file)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(name, make([]byte, maxBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(name, new(file)); err == nil || !strings.Contains(err.Error(), "larger than 1 MiB") {
		t.Errorf("a huge file: %v", err)
	}
}

// FuzzDecode demands that no text makes Decode panic, and that whatever it accepts without
// a word has no key that the struct lacks.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{"name: x\n", "list: [{value: x}]\n", "a: &a [*a]\n", "<<: x\n", "? [a]\n: b\n", "---\n---\n", "map: {1: 2}\n", "!!binary a: b"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		doc := Decode("f", data, new(file))
		if doc.Err() != nil {
			return
		}
		for path := range doc.lines {
			if root, _, _ := strings.Cut(path, "."); !strings.ContainsAny(root, "[") && !strings.Contains("name count on every words section list map plain", root) {
				t.Errorf("accepted key %q of %q", path, data)
			}
		}
	})
}
