package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (a *app) keyPromote(use string) *cobra.Command {
	req, forced := &kmsv1.UpdatePrimaryRegionRequest{}, &forcedPromotion{}
	var wait, force bool
	c := &cobra.Command{
		Use: use, Short: "Hand the primary key to the replica key of another Region, or make this Region's key the primary key by force",
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			p := &forced.consent
			switch {
			case force && (req.PrimaryRegion != "" || wait):
				return usagef("--force makes the key of the called Region the primary key, at once: leave --to and --wait out, and choose the Region with --region")
			case force && p.request == "":
				return usagef("--force takes approvals: write the request with --request FILE, and repeat the command with it and --approval")
			case force && len(p.approvals) > 0 && (len(args) > 0 || forced.asks()):
				return usagef("the request has the keys, the Regions that are suspended and the generation: give only --request and --approval")
			case force && len(p.approvals) == 0 && (len(args) == 0) == (forced.allOf == ""):
				return usagef("give keys, or --all-of REGION for all whose primary key is there")
			case !force && (p.request != "" || len(p.approvals) > 0 || forced.asks()):
				return usagef("--request, --approval, --all-of, --suspend and --generation are for --force")
			case !force && (len(args) != 1 || req.PrimaryRegion == ""):
				return usagef("want one KEY and --to REGION, or --force")
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				switch {
				case force && len(p.approvals) > 0:
					return forced.carryOut(ctx, a, cl)
				case force:
					return forced.ask(ctx, a, cl, args)
				}
				return a.handOver(ctx, cl, req, args[0], wait)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&req.PrimaryRegion, "to", "", "`REGION` of the replica key that becomes the primary key")
	f.BoolVar(&wait, "wait", false, "show progress and return when it is done")
	f.BoolVar(&force, "force", false, "make the key of the called Region the primary key without the Region that has it, by approvals of operators")
	f.StringArrayVar(&forced.suspend, "suspend", nil, "with --force: `REGION` that is dark and not waited for, repeated")
	f.StringVar(&forced.allOf, "all-of", "", "with --force: all enabled keys whose primary key is in this `REGION`")
	f.Uint64Var(&forced.generation, "generation", 0, "with --force: `NUMBER` of the promotion, where operators have approved higher ones than the keys know (default the lowest that the keys allow)")
	f.StringVar(&forced.consent.request, "request", "", "with --force: `FILE` of what operators approve, written with FILE.keys unless --approval is given")
	f.StringArrayVar(&forced.consent.approvals, "approval", nil, "with --force: `FILE` with an operator's approval, repeated")
	f.DurationVar(&forced.consent.life, "expires", 24*time.Hour, "with --force: for how long the request may be approved and carried out, at most 168h")
	return c
}

func (a *app) handOver(ctx context.Context, cl *client, req *kmsv1.UpdatePrimaryRegionRequest, key string, wait bool) (err error) {
	if req.KeyId, err = cl.keyID(ctx, key); err != nil {
		return err
	}
	if _, err := cl.keys.UpdatePrimaryRegion(ctx, req); err != nil {
		return err
	}
	if !wait {
		a.say("%s is handed over to %s; both keys are used meanwhile, see keyferry key show", req.GetKeyId(), req.GetPrimaryRegion())
		return nil
	}
	return a.awaitPrimary(ctx, cl, req.GetKeyId(), req.GetPrimaryRegion())
}

// awaitPrimary prints each change of a key until its primary key is in the Region.
func (a *app) awaitPrimary(ctx context.Context, cl *client, id, region string) error {
	return a.follow(ctx, cl.region, "key show", func() (string, bool, error) {
		out, err := cl.keys.DescribeKey(ctx, &kmsv1.DescribeKeyRequest{KeyId: id})
		m := out.GetKeyMetadata()
		primary := m.GetMultiRegionConfiguration().GetPrimaryKey().GetRegion()
		now := fmt.Sprintf("%s, primary key in %s", m.GetKeyState(), primary)
		if err == nil && m.GetKeyState() != "Updating" && primary != region {
			err = fmt.Errorf("%s did not take over: the primary key is still in %s", region, primary)
		}
		return now, primary == region && m.GetKeyState() != "Updating", err
	})
}
