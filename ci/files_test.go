package ci

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// files calls fn for each file of the repository whose name has one of the suffixes, with
// its path from the root. Hidden directories but .ci, and what builds leave, are left out.
func files(t *testing.T, suffixes []string, fn func(name string, data []byte)) {
	t.Helper()
	count := 0
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel("..", path)
		if e.IsDir() {
			if name == "bin" || strings.HasPrefix(name, ".") && name != "." && name != ".ci" && name != ".github" {
				return filepath.SkipDir
			}
			return nil
		}
		if !slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(name, s) }) {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		count++
		fn(name, data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if count == 0 {
		t.Fatalf("no file ends in one of %v", suffixes)
	}
}

func generated(data []byte) bool {
	return bytes.Contains(data[:min(len(data), 4000)], []byte("DO NOT EDIT"))
}

// TestFilesAreShort bounds what a reader must hold in mind at once.
func TestFilesAreShort(t *testing.T) {
	const mostCode, mostTest, mostMain = 500, 700, 40
	files(t, []string{".go"}, func(name string, data []byte) {
		lines := bytes.Count(data, []byte("\n"))
		if generated(data) {
			return
		}
		most := mostCode
		if strings.HasSuffix(name, "_test.go") {
			most = mostTest
		}
		if lines > most {
			t.Errorf("%s has %d lines, more than %d: give its second subject a file of its own", name, lines, most)
		}
		main := strings.HasPrefix(name, "cmd/") && filepath.Base(name) == "main.go"
		if main && lines > mostMain {
			t.Errorf("%s has %d lines, more than %d: main parses, runs and exits", name, lines, mostMain)
		}
	})
}

// TestNoMachine keeps paths of somebody's machine out of the repository.
func TestNoMachine(t *testing.T) {
	// Put together here, so that this file does not have them.
	machine := regexp.MustCompile(`(^|[^A-Za-z0-9_.-])/(` + strings.Join([]string{"root", "work", "Users", "home"}, "|") + `)/[A-Za-z0-9.]`)
	files(t, []string{".go", ".md", ".sh", ".yaml", ".yml", ".proto", ".json", ".txt", ".mod", "Makefile", "run"}, func(name string, data []byte) {
		for i, line := range bytes.Split(data, []byte("\n")) {
			if machine.Match(line) {
				t.Errorf("%s:%d: a path of one machine: %s", name, i+1, bytes.TrimSpace(line[:min(len(line), 120)]))
			}
		}
	})
}

// TestPackagesSayWhatTheyAre demands a package comment of every package.
func TestPackagesSayWhatTheyAre(t *testing.T) {
	comment := regexp.MustCompile(`(?m)^(// |\*/ ?$|.*\*/$).*\n(//.*\n)*package `)
	for _, p := range list(t) {
		if p.part() == "proto" || len(p.GoFiles)+len(p.CgoFiles) == 0 {
			continue
		}
		found := false
		for _, f := range append(p.GoFiles, p.CgoFiles...) {
			data, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			found = found || comment.Match(data)
		}
		if !found {
			t.Errorf("%s has no package comment: say its purpose, whom it trusts, and what may be called at once", p.ImportPath)
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinks follows every link from one page of the repository to another.
func TestLinks(t *testing.T) {
	files(t, []string{".md"}, func(name string, data []byte) {
		for _, m := range link.FindAllSubmatch(withoutCode(data), -1) {
			target := string(m[1])
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			page, anchor, _ := strings.Cut(target, "#")
			at := filepath.Join("..", name)
			if page != "" {
				at = filepath.Join("..", filepath.Dir(name), page)
			}
			if _, err := os.Stat(at); err != nil {
				t.Errorf("%s links to %s, which is not there", name, target)
				continue
			}
			if anchor != "" && !hasAnchor(t, at, anchor) {
				t.Errorf("%s links to %s, and that page has no such heading", name, target)
			}
		}
	})
}

var (
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.*)$`)
	notSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

func withoutCode(data []byte) []byte { return fence.ReplaceAll(data, nil) }

// hasAnchor reports whether a heading of the page has this anchor, as forges make them.
func hasAnchor(t *testing.T, page, anchor string) bool {
	t.Helper()
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range heading.FindAllSubmatch(withoutCode(data), -1) {
		text := notSlug.ReplaceAllString(strings.ToLower(string(m[1])), "")
		if strings.ReplaceAll(strings.TrimSpace(text), " ", "-") == anchor {
			return true
		}
	}
	return false
}

// TestDecisions demands that decision records are numbered from 0001 without gaps, carry
// their number in their heading, and are listed in that order.
func TestDecisions(t *testing.T) {
	const dir = "../docs/adr/"
	index, err := os.ReadFile(dir + "README.md")
	if err != nil {
		t.Fatal(err)
	}
	records, err := filepath.Glob(dir + "[0-9]*.md")
	if err != nil || len(records) == 0 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	listed := 0
	for i, path := range records {
		name, number := filepath.Base(path), fmt.Sprintf("%04d", i+1)
		if !strings.HasPrefix(name, number+"-") {
			t.Errorf("docs/adr/%s: the next number is %s", name, number)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(data, []byte("# "+name[:4]+": ")) {
			t.Errorf("docs/adr/%s: its heading begins with another number", name)
		}
		at := bytes.Index(index, []byte("| ["+name[:4]+"]("+name+") |"))
		if at < listed {
			t.Errorf("docs/adr/README.md does not list %s, or not in its place", name)
		}
		listed = max(at, listed)
	}
}
