package cli

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// days is a flag in whole days, such as 30d.
type days uint32

// String returns the days, empty if none are set.
func (d *days) String() string {
	if *d == 0 {
		return ""
	}
	return strconv.Itoa(int(*d)) + "d"
}

// Set reads days; the range is the server's to check.
func (d *days) Set(s string) error {
	n, err := strconv.ParseUint(strings.TrimSuffix(s, "d"), 10, 16)
	if err != nil || n == 0 {
		return usagef("want days, such as 30d")
	}
	*d = days(n)
	return nil
}

// Type names the kind of value.
func (*days) Type() string { return "DAYS" }

func (a *app) keyDelete(use string) *cobra.Command {
	var in days
	p := &consent{}
	c := a.onKeyWith(use, "Stop use of a key in this Region at once, and delete it after a waiting period; prints when", cobra.ExactArgs(1),
		func(ctx context.Context, cl *client, id string, _ []string) error {
			req := &kmsv1.ScheduleKeyDeletionRequest{KeyId: id, PendingWindowInDays: uint32(in)}
			var err error
			if req.Approvals, req.RequestApprovals, req.ApprovalLife, err = p.read(); err != nil {
				return err
			}
			out, err := cl.keys.ScheduleKeyDeletion(ctx, req)
			if err != nil {
				return err
			}
			if req.RequestApprovals {
				return a.asked(ctx, cl, p.request, out.GetApprovalRequest())
			}
			if a.json {
				return a.print(out)
			}
			if out.GetDeletionDate() == nil {
				a.say("%s is %s in %s: the waiting period of %d days begins when its last replica key is deleted%s", id, out.GetKeyState(), cl.region, out.GetPendingWindowInDays(), expected(out.GetExpectedDeletionDate()))
				return nil
			}
			a.say("%s is %s in %s; until then keyferry key undelete keeps it", id, out.GetKeyState(), cl.region)
			return a.write([]byte(out.GetDeletionDate().AsTime().Format(time.RFC3339) + "\n"))
		})
	p.flags(c.Flags())
	c.Flags().Var(&in, "in", "waiting period, 7 to 30 `DAYS` (default 30d)")
	return c
}

// expected says when a primary key goes at the earliest that waits for its replica keys.
func expected(t *timestamppb.Timestamp) string {
	if t == nil {
		return "; one of them at least is to stay"
	}
	return ", so it goes on " + t.AsTime().Format(time.RFC3339) + " at the earliest"
}

func (a *app) keyUndelete(use string) *cobra.Command {
	return a.onKey(use, "Keep a key that is to be deleted; enable it afterwards", func(ctx context.Context, cl *client, id string) (string, error) {
		_, err := cl.keys.CancelKeyDeletion(ctx, &kmsv1.CancelKeyDeletionRequest{KeyId: id})
		return "kept, and disabled,", err
	})
}

func (a *app) keyLastUsed(use string) *cobra.Command {
	return a.onKeyWith(use, "Show when a key was last used in this Region, and for what", cobra.ExactArgs(1),
		func(ctx context.Context, cl *client, id string, _ []string) error {
			out, err := cl.keys.GetKeyLastUsage(ctx, &kmsv1.GetKeyLastUsageRequest{KeyId: id})
			if err != nil {
				return err
			}
			if a.json {
				return a.print(out)
			}
			u := out.GetKeyLastUsage()
			if u == nil {
				a.say("%s was not used in %s since %s", id, cl.region, out.GetTrackingStartDate().AsTime().Format(time.RFC3339))
				return nil
			}
			return a.write([]byte(u.GetTimestamp().AsTime().Format(time.RFC3339) + " " + u.GetOperation() + " " + u.GetKmsRequestId() + "\n"))
		})
}
