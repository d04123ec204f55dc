package main

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/cmd/internal/config"
)

func newRoot() *cobra.Command {
	run := newRun()
	root := &cobra.Command{
		Use:           "keyferryd",
		Short:         "Serve the keys of one Region from one PKCS#11 token",
		Long:          "Serve the keys of one Region from one PKCS#11 token. Without a command it does what run does.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          run.RunE,
	}
	root.Flags().AddFlagSet(run.Flags())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fail(exitUsage, err) })
	root.AddCommand(run, newValidate(), newConfig(), newStore(), newClock(), newBackup(), newRestore(), newVersion())
	return root
}

func newRun() *cobra.Command {
	var file string
	var standby bool
	cmd := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Serve until SIGTERM or SIGINT",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := newDaemon(cmd, file)
			if err != nil {
				return err
			}
			d.standby = standby
			return d.serve(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&standby, "standby", false, "while another daemon serves from the store, wait, and take over when it ends")
	cmd.Flags().StringVar(&file, "config", "", "configuration file")
	return cmd
}

// newDaemon reads the configuration.
func newDaemon(cmd *cobra.Command, file string) (*daemon, error) {
	if file == "" {
		return nil, fail(exitUsage, fmt.Errorf("no configuration: give --config FILE; keyferryd config sample prints one"))
	}
	c, err := config.LoadOnHost(file)
	if err != nil {
		return nil, fail(exitUsage, err)
	}
	return &daemon{config: c, log: newLog(c.Log, cmd.ErrOrStderr()), begun: time.Now()}, nil
}

func newValidate() *cobra.Command {
	var files bool
	cmd := &cobra.Command{
		Use:   "validate FILE",
		Short: "Report every mistake in a configuration file, with its line",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			load := config.Load
			if files {
				load = config.LoadOnHost
			}
			c, err := load(args[0])
			if err != nil {
				return fail(exitUsage, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: Region %s, token %s%s\n", args[0], c.Region, c.Token.Label, c.Token.Serial)
			return nil
		},
	}
	cmd.Flags().BoolVar(&files, "files", false, "also look at the files that it names, on this machine")
	return cmd
}

func newConfig() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Help with configuration files", Args: cobra.NoArgs}
	cmd.AddCommand(&cobra.Command{
		Use:   "sample",
		Short: "Print a configuration with every field and comments",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.Sample())
			return err
		},
	})
	return cmd
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "keyferryd", version())
			return err
		},
	}
}

// version is the module's version, or the commit that it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && v == "(devel)" {
			v = s.Value
		}
	}
	return v + " " + info.GoVersion
}
