package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/cmd/internal/ceremony"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

// flags are those of every command.
type flags struct {
	dir, module, label, serial, pinFile, soPINFile, profile string
	yes                                                     bool
	fingerprint                                             string
}

// newRoot builds the command. It sets ran once a command's own work begins, so that what
// fails before is known as wrong usage.
func newRoot(ran *bool) *cobra.Command {
	f := &flags{}
	root := &cobra.Command{
		Use:   "keyferry-ceremony",
		Short: "Make a Region's keys and the transport keys between Regions",
		Long: `Make a Region's keys and the transport keys between Regions.

Run it beside the token. Each ceremony is one process; nothing secret is printed or written.
See docs/ceremony.md for who does what, in which order.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	p := root.PersistentFlags()
	p.StringVar(&f.dir, "region-dir", "", "directory of the Region's descriptor, peers and transcripts")
	p.StringVar(&f.module, "module", "", "absolute path of the PKCS#11 library")
	p.StringVar(&f.label, "token", "", "label of the token")
	p.StringVar(&f.serial, "token-serial", "", "serial number of the token, in place of its label")
	p.StringVar(&f.pinFile, "pin-file", "", "file that holds the user PIN, closed to others")
	p.StringVar(&f.profile, "profile", "", "vendor profile: "+strings.Join(hsm.Profiles(), ", ")+", or the path of a file")
	root.AddCommand(f.initCommand(ran), f.pinCommand(ran), f.acceptCommand(ran), f.approveCommand(ran), f.establishCommand(ran),
		f.retireCommand(ran), f.retireRegionCommand(ran), f.rosterCommand(ran), f.rekeyCommand(ran), f.listCommand(ran), f.selfTestCommand(ran), f.operatorKeyCommand(ran), f.thiefCommand(ran))
	return root
}

// tool checks the common flags and builds the tool.
func (f *flags) tool(cmd *cobra.Command, ran *bool) (ceremony.Tool, error) {
	for _, need := range []struct{ name, value string }{
		{"region-dir", f.dir}, {"module", f.module}, {"pin-file", f.pinFile}, {"profile", f.profile},
	} {
		if need.value == "" {
			return ceremony.Tool{}, fmt.Errorf("--%s is required", need.name)
		}
	}
	if (f.label == "") == (f.serial == "") {
		return ceremony.Tool{}, errors.New("exactly one of --token and --token-serial is required")
	}
	profile, err := hsm.LoadProfile(f.profile)
	if err != nil {
		return ceremony.Tool{}, err
	}
	*ran = true
	return ceremony.Tool{
		Dir:       region.Dir(f.dir),
		Token:     hsm.Config{Module: f.module, TokenLabel: f.label, TokenSerial: f.serial, PINFile: f.pinFile, Profile: profile},
		SOPINFile: f.soPINFile,
		Out:       cmd.OutOrStdout(),
		Now:       time.Now,
	}, nil
}

// noToken builds a tool for commands that open no token.
func (f *flags) noToken(cmd *cobra.Command, ran *bool) (ceremony.Tool, error) {
	*ran = true
	return ceremony.Tool{Dir: region.Dir(f.dir), Out: cmd.OutOrStdout(), Now: time.Now}, nil
}

// agreeFlags adds the flags of commands that ask for a fingerprint.
func (f *flags) agreeFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.yes, "yes", false, "do not ask; --fingerprint must be given")
	cmd.Flags().StringVar(&f.fingerprint, "fingerprint", "", "the fingerprint that the other side reads out")
}

// agree compares with --fingerprint, or asks the person at the terminal.
func (f *flags) agree(cmd *cobra.Command) ceremony.Agree {
	return func(what, fingerprint string) error {
		fmt.Fprintf(cmd.OutOrStdout(), "%s fingerprint %s\n", what, fingerprint)
		if f.fingerprint != "" && !statement.SameFingerprint(fingerprint, f.fingerprint) {
			return fmt.Errorf("%s fingerprint differs from --fingerprint %s", what, f.fingerprint)
		}
		if f.yes {
			if f.fingerprint == "" {
				return errors.New("--yes needs --fingerprint")
			}
			return nil
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Does the other side read out exactly this fingerprint? Type yes: ")
		line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
		if err != nil && line == "" {
			return fmt.Errorf("reading the answer: %w", err)
		}
		if strings.TrimSpace(line) != "yes" {
			return fmt.Errorf("%s not accepted", what)
		}
		return nil
	}
}

// newFile refuses a path that exists, before a ceremony begins that would end there.
func newFile(flag, path string) error {
	if path == "" {
		return fmt.Errorf("--%s is required", flag)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("--%s: %s exists already, and ceremonies overwrite nothing", flag, path)
	}
	return nil
}
