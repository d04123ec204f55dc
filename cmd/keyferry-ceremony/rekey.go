package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/cmd/internal/ceremony"
)

func (f *flags) rekeyCommand(ran *bool) *cobra.Command {
	var opt ceremony.RekeyOptions
	var request string
	var expiry time.Duration
	var forget bool
	cmd := &cobra.Command{
		Use:   "rekey (--request FILE [--lost --store FILE --audit-dir DIR] | --store FILE --audit-dir DIR [--approval FILE...] | --store FILE --forget)",
		Short: "Put a new signing key and a new seal key in the place of this Region's",
		Long: `Put a new signing key and a new seal key in the place of this Region's.

First with --request: it makes the keys, and what operators approve with keyferry approve.
Nothing changes yet. Then, with the daemon stopped, with --store, --audit-dir and their
approvals: the store is sealed with the new seal key, the descriptor is replaced, and the
old keys are destroyed. If that is interrupted, give the same command again. At last each
peer confirms the file that is named, with pin --replace; until then it refuses this Region.

With --lost the keys before are lost with their token, and this one is new and empty: then
the operators also approve the store as it is, and its transport keys are retired.

--forget destroys keys that were made and are not in use.`,
		RunE: func(cmd *cobra.Command, more []string) error {
			opt.Approvals = append(opt.Approvals, more...) // what a shell makes of --approval *
			switch {
			case opt.Lost && (request == "" || opt.Store == "" || opt.Audit == ""):
				return errors.New("--lost goes with --request, --store and --audit-dir")
			case request != "" && (forget || opt.Store != "" && !opt.Lost || len(opt.Approvals) > 0):
				return errors.New("--request goes alone, or with --lost")
			case request == "" && opt.Store == "":
				return errors.New("--request or --store is required")
			case request == "" && !forget && opt.Audit == "":
				return errors.New("--audit-dir is required")
			}
			if request != "" {
				if err := newFile("request", request); err != nil {
					return err
				}
			}
			t, err := f.tool(cmd, ran)
			if err != nil {
				return err
			}
			switch {
			case request != "":
				return t.RequestRekey(cmd.Context(), request, expiry, opt)
			case forget:
				return t.ForgetRekey(cmd.Context(), opt)
			}
			return t.Rekey(cmd.Context(), opt)
		},
	}
	cmd.Flags().StringVar(&request, "request", "", "make the keys, and write what operators are to approve to this new file")
	cmd.Flags().DurationVar(&expiry, "expiry", 24*time.Hour, "how long the request may be carried out, at most 168h")
	cmd.Flags().StringVar(&opt.Store, "store", "", "store.path of the daemon, which is stopped")
	cmd.Flags().StringVar(&opt.Audit, "audit-dir", "", "audit.dir of the daemon")
	cmd.Flags().StringArrayVar(&opt.Approvals, "approval", nil, "an operator's approval, and those of others after it")
	cmd.Flags().BoolVar(&opt.Lost, "lost", false, "with --request: the keys before are lost with their token")
	cmd.Flags().BoolVar(&forget, "forget", false, "destroy keys that were made and are not in use")
	return cmd
}
