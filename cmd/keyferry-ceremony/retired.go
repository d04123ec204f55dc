package main

import (
	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/keyops/region"
)

func (f *flags) retireRegionCommand(ran *bool) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "retire-region REGION",
		Short: "Take a peer that is gone for good away, so that its name is never accepted again",
		Long: `Take a peer that is gone for good away, so that its name is never accepted again.

Before, in this order: no key has a member there, the daemon does not name it in
peers.addresses any more, and the transport keys with it are retired, in both directions.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := region.ParseName(args[0])
			if err != nil {
				return err
			}
			t, err := f.tool(cmd, ran)
			if err != nil {
				return err
			}
			return t.RetireRegion(cmd.Context(), name, f.agree(cmd))
		},
	}
	f.agreeFlags(cmd)
	return cmd
}
