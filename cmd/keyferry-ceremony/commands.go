package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/cmd/internal/ceremony"
	"github.com/keyferry/keyferry/cmd/internal/operator"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/transport"
)

func (f *flags) initCommand(ran *bool) *cobra.Command {
	var name, partition, operators, discard string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Initialise a Region, once: signing key, seal key, instance ID, descriptor",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var opt ceremony.InitOptions
			var err error
			if opt.Region, err = region.ParseName(name); err != nil {
				return err
			}
			if opt.Partition, err = region.ParsePartition(partition); err != nil {
				return err
			}
			if opt.Operators, err = approval.LoadRoster(operators); err != nil {
				return fmt.Errorf("--operators: %w", err)
			}
			if discard != "" {
				if opt.Discard, err = region.ParseInstanceID(discard); err != nil {
					return fmt.Errorf("--discard: %w", err)
				}
			}
			t, err := f.tool(cmd, ran)
			if err != nil {
				return err
			}
			return t.Init(cmd.Context(), opt)
		},
	}
	cmd.Flags().StringVar(&name, "region", "", "name of the Region, such as eu-paris-1")
	cmd.Flags().StringVar(&partition, "partition", "aws", "ARN partition; peers must have the same")
	cmd.Flags().StringVar(&operators, "operators", "", "operators.yaml: who approves, and how many must")
	cmd.Flags().StringVar(&discard, "discard", "", "instance whose keys an init left that was killed; they are destroyed first")
	return cmd
}

func (f *flags) pinCommand(ran *bool) *cobra.Command {
	var replace, former bool
	cmd := &cobra.Command{
		Use:   "pin DESCRIPTOR | pin --replace REPLACEMENT | pin --former DESCRIPTOR",
		Short: "Accept another Region's descriptor as a peer's",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if former {
				t, err := f.tool(cmd, ran)
				if err != nil {
					return err
				}
				return t.PinFormer(cmd.Context(), args[0], f.agree(cmd))
			}
			t, err := f.noToken(cmd, ran)
			if err != nil {
				return err
			}
			if replace {
				return t.PinReplacement(args[0], f.agree(cmd))
			}
			return t.Pin(args[0], f.agree(cmd))
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "accept new keys of a pinned peer, from the file that its rekey has left")
	cmd.Flags().BoolVar(&former, "former", false, "believe, as history of keys, what an instance has signed that is no more")
	cmd.MarkFlagsMutuallyExclusive("replace", "former")
	f.agreeFlags(cmd)
	return cmd
}

