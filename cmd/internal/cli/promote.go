package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (a *app) keyPromote(use string) *cobra.Command {
	req := &kmsv1.UpdatePrimaryRegionRequest{}
	var wait bool
	c := a.onKeyWith(use, "Make the replica key of another Region the primary key", cobra.ExactArgs(1),
		func(ctx context.Context, cl *client, id string, _ []string) error {
			req.KeyId = id
			if _, err := cl.keys.UpdatePrimaryRegion(ctx, req); err != nil {
				return err
			}
			if !wait {
				a.say("%s is handed over to %s; both keys are used meanwhile, see keyferry key show", id, req.GetPrimaryRegion())
				return nil
			}
			return a.awaitPrimary(ctx, cl, id, req.GetPrimaryRegion())
		})
	c.Flags().StringVar(&req.PrimaryRegion, "to", "", "`REGION` of the replica key that becomes the primary key")
	cobra.CheckErr(c.MarkFlagRequired("to"))
	c.Flags().BoolVar(&wait, "wait", false, "show progress and return when it is done")
	return c
}

// awaitPrimary prints each change of a key until its primary key is in the Region.
func (a *app) awaitPrimary(ctx context.Context, cl *client, id, region string) error {
	last, start := "", time.Now()
	for {
		out, err := cl.keys.DescribeKey(ctx, &kmsv1.DescribeKeyRequest{KeyId: id})
		if err != nil && ctx.Err() == nil {
			return err
		}
		m := out.GetKeyMetadata()
		primary := m.GetMultiRegionConfiguration().GetPrimaryKey().GetRegion()
		if now := fmt.Sprintf("%s, primary key in %s", m.GetKeyState(), primary); err == nil && now != last {
			a.say("%s: %s (after %s)", cl.region, now, time.Since(start).Round(time.Millisecond))
			last = now
		}
		switch {
		case err != nil || m.GetKeyState() == "Updating":
		case primary == region:
			return nil
		default:
			return fmt.Errorf("%s did not take over: the primary key is still in %s", region, primary)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is still %s; it goes on by itself, see keyferry key show", cl.region, last)
		case <-time.After(poll):
		}
	}
}
