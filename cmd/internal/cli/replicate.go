package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (a *app) keyReplicate(use string) *cobra.Command {
	req := &kmsv1.ReplicateKeyRequest{}
	var wait bool
	var policy string
	var tags []string
	c := &cobra.Command{
		Use: use, Short: "Create a replica of a multi-Region primary key in another Region", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if req.Tags, err = parseTags(tags); err != nil {
				return err
			}
			if req.Policy, err = a.readPolicy(policy); err != nil {
				return err
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				if req.KeyId, err = cl.keyID(ctx, args[0]); err != nil {
					return err
				}
				out, err := cl.keys.ReplicateKey(ctx, req)
				if err != nil {
					return err
				}
				if wait {
					if err := a.awaitReplica(ctx, cl, req.KeyId, req.ReplicaRegion); err != nil {
						return err
					}
				}
				if a.json {
					return a.print(out)
				}
				if !wait {
					a.say("%s: %s; follow it with keyferry key replicas", req.ReplicaRegion, out.GetReplicaKeyMetadata().GetKeyState())
				}
				return a.write([]byte(out.GetReplicaKeyMetadata().GetArn() + "\n"))
			})
		},
	}
	f := c.Flags()
	f.StringVar(&req.ReplicaRegion, "to", "", "`REGION` that gets the replica")
	cobra.CheckErr(c.MarkFlagRequired("to"))
	f.BoolVar(&wait, "wait", false, "show progress and return when the replica can be used")
	f.StringVar(&req.Description, "description", "", "description of the replica; nothing is copied from the primary key")
	f.StringVar(&policy, "policy", "", "`FILE` with the replica's key policy")
	f.StringArrayVar(&tags, "tag", nil, "`KEY=VALUE` of the replica, repeated")
	return c
}

// awaitReplica prints each change of a replica's status until it is synchronized.
func (a *app) awaitReplica(ctx context.Context, cl *client, keyID, region string) error {
	return a.follow(ctx, region, "key replicas", func() (string, bool, error) {
		out, err := cl.keys.ListReplicas(ctx, &kmsv1.ListReplicasRequest{KeyId: keyID})
		for _, r := range out.GetReplicas() {
			if r.GetRegion() == region {
				return strings.TrimSuffix(statusWords(r)+", "+r.GetKeyState(), ", "), synchronized(r), err
			}
		}
		return "", false, err
	})
}

// awaitReplicas prints each change of the status of any replica until all are synchronized.
func (a *app) awaitReplicas(ctx context.Context, cl *client, keyID string) error {
	return a.follow(ctx, keyID, "key replicas", func() (string, bool, error) {
		out, err := cl.keys.ListReplicas(ctx, &kmsv1.ListReplicasRequest{KeyId: keyID})
		var words []string
		for _, r := range out.GetReplicas() {
			words = append(words, r.GetRegion()+" "+statusWords(r))
		}
		return strings.Join(words, ", "), !slices.ContainsFunc(out.GetReplicas(), func(r *kmsv1.Replica) bool { return !synchronized(r) }), err
	})
}

func synchronized(r *kmsv1.Replica) bool {
	return r.GetStatus() == kmsv1.ReplicationStatus_REPLICATION_STATUS_SYNCHRONIZED
}

// statusWords says a replica's status, and why it failed if it did.
func statusWords(r *kmsv1.Replica) string {
	return strings.TrimSuffix(replicationWord(r.GetStatus())+" "+causeWord(r.GetFailureCause()), " ")
}

// replicationWord names a status, and is empty where there is none.
func replicationWord(s kmsv1.ReplicationStatus) string {
	if s == kmsv1.ReplicationStatus_REPLICATION_STATUS_UNSPECIFIED {
		return ""
	}
	return strings.TrimPrefix(s.String(), "REPLICATION_STATUS_")
}

// causeWord names the cause of a failure, and is empty where there is none.
func causeWord(c kmsv1.FailureCause) string {
	if c == kmsv1.FailureCause_FAILURE_CAUSE_UNSPECIFIED {
		return ""
	}
	return strings.TrimPrefix(c.String(), "FAILURE_CAUSE_")
}

func (a *app) keyReplicas(use string) *cobra.Command {
	var wait bool
	c := &cobra.Command{
		Use: use, Short: "Show where a multi-Region key is and how far each Region is", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				id, err := cl.keyID(ctx, args[0])
				if err != nil {
					return err
				}
				if wait {
					if err := a.awaitReplicas(ctx, cl, id); err != nil {
						return err
					}
				}
				out, err := cl.keys.ListReplicas(ctx, &kmsv1.ListReplicasRequest{KeyId: id})
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "REGION\tTYPE\tSTATE\tSTATUS\tATTEMPTS\tNEXT TRY\tSYNCHRONIZED\tCAUSE")
				for _, r := range out.GetReplicas() {
					state := dash(r.GetKeyState())
					if r.GetDeletionDate() != nil {
						state += " until " + r.GetDeletionDate().AsTime().Format(time.RFC3339)
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", r.GetRegion(), r.GetMultiRegionKeyType(), state,
						dash(replicationWord(r.GetStatus())), r.GetAttempts(),
						clock(r.GetNextAttemptTime().AsTime(), r.GetNextAttemptTime() != nil),
						clock(r.GetLastSynchronizedTime().AsTime(), r.GetLastSynchronizedTime() != nil), dash(r.GetFailureText()))
				}
				return w.Flush()
			})
		},
	}
	c.Flags().BoolVar(&wait, "wait", false, "show progress and return when every Region is synchronized")
	return c
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func clock(t time.Time, ok bool) string {
	if !ok {
		return "-"
	}
	return t.Format(time.RFC3339)
}
