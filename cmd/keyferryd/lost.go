package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/keyops"
)

func newLost() *cobra.Command {
	var c custodian
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "lost --config FILE",
		Short: "List the keys whose material is not in the token; a daemon may be serving",
		Long: `List the keys whose material is not in the token; a daemon may be serving.

Of multi-Region keys, other Regions with a replica send it again. Single-Region keys are in
no other token: only a copy of the token brings them back. Exit code 7 if a single-Region
key is lost.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := newDaemon(cmd, c.config)
			if err != nil {
				return err
			}
			return d.inspect(cmd.Context(), nil, func(custody keyops.Custody) error {
				all, err := custody.LostKeys(cmd.Context())
				if err != nil {
					return fail(exitStore, advise(err))
				}
				if err := printLost(cmd.OutOrStdout(), all, asJSON); err != nil {
					return err
				}
				for _, k := range all {
					if !k.ID.MultiRegion() {
						return fail(exitFindings, fmt.Errorf("single-Region keys are lost with the token"))
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&c.config, "config", "", "configuration file")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printLost prints lost keys for people, or for programs.
func printLost(out io.Writer, all []keyops.LostKey, asJSON bool) error {
	if asJSON {
		type lost struct {
			Key         string   `json:"keyId"`
			Account     string   `json:"account"`
			Spec        string   `json:"keySpec"`
			Aliases     []string `json:"aliases"`
			MultiRegion bool     `json:"multiRegion"`
			Materials   int      `json:"materialsLost"`
		}
		rows := make([]lost, 0, len(all))
		for _, k := range all {
			rows = append(rows, lost{string(k.ID), string(k.Account), string(k.Spec), append([]string{}, k.Aliases...), k.ID.MultiRegion(), k.Lost})
		}
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(rows)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, k := range all {
		where := "in no other token"
		if k.ID.MultiRegion() {
			where = "other Regions send it, if they have it"
		}
		fmt.Fprintf(w, "%s\t%s\t%d materials\t%s\t%s\n", k.ID, k.Spec, k.Lost, where, strings.Join(k.Aliases, " "))
	}
	if len(all) == 0 {
		fmt.Fprintln(w, "nothing is lost")
	}
	return w.Flush()
}