func (f *flags) acceptCommand(ran *bool) *cobra.Command {
	var opt ceremony.AcceptOptions
	var from string
	var keys []string
	cmd := &cobra.Command{
		Use:   "accept --from SOURCE --offer FILE --package FILE",
		Short: "Destination: offer an establishment key, wait for the package, finish or forget",
		Long: `Destination: offer an establishment key, wait for the package, finish or forget.

The offer is first written to OFFER.draft, for operators to approve with "approve"; their
approvals are awaited at OFFER.approval-*. Then the offer is written, and the package of the
source awaited. The establishment key exists in this process only.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if opt.From, err = region.ParseName(from); err != nil {
				return fmt.Errorf("--from: %w", err)
			}
			if err := newFile("offer", opt.Offer); err != nil {
				return err
			}
			if err := newFile("package", opt.Package); err != nil {
				return err
			}
			if opt.Operators, err = loadKeys(keys); err != nil {
				return err
			}
			t, err := f.tool(cmd, ran)
			if err != nil {
				return err
			}
			return t.Accept(cmd.Context(), opt)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "the source Region, which must be pinned")
	cmd.Flags().StringVar(&opt.Offer, "offer", "", "where to write the offer")
	cmd.Flags().StringVar(&opt.Package, "package", "", "where the source's package will appear")
	cmd.Flags().StringArrayVar(&keys, "operator-key", nil, "private key of an operator who approves here and now; repeatable")
	cmd.Flags().DurationVar(&opt.Expiry, "expiry", ceremony.DefaultExpiry, "how long the offer lives")
	cmd.Flags().Uint64Var(&opt.Epoch, "epoch", 0, "least epoch, if the source has used some that this side has not")
	return cmd
}

func loadKeys(paths []string) ([]operator.Key, error) {
	var keys []operator.Key
	for _, path := range paths {
		k, err := operator.Load(path)
		if err != nil {
			return nil, fmt.Errorf("--operator-key: %w", err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func (f *flags) approveCommand(ran *bool) *cobra.Command {
	var key, out string
	cmd := &cobra.Command{
		Use:   "approve DRAFT --operator-key FILE --out OFFER.approval-NAME",
		Short: "Destination: one operator approves the draft of an offer",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := newFile("out", out); err != nil {
				return err
			}
			k, err := operator.Load(key)
			if err != nil {
				return fmt.Errorf("--operator-key: %w", err)
			}
			t, err := f.noToken(cmd, ran)
			if err != nil {
				return err
			}
			return t.Approve(cmd.Context(), args[0], out, k, f.agree(cmd))
		},
	}
	cmd.Flags().StringVar(&key, "operator-key", "", "the operator's private key")
	cmd.Flags().StringVar(&out, "out", "", "where to write the approval")
	f.agreeFlags(cmd)
	return cmd
}

func (f *flags) establishCommand(ran *bool) *cobra.Command {
	var opt ceremony.EstablishOptions
	cmd := &cobra.Command{
		Use:   "establish OFFER --package FILE --so-pin-file FILE",
		Short: "Source: make transport keys for an approved offer (security officer present)",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.Offer, opt.Agree = args[0], f.agree(cmd)
			if err := newFile("package", opt.Package); err != nil {
				return err
			}
			if f.soPINFile == "" && opt.Adopt == "" {
				return errors.New("--so-pin-file is required, unless keys are adopted")
			}
			t, err := f.tool(cmd, ran)
			if err != nil {
				return err
			}
			return t.Establish(cmd.Context(), opt)
		},
	}
	cmd.Flags().StringVar(&opt.Package, "package", "", "where to write the package")
	cmd.Flags().StringVar(&f.soPINFile, "so-pin-file", "", "file that holds the security officer's PIN, closed to others")
	cmd.Flags().StringVar(&opt.Adopt, "adopt", "", "take the trusted keys labelled ADOPT-aes, ADOPT-mac and ADOPT-private, which a vendor's tool made")
	f.agreeFlags(cmd)
	return cmd
}

func (f *flags) retireCommand(ran *bool) *cobra.Command {
	var opt ceremony.RetireOptions
	var name string
	var orphans bool
	cmd := &cobra.Command{
		Use:   "retire --set SOURCE>DESTINATION#EPOCH | --orphans",
		Short: "Destroy this end of a transport key set; the destination first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if orphans == (name != "") {
				return errors.New("exactly one of --set and --orphans is required")
			}
			if !orphans {
				var err error
				if opt.Name, err = transport.ParseName(name); err != nil {
					return err
				}
				own, err := region.Dir(f.dir).LoadOwn()
				if err != nil {
					return err
				}
				opt.Role = hsm.RoleTransportSource
				if opt.Name.Destination == transport.EndOf(own.Descriptor) {
					opt.Role = hsm.RoleTransportDestination
				}
			}
			t, err := f.tool(cmd, ran)
			if err != nil {
				return err
			}
			if orphans {
				return t.Orphans(cmd.Context())
			}
			return t.Retire(cmd.Context(), opt)
		},
	}
	cmd.Flags().StringVar(&name, "set", "", "the transport key set, as list prints it")
	cmd.Flags().StringVar(&opt.Destination, "destination-transcript", "", "at the source: the destination's transcript of its retirement")
	cmd.Flags().BoolVar(&opt.Alone, "alone", false, "at the source: the destination never accepted, or is gone for good")
	cmd.Flags().BoolVar(&orphans, "orphans", false, "destroy transport keys that no transcript names, left by a ceremony that was killed")
	return cmd
}

func (f *flags) listCommand(ran *bool) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List this end's transport keys; fail if the token holds a powerful object that no transcript knows",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := f.tool(cmd, ran)
			if err != nil {
				return err
			}
			return t.List(cmd.Context())
		},
	}
}

func (f *flags) selfTestCommand(ran *bool) *cobra.Command {
	return &cobra.Command{
		Use:   "selftest",
		Short: "Attack stand-ins with the real templates, as the daemon does at start",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := f.tool(cmd, ran)
			if err != nil {
				return err
			}
			return t.SelfTest(cmd.Context())
		},
	}
}

func (f *flags) operatorKeyCommand(ran *bool) *cobra.Command {
	return &cobra.Command{
		Use:   "operator-key PATH",
		Short: "For development: make an operator's key at PATH and its public half at PATH.pub",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			*ran = true
			fingerprint, err := operator.Generate(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "operator key %[1]s, public half %[1]s.pub, fingerprint %[2]s\n", args[0], fingerprint)
			return err
		},
	}
}

func (f *flags) thiefCommand(ran *bool) *cobra.Command {
	var opt ceremony.ThiefOptions
	var record string
	cmd := &cobra.Command{
		Use:    "thief",
		Short:  "Try everything that the user PIN allows to get keys out of this token",
		Hidden: true, // harmless where the token refuses, but nothing for a production token
		Long: `Try everything that the user PIN allows to get keys out of this token.

It attacks the real objects of the token. Where the token refuses, nothing changes; where it
does not, the object may be changed or copied. Run it on tokens of development and test.

First, in each Region, thief --record FILE makes one multi-Region key of each kind and wraps
it under every source transport key. Then thief --recorded FILE..., in each Region.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (record != "") == (len(opt.Recordings) > 0) {
				return errors.New("exactly one of --record and --recorded is required")
			}
			t, err := f.tool(cmd, ran)
			if err != nil {
				return err
			}
			if record != "" {
				return t.Record(cmd.Context(), record)
			}
			return t.Thief(cmd.Context(), opt)
		},
	}
	cmd.Flags().StringVar(&record, "record", "", "where to write what can be wrapped")
	cmd.Flags().StringArrayVar(&opt.Recordings, "recorded", nil, "what was recorded in this and other Regions; repeatable")
	cmd.Flags().StringArrayVar(&opt.Packages, "package", nil, "a recorded ceremony package; repeatable")
	cmd.Flags().BoolVar(&opt.Keep, "keep", false, "do not destroy the keys that --record made")
	cmd.Flags().BoolVar(&opt.All, "all", false, "print every attempt")
	return cmd
}
