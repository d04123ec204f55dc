package cli

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write docs/reference/cli.md anew")

const referencePage = "../../../docs/reference/cli.md"

// TestReferencePage holds the page against the commands: what it promises is what there is.
func TestReferencePage(t *testing.T) {
	t.Setenv("KEYFERRY_REGION", "")
	got := reference((&app{}).root())
	if *update {
		if err := os.WriteFile(referencePage, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(referencePage)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("the page is not that of these commands; run go test ./cmd/internal/cli -update\n%s", diff)
	}
}

func reference(root *cobra.Command) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# keyferry\n\n%s\n\nFlags of every command:\n\n", strings.ReplaceAll(root.Long, "\n", "\n"))
	flags(&b, root.PersistentFlags())
	var aws []string
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			switch {
			case sub.Name() == "help" || sub.Name() == "completion":
			case sub.Hidden:
				aws = append(aws, "`"+sub.Name()+"`")
			case sub.HasSubCommands():
				walk(sub)
			default:
				fmt.Fprintf(&b, "\n## %s\n\n    %s\n\n%s.\n", sub.CommandPath(), sub.UseLine(), sub.Short)
				if sub.Flags().HasFlags() {
					b.WriteByte('\n')
					flags(&b, sub.Flags())
				}
			}
		}
	}
	walk(root)
	fmt.Fprintf(&b, "\n## Names of AWS\n\nThese do the same as their counterparts above: %s.\n", strings.Join(aws, ", "))
	b.WriteString("\n## Completion\n\n    keyferry completion bash > /etc/bash_completion.d/keyferry\n\nAlso for zsh, fish and powershell.\n")
	return b.String()
}

func flags(b *bytes.Buffer, set *pflag.FlagSet) {
	b.WriteString("| flag | meaning |\n| --- | --- |\n")
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" || f.Name == "version" {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		flag := "--" + f.Name
		if f.Shorthand != "" {
			flag = "-" + f.Shorthand + ", " + flag
		}
		if name != "" {
			flag += " " + name
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" {
			usage += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		fmt.Fprintf(b, "| `%s` | %s |\n", flag, usage)
	})
}
