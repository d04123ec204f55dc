package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/keyops/statement/approval"
)

func (f *flags) rosterCommand(ran *bool) *cobra.Command {
	var operators, request string
	var approvals []string
	var expiry time.Duration
	cmd := &cobra.Command{
		Use:   "roster --operators FILE (--request FILE | --approval FILE...)",
		Short: "Put other operators in the place of this Region's: ask for it, then do it",
		Long: `Put other operators in the place of this Region's: ask for it, then do it.

First with --request, which is then approved with keyferry approve, by enough operators of
the present roster and enough of the next. Then with --approval. Peers learn of it with the
next offer of transport keys.`,
		RunE: func(cmd *cobra.Command, more []string) error {
			approvals = append(approvals, more...) // what a shell makes of --approval *
			if (request == "") == (len(approvals) == 0) {
				return errors.New("exactly one of --request and --approval is required")
			}
			next, err := approval.LoadRoster(operators)
			if err != nil {
				return fmt.Errorf("--operators: %w", err)
			}
			t, err := f.noToken(cmd, ran)
			if err != nil {
				return err
			}
			if request != "" {
				return t.RequestRoster(next, request, expiry)
			}
			return t.ChangeRoster(next, approvals)
		},
	}
	cmd.Flags().StringVar(&operators, "operators", "", "operators.yaml of the next roster")
	cmd.Flags().StringVar(&request, "request", "", "write what operators are to approve to this new file")
	cmd.Flags().DurationVar(&expiry, "expiry", 24*time.Hour, "how long the request may be carried out, at most 168h")
	cmd.Flags().StringArrayVar(&approvals, "approval", nil, "an operator's approval, and those of others after it")
	return cmd
}
