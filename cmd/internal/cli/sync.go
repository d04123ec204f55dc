package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// syncCommands are the commands about the synchronization of an instance.
func (a *app) syncCommands() *cobra.Command {
	sync := &cobra.Command{Use: "sync", Short: "Keep other instances supplied with this one's keys", Args: cobra.NoArgs, RunE: needsCommand}
	sync.AddCommand(a.syncCreate("create"), a.syncList("list"), a.syncShow("show SYNC"), a.syncAssociate("associate SYNC --replica INSTANCE"),
		a.syncUpdate("update SYNC --replica INSTANCE"), a.syncResources("resources SYNC"), a.syncDisassociate("disassociate SYNC --replica INSTANCE --confirm INSTANCE-ID"))
	return sync
}

func (a *app) syncCreate(use string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: "Make the Region's instance the primary instance of a synchronization", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.sync.CreateSynchronization(ctx, &kmsv1.CreateSynchronizationRequest{})
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				a.say("nothing replicates yet; add a replica instance with keyferry sync associate")
				return a.write([]byte(out.GetSynchronization().GetSynchronizationId() + "\n"))
			})
		},
	}
}

func (a *app) syncList(use string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: "List the synchronizations that the Region's instance is part of", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.sync.ListSynchronizations(ctx, &kmsv1.ListSynchronizationsRequest{})
				if err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "SYNCHRONIZATION\tROLE\tPRIMARY\tREPLICAS")
				for _, y := range out.GetSynchronizations() {
					var replicas []string
					for _, r := range y.GetReplicas() {
						replicas = append(replicas, r.GetRegion())
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", y.GetSynchronizationId(), y.GetRole(), y.GetPrimaryRegion(), dash(strings.Join(replicas, ", ")))
				}
				return w.Flush()
			})
		},
	}
}

func (a *app) syncShow(use string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: "Show a synchronization and its replica instances", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				out, err := cl.sync.GetSynchronization(ctx, &kmsv1.GetSynchronizationRequest{SynchronizationId: args[0]})
				if err != nil {
					return err
				}
				return a.printSync(out.GetSynchronization())
			})
		},
	}
}

// printSync prints a synchronization with its replica instances.
func (a *app) printSync(y *kmsv1.Synchronization) error {
	if a.json {
		return a.print(y)
	}
	w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "synchronization\t%s\nrole\t%s\nprimary\t%s %s\n", y.GetSynchronizationId(), y.GetRole(), y.GetPrimaryRegion(), y.GetPrimaryInstanceId())
	for _, r := range y.GetReplicas() {
		what := r.GetSynchronizationType()
		if n := len(r.GetResources()); n > 0 {
			what = fmt.Sprintf("%s (%d)", what, n)
		}
		fmt.Fprintf(w, "replica\t%s %s %s %s by %s\n", r.GetRegion(), r.GetInstanceId(), dash(what), r.GetStage(), r.GetPrincipalArn())
	}
	return w.Flush()
}

func (a *app) syncAssociate(use string) *cobra.Command {
	req := &kmsv1.AssociateReplicaInstanceRequest{}
	var all bool
	c := &cobra.Command{
		Use: use, Short: "Add an empty instance that is to have all keys, or selected ones", Args: cobra.ExactArgs(1),
		Long: `Add an empty instance that is to have all keys, or selected ones.

Give --all, or --key for each key. INSTANCE is an instance ID or a Region; it has to answer
now. Keys can be added later, with sync update, and never be taken away.`,
		RunE: func(c *cobra.Command, args []string) error {
			if all == (len(req.Resources) > 0) {
				return usagef("give --all, or --key for each key")
			}
			req.SynchronizationId, req.SynchronizationType = args[0], typeOf(all)
			return a.with(c.Context(), func(ctx context.Context, cl *client) (err error) {
				if req.Resources, err = cl.keyIDs(ctx, req.Resources); err != nil {
					return err
				}
				out, err := cl.sync.AssociateReplicaInstance(ctx, req)
				if err != nil {
					return err
				}
				return a.printSync(out.GetSynchronization())
			})
		},
	}
	f := c.Flags()
	f.StringVar(&req.ReplicaInstance, "replica", "", "`INSTANCE` to add, by ID or Region")
	cobra.CheckErr(c.MarkFlagRequired("replica"))
	f.BoolVar(&all, "all", false, "all keys, those that are made later, too")
	f.StringArrayVar(&req.Resources, "key", nil, "`KEY` that it is to have, repeated")
	return c
}

func typeOf(all bool) string {
	if all {
		return "ALL_RESOURCES"
	}
	return "SELECTED_RESOURCES"
}

