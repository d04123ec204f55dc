package main

import (
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	const pass = `{"Action":"output","Package":"p","Test":"TestA","Output":"noise\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Elapsed":1.5}
{"Action":"skip","Package":"q"}
`
	tests := []struct {
		name, events, tokens string
		want                 bool
		lines                []string
		not                  string
	}{
		{"all pass", pass, "p.TestA\n", true, []string{"ok    p", "1 tests used a token", "1 passed, 0 failed"}, "noise"},
		{"tokens count once", pass, "TestA\nTestA\nTestB\n", true, []string{"2 tests used a token"}, ""},
		{"no token", pass, "", false, []string{"no test used a token", "1 passed, 0 failed"}, ""},
		{"a failure shows its output", pass + `{"Action":"output","Package":"r","Test":"TestB","Output":"why\n"}
{"Action":"fail","Package":"r","Test":"TestB"}
{"Action":"fail","Package":"r"}
`, "x", false, []string{"why", "FAIL  r", "1 passed, 1 failed"}, ""},
		{"a package that does not build", `{"ImportPath":"r","Action":"build-output","Output":"r.go:1: bad\n"}
{"ImportPath":"r","Action":"build-fail"}
{"Action":"fail","Package":"r"}
`, "x", false, []string{"r.go:1: bad", "0 passed, 1 failed"}, ""},
		{"a skipped test", pass + `{"Action":"output","Package":"p","Test":"TestC","Output":"too slow\n"}
{"Action":"skip","Package":"p","Test":"TestC"}
`, "x", false, []string{"too slow", "1 tests were skipped", "1 passed, 1 failed"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			s := summary{out: &out}
			if err := s.read(strings.NewReader(tt.events)); err != nil {
				t.Fatal(err)
			}
			s.countTokens(tt.tokens)
			if got := s.finish(); got != tt.want {
				t.Errorf("sound = %v, want %v", got, tt.want)
			}
			for _, line := range tt.lines {
				if !strings.Contains(out.String(), line) {
					t.Errorf("output lacks %q:\n%s", line, &out)
				}
			}
			if tt.not != "" && strings.Contains(out.String(), tt.not) {
				t.Errorf("output has %q:\n%s", tt.not, &out)
			}
		})
	}
}

func TestBrokenStream(t *testing.T) {
	s := summary{out: new(strings.Builder)}
	if err := s.read(strings.NewReader("{")); err == nil {
		t.Error("a cut stream was accepted")
	}
}
