package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/keyops"
)

func newMade() *cobra.Command {
	var file, since string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "made --config FILE --since TIME",
		Short: "List the key material that was made, delivered or imported since a time, and what does not fit",
		Long: `List the key material that was made, delivered or imported since a time, and what does not fit.

It compares the rows of the store with the attributes of the token's objects, and changes
nothing; a daemon may be serving. Material that does not fit is listed whenever it was made:
its object is missing or in quarantine, was not made where the store says, or no row names
it. What is listed is what to replace after a theft of the PIN (see docs/runbooks.md).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := time.Parse(time.RFC3339, since)
			if err != nil {
				return fail(exitUsage, fmt.Errorf("--since: want a time such as 2026-11-21T00:00:00Z: %w", err))
			}
			d, err := newDaemon(cmd, file)
			if err != nil {
				return err
			}
			return d.inspect(cmd.Context(), nil, func(custody keyops.Custody) error {
				made, err := custody.Made(cmd.Context(), from)
				if err != nil {
					return fail(exitStore, advise(err))
				}
				return printMade(cmd.OutOrStdout(), made, asJSON)
			})
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file")
	cmd.Flags().StringVar(&since, "since", "", "`TIME`, RFC 3339")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printMade prints materials for people, or for programs.
func printMade(out io.Writer, made []keyops.MadeMaterial, asJSON bool) error {
	type row struct {
		Key      string `json:"keyId"`
		Account  string `json:"account,omitempty"`
		Spec     string `json:"keySpec,omitempty"`
		Material string `json:"materialId,omitempty"`
		Object   string `json:"object"`
		Created  string `json:"created,omitempty"`
		Way      string `json:"way,omitempty"`
		Current  bool   `json:"current"`
		Suspect  string `json:"suspect,omitempty"`
	}
	rows := make([]row, 0, len(made))
	for _, m := range made {
		r := row{
			Key: string(m.Key), Account: string(m.Account), Spec: string(m.Spec), Object: m.Object.String(),
			Way: m.Way, Current: m.Current, Suspect: m.Suspect,
		}
		if !m.Material.IsZero() {
			r.Material = m.Material.String()
		}
		if !m.Created.IsZero() {
			r.Created = m.Created.Format(time.RFC3339)
		}
		rows = append(rows, r)
	}
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(rows)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		current := ""
		if r.Current {
			current = "current"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Created, r.Way, r.Key, r.Spec, current, r.Suspect)
	}
	fmt.Fprintf(w, "%d materials\n", len(rows))
	return w.Flush()
}
