package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

func newClock() *cobra.Command {
	cmd := &cobra.Command{Use: "clock", Short: "Look at a stopped daemon's clock, and believe it with approvals", Args: cobra.NoArgs}
	cmd.AddCommand(newInspectClock(), newConfirmClock())
	return cmd
}

func newInspectClock() *cobra.Command {
	var file, request string
	var expiry time.Duration
	cmd := &cobra.Command{
		Use:   "inspect --config FILE",
		Short: "Say where the stopped daemon's clock stood, and which keys it would delete",
		Long: `Say where the stopped daemon's clock stood, and which keys it would delete.

After its clock was set by more than an hour, or it was down for longer than that, a daemon
deletes no key for a day. With --request, what operators would have to approve so that it
deletes keys at their dates at once (see docs/key-life.md).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := newDaemon(cmd, file)
			if err != nil {
				return err
			}
			return d.keep(cmd.Context(), nil, func(c keyops.Custody) error {
				in, err := c.InspectClock(cmd.Context())
				if err != nil {
					return fail(exitStore, err)
				}
				out := cmd.OutOrStdout()
				fmt.Fprintf(out, "clock when last written down  %s\nclock now                     %s\nno deletion for another       %s\nkeys that wait for deletion   %d\n",
					in.Seen.Format(time.RFC3339), time.Now().UTC().Format(time.RFC3339), in.Hold.Round(time.Minute), len(in.Pending))
				for _, p := range in.Pending {
					fmt.Fprintf(out, "%s  %s\n", p.Date.Format(time.RFC3339), p.Key)
				}
				if request == "" {
					return nil
				}
				q := c.ClockRequest(in, approval.NewSerial(), time.Now().Add(expiry).Truncate(time.Second).UTC())
				if err := statement.WriteJSON(request, q); err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "request %s, fingerprint %s\napprovals needed: %d\n", request, q.Fingerprint(), c.Roster.Threshold)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file")
	cmd.Flags().StringVar(&request, "request", "", "write what operators are to approve to this new `FILE`")
	cmd.Flags().DurationVar(&expiry, "expiry", 24*time.Hour, "how long the request may be carried out, at most 168h")
	return cmd
}

func newConfirmClock() *cobra.Command {
	var file string
	var files []string
	cmd := &cobra.Command{
		Use:   "confirm --config FILE --approval FILE...",
		Short: "Believe the stopped daemon's clock, with the approvals of enough operators",
		RunE: func(cmd *cobra.Command, more []string) error {
			d, err := newDaemon(cmd, file)
			if err != nil {
				return err
			}
			approvals, err := readApprovals(append(files, more...))
			if err != nil {
				return err
			}
			return d.keep(cmd.Context(), nil, func(c keyops.Custody) error {
				if err := c.ConfirmClock(cmd.Context(), d.audit, approvals); err != nil {
					return fail(exitStore, err)
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "clock confirmed: start the daemon within an hour")
				return err
			})
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file")
	cmd.Flags().StringArrayVar(&files, "approval", nil, "an operator's approval `FILE`, and those of others after it")
	return cmd
}
