package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// stageEnded is the stage of a replica instance that is disassociated.
const stageEnded = "DISASSOCIATED"

func (a *app) syncDisassociate(use string) *cobra.Command {
	req, p := &kmsv1.DisassociateReplicaInstanceRequest{}, &consent{}
	var wait bool
	c := &cobra.Command{
		Use: use, Short: "End what a replica instance is to have, for good: it is frozen", Args: cobra.ExactArgs(1),
		Long: `End what a replica instance is to have, for good.

The two Regions can never be associated again, and the transport keys between them are
destroyed. The replica instance keeps its multi-Region keys and goes on using them, and changes
nothing of them any more. Its operators have to approve: ask with --request, let them run
keyferry approve, and repeat the command with their approvals.

--confirm is the replica instance's ID, which keyferry sync show prints. An instance that does
not answer now is told when it does.`,
		RunE: func(c *cobra.Command, args []string) error {
			req.SynchronizationId = args[0]
			var err error
			if req.Approvals, req.RequestApprovals, req.ApprovalLife, err = p.read(); err != nil {
				return err
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.sync.DisassociateReplicaInstance(ctx, req)
				if err != nil {
					return err
				}
				if req.RequestApprovals {
					return a.asked(ctx, cl, p.request, out.GetApprovalRequest())
				}
				if wait {
					return a.waitEnded(ctx, cl, req)
				}
				return a.printSync(out.GetSynchronization())
			})
		},
	}
	f := c.Flags()
	f.StringVar(&req.ReplicaInstance, "replica", "", "`INSTANCE` to disassociate, by ID or Region")
	f.StringVar(&req.ConfirmInstanceId, "confirm", "", "the replica instance's `ID`, as a sign that this is meant")
	for _, name := range []string{"replica", "confirm"} {
		cobra.CheckErr(c.MarkFlagRequired(name))
	}
	p.flags(f)
	f.BoolVar(&wait, "wait", false, "show progress, and return when the replica instance is frozen")
	return c
}

// waitEnded says how far a disassociation is until it is complete.
func (a *app) waitEnded(ctx context.Context, cl *client, req *kmsv1.DisassociateReplicaInstanceRequest) error {
	for last := ""; ; {
		out, err := cl.sync.GetSynchronization(ctx, &kmsv1.GetSynchronizationRequest{SynchronizationId: req.SynchronizationId})
		if err != nil {
			return err
		}
		for _, r := range out.GetSynchronization().GetReplicas() {
			if r.GetInstanceId() == req.ConfirmInstanceId && r.GetStage() == stageEnded {
				return a.printSync(out.GetSynchronization())
			}
		}
		rows, err := cl.syncRows(ctx, &kmsv1.ListSynchronizedResourcesRequest{SynchronizationId: req.SynchronizationId}, req.ReplicaInstance)
		if err != nil {
			return err
		}
		now, _ := tally(rows)
		if now = "DISASSOCIATING: " + dash(now); now != last {
			a.say("%s%s", now, because(rows))
			last = now
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("still %s; it goes on by itself", now)
		case <-time.After(poll):
		}
	}
}

// because returns why the first of the rows that are not done is no further.
func because(rows []*kmsv1.SynchronizedResource) string {
	for _, r := range rows {
		if r.GetStatus() == kmsv1.ReplicationStatus_REPLICATION_STATUS_PENDING && r.GetFailureText() != "" {
			return ": " + r.GetFailureText()
		}
	}
	return ""
}
