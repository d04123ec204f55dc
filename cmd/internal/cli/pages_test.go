package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	fence = regexp.MustCompile("(?ms)^```[a-z]*\n(.*?)^```")
	// typed is a command as pages show it: alone, at a prompt, in a pipe or in $().
	typed     = regexp.MustCompile(`(?m)(?:^(?:\$ )?|\$\(|\| |&& |=)keyferry ([^\n|<>;&#)]*)`)
	arguments = regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`)
)

// TestPagesType: every command that a page types is one that there is, with flags that it
// has and as many arguments as it takes.
func TestPagesType(t *testing.T) {
	pages, err := filepath.Glob("../../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	checked := 0
	for _, page := range append(pages, "../../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range fence.FindAllStringSubmatch(string(text), -1) {
			for _, line := range typed.FindAllStringSubmatch(strings.ReplaceAll(block[1], "\\\n", " "), -1) {
				checked++
				if err := parses(arguments.FindAllString(line[1], -1)); err != nil {
					t.Errorf("%s: keyferry %s: %v", filepath.Base(page), line[1], err)
				}
			}
		}
	}
	if checked < 60 {
		t.Errorf("%d commands were found on the pages", checked)
	}
	for _, wrong := range []string{"key shown payroll", "key show", "key show payroll --frob", "key suspend one two --replica us-east-1", "verify payroll"} {
		if parses(strings.Fields(wrong)) == nil {
			t.Errorf("keyferry %s passes", wrong)
		}
	}
}

// parses does all that comes before a command runs. In a shell function "$@" stands for flags.
func parses(args []string) error {
	args = slices.DeleteFunc(args, func(a string) bool { return a == `"$@"` })
	for i, a := range args {
		args[i] = strings.Trim(a, `'"`)
	}
	c, rest, err := (&app{}).root().Find(args)
	if err != nil {
		return err
	}
	if !c.Runnable() {
		return fmt.Errorf("%s is no command", c.CommandPath())
	}
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	if err := c.ValidateArgs(c.Flags().Args()); err != nil {
		return err
	}
	return c.ValidateRequiredFlags()
}