// keyIDs returns the key IDs behind references.
func (c *client) keyIDs(ctx context.Context, refs []string) ([]string, error) {
	var ids []string
	for _, ref := range refs {
		id, err := c.keyID(ctx, ref)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func (a *app) syncUpdate(use string) *cobra.Command {
	req := &kmsv1.UpdateSynchronizationRequest{}
	var all bool
	c := &cobra.Command{
		Use: use, Short: "Add keys to what a replica instance is to have", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			req.SynchronizationId = args[0]
			if all {
				req.SynchronizationType = typeOf(all)
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) (err error) {
				if req.AddResources, err = cl.keyIDs(ctx, req.AddResources); err != nil {
					return err
				}
				out, err := cl.sync.UpdateSynchronization(ctx, req)
				if err != nil {
					return err
				}
				return a.printSync(out.GetSynchronization())
			})
		},
	}
	f := c.Flags()
	f.StringVar(&req.ReplicaInstance, "replica", "", "`INSTANCE`, by ID or Region")
	cobra.CheckErr(c.MarkFlagRequired("replica"))
	f.BoolVar(&all, "all", false, "from now on all keys")
	f.StringArrayVar(&req.AddResources, "add", nil, "`KEY` to add, repeated")
	return c
}

func (a *app) syncResources(use string) *cobra.Command {
	req := &kmsv1.ListSynchronizedResourcesRequest{}
	var replica string
	var watch bool
	c := &cobra.Command{
		Use: use, Short: "Show how far each key is in each replica instance, and why no further", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			req.SynchronizationId = args[0]
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				for last := ""; ; {
					rows, err := cl.syncRows(ctx, req, replica)
					if err != nil {
						return err
					}
					now, behind := tally(rows)
					if watch && now != last {
						a.say("%s", now)
						last = now
					}
					if !watch || behind == 0 {
						return a.printRows(rows)
					}
					select {
					case <-ctx.Done():
						return fmt.Errorf("still %s; it goes on by itself", now)
					case <-time.After(poll):
					}
				}
			})
		},
	}
	f := c.Flags()
	f.StringVar(&replica, "replica", "", "only those of this `INSTANCE`, by ID or Region")
	f.StringVar(&req.Status, "status", "", "only those of this `STATUS`, such as FAILED")
	f.StringVar(&req.FailureCause, "cause", "", "only those of this `CAUSE`, such as ACCESS_DENIED")
	f.BoolVar(&watch, "watch", false, "show progress, and return when nothing is pending or in progress")
	return c
}

// syncRows returns all rows of a view.
func (c *client) syncRows(ctx context.Context, req *kmsv1.ListSynchronizedResourcesRequest, replica string) (rows []*kmsv1.SynchronizedResource, err error) {
	for req.Marker = ""; ; {
		var page interface {
			GetResources() []*kmsv1.SynchronizedResource
			GetNextMarker() string
		}
		if replica == "" {
			page, err = c.sync.ListSynchronizedResources(ctx, req)
		} else {
			page, err = c.sync.ListReplicaResources(ctx, &kmsv1.ListReplicaResourcesRequest{
				SynchronizationId: req.SynchronizationId, ReplicaInstance: replica, Status: req.Status, FailureCause: req.FailureCause, Marker: req.Marker,
			})
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, page.GetResources()...)
		if req.Marker = page.GetNextMarker(); req.Marker == "" {
			return rows, nil
		}
	}
}

// tally says how many rows have which status, and counts those that still move.
func tally(rows []*kmsv1.SynchronizedResource) (words string, behind int) {
	n := map[kmsv1.ReplicationStatus]int{}
	for _, r := range rows {
		n[r.GetStatus()]++
	}
	for status := kmsv1.ReplicationStatus_REPLICATION_STATUS_PENDING; status <= kmsv1.ReplicationStatus_REPLICATION_STATUS_SUSPENDED; status++ {
		if n[status] > 0 {
			words += fmt.Sprintf(", %d %s", n[status], replicationWord(status))
		}
	}
	behind = n[kmsv1.ReplicationStatus_REPLICATION_STATUS_PENDING] + n[kmsv1.ReplicationStatus_REPLICATION_STATUS_IN_PROGRESS]
	return strings.TrimPrefix(words, ", "), behind
}

func (a *app) printRows(rows []*kmsv1.SynchronizedResource) error {
	w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
	if !a.json {
		fmt.Fprintln(w, "RESOURCE\tREPLICA\tINSTANCE\tSTATUS\tCAUSE\tTEXT")
	}
	for _, r := range rows {
		if a.json {
			if err := a.print(r); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.GetResourceId(), r.GetReplicaRegion(), r.GetReplicaInstanceId(),
			replicationWord(r.GetStatus()), dash(causeWord(r.GetFailureCause())), dash(r.GetFailureText()))
	}
	return w.Flush()
}
