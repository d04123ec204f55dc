// Package strictyaml reads configuration files so that no mistake in one is silent.
//
// Unknown and repeated keys, wrong types, aliases, a second document and empty values are
// all reported, each with its line and what to do, and all in one run: an operator should
// not have to start a daemon five times to learn of five mistakes. Decoding fills a struct
// by its `yaml` tags; a field without a tag is a programming error. The returned [Document]
// remembers the line of each key, for checks of values that the caller makes afterwards.
//
// Files are the operator's own and trusted; the size bound only catches a wrong path.
package strictyaml

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const maxBytes = 1 << 20

// Problem is one mistake in a document.
type Problem struct {
	Line int    // 1-based; 0 when the mistake is not in one place
	Path string // dotted, such as token.pin_file or principals[2].principal
	Text string // what is wrong and what to do
}

// Document is a decoded file: its name, where its keys are, and what is wrong with it.
type Document struct {
	name     string
	lines    map[string]int
	problems []Problem
	broken   bool // not YAML, so nothing can be said about its values
}

// Load reads the file and decodes it into the struct that into points to. Mistakes in the
// contents are in the document, not in the error, so that the caller can add its own.
func Load(name string, into any) (*Document, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading configuration %s: %w", name, err)
	}
	if len(data) > maxBytes {
		return nil, fmt.Errorf("reading configuration %s: larger than 1 MiB, so it is probably another file", name)
	}
	return Decode(name, data, into), nil
}

// Decode decodes data into the struct that into points to. The name only labels problems.
func Decode(name string, data []byte, into any) *Document {
	d := &Document{name: name, lines: map[string]int{}}
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var root yaml.Node
	switch err := dec.Decode(&root); {
	case errors.Is(err, io.EOF):
		d.add(0, "", "the file is empty")
		d.broken = true
		return d
	case err != nil:
		d.syntax(err)
		return d
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		d.add(second.Line, "", "a second document after ---: keep one document in the file")
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err)
	}
	d.decode(root.Content[0], into)
	return d
}

var syntaxLine = regexp.MustCompile(`^yaml: line (\d+): (.*)$`)

func (d *Document) syntax(err error) {
	d.broken = true
	if m := syntaxLine.FindStringSubmatch(err.Error()); m != nil {
		line, _ := strconv.Atoi(m[1])
		d.add(line, "", "not YAML: "+m[2])
		return
	}
	d.add(0, "", "not YAML: "+strings.TrimPrefix(err.Error(), "yaml: "))
}

func (d *Document) add(line int, path, text string) {
	d.problems = append(d.problems, Problem{Line: line, Path: path, Text: text})
}

// Report adds a mistake at the key that path names, or at the nearest key around it that
// the file has. It does nothing for a file that could not be parsed.
func (d *Document) Report(path, format string, args ...any) {
	if !d.broken {
		d.add(d.line(path), path, fmt.Sprintf(format, args...))
	}
}

// Has reports whether the file has the key that path names.
func (d *Document) Has(path string) bool { return d.lines[path] > 0 }

func (d *Document) line(path string) int {
	for path != "" {
		if line := d.lines[path]; line > 0 {
			return line
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return 0
}

// Err returns all mistakes as one error, one line each, or nil.
func (d *Document) Err() error {
	if len(d.problems) == 0 {
		return nil
	}
	problems := slices.Clone(d.problems)
	slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return &Error{Name: d.name, Problems: problems}
}

// Error lists all mistakes of one file, in the order of their lines.
type Error struct {
	Name     string
	Problems []Problem
}

// Error returns one line per mistake: file:line: key: what is wrong.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		where := e.Name
		if p.Line > 0 {
			where += ":" + strconv.Itoa(p.Line)
		}
		if p.Path != "" {
			where += ": " + p.Path
		}
		lines[i] = where + ": " + p.Text
	}
	return strings.Join(lines, "\n")
}
