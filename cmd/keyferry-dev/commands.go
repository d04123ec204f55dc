package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/cmd/internal/dev"
	"github.com/keyferry/keyferry/keyops/region"
)

// options are the flags of every command.
type options struct {
	dir string
	bin string
}

func newRoot() *cobra.Command {
	o := new(options)
	root := &cobra.Command{
		Use:   "keyferry-dev",
		Short: "Run a multi-Region Keyferry deployment on this machine, on SoftHSM",
		Long: `Run a multi-Region Keyferry deployment on this machine: one SoftHSM token and one
keyferryd per Region, on 127.0.0.1, with certificates made for it.

SoftHSM keeps keys in files, and their PINs lie beside them: whoever can read the
directory has every key. Use it for development and tests only.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
	}
	root.PersistentFlags().StringVar(&o.dir, "dir", ".keyferry", "directory of the deployment")
	root.PersistentFlags().StringVar(&o.bin, "bin", "", "directory of keyferryd and keyferry-ceremony (default: beside keyferry-dev, then PATH)")
	root.AddCommand(o.up(), o.down(), o.start(), o.stop(), o.status(), o.env(), o.cert())
	return root
}

// open opens the deployment. Progress goes to standard error, so that standard output is
// what was asked for.
func (o *options) open(cmd *cobra.Command) (*dev.Deployment, error) {
	bin, err := dev.FindBinaries(o.bin)
	if err != nil {
		return nil, err
	}
	return dev.Open(o.dir, bin, cmd.ErrOrStderr())
}

func (o *options) up() *cobra.Command {
	var regions []string
	var basePort int
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Make the deployment if it is not there, start what is not running, wait until all is ready",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			bin, err := dev.FindBinaries(o.bin)
			if err != nil {
				return err
			}
			names := make([]region.Name, len(regions))
			for i, r := range regions {
				names[i] = region.Name(r)
			}
			d, err := dev.OpenOrCreate(o.dir, bin, cmd.ErrOrStderr(), names, basePort)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			if err := d.Up(ctx); err != nil {
				return err
			}
			printStatus(cmd.OutOrStdout(), d.Status(ctx))
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&regions, "regions", nil, "names of 1 to 5 Regions (default eu-paris-1,us-east-1,ap-tokyo-1)")
	cmd.Flags().IntVar(&basePort, "base-port", 0, "first of the ports used, four per Region (default: free ones)")
	cmd.Flags().DurationVar(&timeout, "timeout", 3*time.Minute, "how long to wait until all is ready")
	return cmd
}

func (o *options) down() *cobra.Command {
	var purge bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop every daemon of the deployment, and nothing else",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := o.open(cmd)
			if errors.Is(err, dev.ErrNone) {
				return nil // what is wanted is so
			}
			if err != nil {
				return err
			}
			if err := d.Down(); err != nil || !purge {
				return err
			}
			return d.Purge()
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "then remove the directory, with every key")
	return cmd
}

func (o *options) start() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "start REGION",
		Short: "Start the daemon of one Region and wait until it serves",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := o.open(cmd)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return d.Start(ctx, region.Name(args[0]))
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait until it serves")
	return cmd
}

func (o *options) stop() *cobra.Command {
	var kill bool
	cmd := &cobra.Command{
		Use:   "stop REGION",
		Short: "Stop the daemon of one Region",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := o.open(cmd)
			if err != nil {
				return err
			}
			return d.Stop(region.Name(args[0]), kill)
		},
	}
	cmd.Flags().BoolVar(&kill, "kill", false, "kill it as a crash would, without asking it to stop")
	return cmd
}

func (o *options) status() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show each Region: process, addresses, token, peers; fails unless all are ready",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := o.open(cmd)
			if err != nil {
				return err
			}
			all := d.Status(cmd.Context())
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				if err := enc.Encode(all); err != nil {
					return err
				}
			} else {
				printStatus(cmd.OutOrStdout(), all)
			}
			for _, s := range all {
				if !s.Ready() {
					return errors.New("not every Region is ready")
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func printStatus(w io.Writer, all []dev.RegionStatus) {
	for _, s := range all {
		fmt.Fprintln(w, s)
	}
}

func (o *options) env() *cobra.Command {
	var client string
	cmd := &cobra.Command{
		Use:   "env",
		Short: `Print shell variables for keyferry and curl: eval "$(keyferry-dev env)"`,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := o.open(cmd)
			if err != nil {
				return err
			}
			return d.Env(cmd.OutOrStdout(), client)
		},
	}
	cmd.Flags().StringVar(&client, "client", dev.Admin, "who to be")
	return cmd
}

func (o *options) cert() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "cert --name NAME",
		Short: "Make a client certificate for the principal user/NAME; print its configuration file",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := o.open(cmd)
			if err != nil {
				return err
			}
			file, err := d.MakeClient(name)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), file)
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the user")
	cobra.CheckErr(cmd.MarkFlagRequired("name"))
	return cmd
}
