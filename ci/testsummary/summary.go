package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// event is one line of go test -json, of go help test2json and go help buildjson.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Elapsed    float64
	Output     string
}

// summary counts tests. A test with subtests counts as well as each of them.
type summary struct {
	out                     io.Writer
	passed, failed, skipped int
	tokens                  int
	output                  map[string]*strings.Builder // of tests and packages that have not ended
}

func (s *summary) read(r io.Reader) error {
	s.output = map[string]*strings.Builder{}
	for dec := json.NewDecoder(r); ; {
		var e event
		switch err := dec.Decode(&e); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading the output of go test: %w", err)
		}
		s.add(e)
	}
}

func (s *summary) add(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "output":
		if s.output[key] == nil {
			s.output[key] = new(strings.Builder)
		}
		s.output[key].WriteString(e.Output)
	case "pass":
		s.end(e, key, &s.passed, false)
	case "fail":
		s.end(e, key, &s.failed, true)
	case "skip":
		if e.Test == "" { // a package without tests
			delete(s.output, key)
			return
		}
		s.end(e, key, &s.skipped, true)
	}
}

func (s *summary) end(e event, key string, count *int, show bool) {
	if text := s.output[key]; show && text != nil {
		fmt.Fprint(s.out, text)
	}
	delete(s.output, key)
	switch {
	case e.Test != "":
		*count++
	case e.Action == "pass":
		fmt.Fprintf(s.out, "ok    %-60s %6.1fs\n", e.Package, e.Elapsed)
	default:
		fmt.Fprintf(s.out, "FAIL  %-60s %6.1fs\n", e.Package, e.Elapsed)
		// A package that does not build, or dies, may have no failed test.
		if s.failed == 0 {
			s.failed++
		}
	}
}

func (s *summary) countTokens(names string) {
	distinct := map[string]bool{}
	for _, name := range strings.Fields(names) {
		distinct[name] = true
	}
	s.tokens = len(distinct)
}

// finish prints the totals and reports whether the run proves what it should.
func (s *summary) finish() bool {
	if s.skipped > 0 {
		fmt.Fprintf(s.out, "%d tests were skipped, which counts as failure\n", s.skipped)
	}
	if s.tokens == 0 {
		fmt.Fprintln(s.out, "no test used a token, which counts as failure: is SoftHSM installed?")
	}
	fmt.Fprintf(s.out, "%d tests used a token\n", s.tokens)
	fmt.Fprintf(s.out, "%d passed, %d failed\n", s.passed, s.failed+s.skipped)
	return s.failed+s.skipped == 0 && s.tokens > 0
}
