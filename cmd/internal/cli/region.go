package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (a *app) whoami(use string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: "Show whom the Region takes you for", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.info.GetCallerIdentity(ctx, &kmsv1.GetCallerIdentityRequest{})
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				means := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(out.GetCredentialType().String(), "CREDENTIAL_TYPE_"), "_", " "))
				a.say("in %s, by %s, principal rule %d; the %s expires at %s", out.GetRegion(), means, out.GetPrincipalRule(),
					means, clock(out.GetExpireTime().AsTime(), out.GetExpireTime() != nil))
				return a.write([]byte(out.GetArn() + "\n"))
			})
		},
	}
}

func (a *app) regionShow(use string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: "Show the Region, its token and what the token can do", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.info.DescribeRegion(ctx, &kmsv1.DescribeRegionRequest{})
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				boundary := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(out.GetBoundary().String(), "BOUNDARY_"), "_", "-"))
				w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
				fmt.Fprintf(w, "region\t%s\ninstance\t%s\nfingerprint\t%s\nboundary\t%s\n", out.GetRegion(), out.GetInstanceId(), out.GetFingerprint(), boundary)
				fmt.Fprintf(w, "token\t%s, serial %s, %s %s, profile %s\n", out.GetToken().GetLabel(), out.GetToken().GetSerial(),
					out.GetToken().GetManufacturer(), out.GetToken().GetModel(), out.GetToken().GetProfile())
				fmt.Fprintf(w, "token backup\t%s\n", dash(out.GetToken().GetBackup()))
				fmt.Fprintf(w, "keys\t%d of %d\n", out.GetKeyCount(), out.GetKeyQuota())
				fmt.Fprintf(w, "imports by\t%s\nunder\t%s\n\n", dash(strings.Join(out.GetWrappingAlgorithms(), ", ")), dash(strings.Join(out.GetWrappingKeySpecs(), ", ")))
				if err := w.Flush(); err != nil {
					return err
				}
				return a.specs(out.GetKeySpecs())
			})
		},
	}
}

// specs prints what a token can do, and what not and why.
func (a *app) specs(all []*kmsv1.KeySpecSupport) error {
	w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY SPEC\tSUPPORTED\tMULTI-REGION\tUSAGES\tALGORITHMS")
	for _, s := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.GetKeySpec(), yes(s.GetSupported()), yes(s.GetMultiRegion()),
			dash(strings.Join(s.GetKeyUsages(), ",")), dash(strings.Join(s.GetAlgorithms(), ",")))
	}
	for _, s := range all {
		if s.GetReason() != "" {
			fmt.Fprintf(w, "\n%s: %s", s.GetKeySpec(), s.GetReason())
		}
	}
	fmt.Fprintln(w)
	return w.Flush()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (a *app) regionPeers(use string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: "Show the Regions that this Region replicates with", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.info.ListPeers(ctx, &kmsv1.ListPeersRequest{})
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "REGION\tINSTANCE\tCONNECTED\tLAST EXCHANGE\tUNCONFIRMED KEYS\tLAST ERROR")
				for _, p := range out.GetPeers() {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", p.GetRegion(), p.GetInstanceId(), yes(p.GetConnected()),
						clock(p.GetLastExchangeTime().AsTime(), p.GetLastExchangeTime() != nil), p.GetUnconfirmedKeys(), dash(p.GetLastError()))
				}
				return w.Flush()
			})
		},
	}
}
