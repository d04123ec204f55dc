package main

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/sqlite"
)

func newStore() *cobra.Command {
	cmd := &cobra.Command{Use: "store", Short: "Look at the sealed store, and seal it anew with approvals", Args: cobra.NoArgs}
	cmd.AddCommand(newFindings(), newReseal(), newMade(), newLost())
	return cmd
}

// custodian are the flags of both commands.
type custodian struct {
	config string
	peers  []string // REGION=DIR
}

func (c *custodian) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.config, "config", "", "configuration file")
	cmd.Flags().StringArrayVar(&c.peers, "peer-audit", nil, "`REGION=DIR` with a copy of a pinned peer's audit log, which has witnessed this store; may be repeated")
}

func newFindings() *cobra.Command {
	var c custodian
	var request string
	var expiry time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "findings --config FILE",
		Short: "List what does not hold in the store; a daemon may be serving from it",
		Long: `List what does not hold in the store; a daemon may be serving from it.

Exit code 0: all holds. Exit code 7: something does not. With --request, what operators
would have to approve so that the store is believed as it is (see docs/restore.md): stop
the daemon before, since every change of the store makes another request.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := newDaemon(cmd, c.config)
			if err != nil {
				return err
			}
			return d.inspect(cmd.Context(), c.peers, func(custody keyops.Custody) error {
				in, err := custody.Inspect(cmd.Context())
				if err != nil {
					return fail(exitStore, advise(err))
				}
				if err := printFindings(cmd.OutOrStdout(), in, asJSON); err != nil {
					return err
				}
				if in.Err() == nil {
					return nil
				}
				if request != "" {
					q := custody.Request(in, approval.NewSerial(), time.Now().Add(expiry).Truncate(time.Second).UTC())
					if err := statement.WriteJSON(request, q); err != nil {
						return err
					}
					fmt.Fprintf(cmd.ErrOrStderr(), "request %s, fingerprint %s\napprovals needed: %d\n", request, q.Fingerprint(), custody.Roster.Threshold)
				}
				return fail(exitFindings, errors.New("the store does not hold"))
			})
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&request, "request", "", "write what operators are to approve to this new `FILE`")
	cmd.Flags().DurationVar(&expiry, "expiry", 24*time.Hour, "how long the request may be carried out, at most 168h")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newReseal() *cobra.Command {
	var c custodian
	var files []string
	cmd := &cobra.Command{
		Use:   "reseal --config FILE --approval FILE...",
		Short: "Believe the stopped daemon's store as it is, with the approvals of enough operators",
		RunE: func(cmd *cobra.Command, more []string) error {
			d, err := newDaemon(cmd, c.config)
			if err != nil {
				return err
			}
			approvals, err := readApprovals(append(files, more...)) // more is what a shell makes of --approval *
			if err != nil {
				return err
			}
			return d.reseal(cmd.Context(), cmd.OutOrStdout(), c.peers, approvals)
		},
	}
	c.flags(cmd)
	cmd.Flags().StringArrayVar(&files, "approval", nil, "an operator's approval `FILE`, and those of others after it")
	return cmd
}

func readApprovals(paths []string) ([]statement.File, error) {
	var approvals []statement.File
	for _, path := range paths {
		var f statement.File
		if err := statement.ReadJSON(path, &f); err != nil {
			return nil, fail(exitUsage, err)
		}
		approvals = append(approvals, f)
	}
	return approvals, nil
}

// custody opens what a look at the store needs, but the store.
func (d *daemon) custody(ctx context.Context, peers []string) (keyops.Custody, error) {
	if err := d.readRegionDir(ctx); err != nil {
		return keyops.Custody{}, fail(exitRegionDir, advise(err))
	}
	if err := d.login(ctx); err != nil {
		return keyops.Custody{}, fail(exitToken, advise(err))
	}
	if err := d.findKeys(ctx); err != nil {
		return keyops.Custody{}, fail(exitToken, advise(err))
	}
	roster, _, err := region.Dir(d.config.RegionDir).LoadRosters(d.self.Descriptor)
	if err != nil {
		return keyops.Custody{}, fail(exitRegionDir, err)
	}
	c := keyops.Custody{Self: d.self, Roster: roster, Token: d.token, Seal: d.seal}
	keys, err := d.self.Keys()
	if err != nil {
		return c, err
	}
	last, err := audit.Newest(d.config.Audit.Dir, keys)
	if err != nil {
		return c, err
	}
	if last.Number != 0 {
		c.Witnessed = append(c.Witnessed, last.Store)
	}
	for _, peer := range peers {
		seen, err := d.witnessedBy(peer)
		if err != nil {
			return c, fmt.Errorf("--peer-audit %s: %w", peer, err)
		}
		c.Witnessed = append(c.Witnessed, seen...)
	}
	return c, nil
}

// witnessedBy returns the heads of this store that a peer's log has kept. Each is in a
// checkpoint that this Region signed, so a peer can hide some, and make none up.
func (d *daemon) witnessedBy(flag string) ([]audit.StoreHead, error) {
	name, dir, ok := strings.Cut(flag, "=")
	if !ok {
		return nil, fail(exitUsage, errors.New("want REGION=DIR"))
	}
	peer, err := region.Dir(d.config.RegionDir).LoadPeer(region.Name(name))
	if err != nil {
		return nil, fail(exitUsage, err)
	}
	keys, err := peer.Keys()
	if err != nil {
		return nil, err
	}
	r, err := audit.Verify(os.DirFS(dir), keys)
	if err != nil {
		return nil, err
	}
	own, err := d.self.Keys()
	if err != nil {
		return nil, err
	}
	var heads []audit.StoreHead
	for _, w := range r.Seen {
		if w.Region == d.self.Region && w.Instance == d.self.Instance && slices.ContainsFunc(own, func(k crypto.PublicKey) bool { return w.Verify(k) == nil }) {
			heads = append(heads, w.Store)
		}
	}
	return heads, nil
}

func (d *daemon) reseal(ctx context.Context, out io.Writer, peers []string, approvals []statement.File) error {
	return d.keep(ctx, peers, func(c keyops.Custody) error {
		head, err := c.Reseal(ctx, d.audit, approvals)
		if err != nil {
			return fail(exitStore, err)
		}
		_, err = fmt.Fprintf(out, "sealed anew at head %s\n", head)
		return err
	})
}

// inspect opens what a look at the store needs; a daemon may be serving.
func (d *daemon) inspect(ctx context.Context, peers []string, fn func(keyops.Custody) error) (err error) {
	defer func() { err = errors.Join(err, d.close(context.WithoutCancel(ctx))) }()
	c, err := d.custody(ctx, peers)
	if err != nil {
		return err
	}
	s, err := sqlite.Open(ctx, sqlite.Config{Path: d.config.Store.Path})
	if err != nil {
		return fail(exitStore, advise(err))
	}
	defer s.Close()
	c.Store = s
	return fn(c)
}

// keep holds store and audit log like a daemon, and serves nobody.
func (d *daemon) keep(ctx context.Context, peers []string, fn func(keyops.Custody) error) (err error) {
	defer func() { err = errors.Join(err, d.close(context.WithoutCancel(ctx))) }()
	c, err := d.custody(ctx, peers)
	if err != nil {
		return err
	}
	if err := d.openStore(ctx); err != nil {
		return fail(exitStore, advise(err))
	}
	keep, end := context.WithCancel(ctx)
	kept := make(chan error, 1)
	go func() {
		kept <- store.KeepLease(keep, d.lease, leaseTTL, func(err error) { d.log.WithError(err).Warn("renewing the store's lease failed, trying again") })
	}()
	defer func() { end(); err = errors.Join(err, <-kept) }()
	if err := d.openAudit(ctx); err != nil {
		return fail(exitOther, advise(err))
	}
	c.Store = d.store
	return fn(c)
}

// printFindings prints an inspection for people, or for programs.
func printFindings(out io.Writer, in keyops.StoreInspection, asJSON bool) error {
	behind := ""
	if in.Behind != nil {
		behind = in.Behind.Error()
	}
	if asJSON {
		type finding struct {
			Problem string `json:"problem"`
			Kind    string `json:"kind"`
			ID      string `json:"id"`
			Version uint64 `json:"version"`
		}
		all := make([]finding, 0, len(in.Findings))
		for _, f := range in.Findings {
			all = append(all, finding{string(f.Problem), string(f.Kind), f.ID, f.Version})
		}
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			Holds     bool      `json:"holds"`
			Head      string    `json:"head"`
			Witnessed string    `json:"witnessed"`
			Behind    string    `json:"behind,omitempty"`
			Rows      int       `json:"rows"`
			Contents  string    `json:"contents"`
			Findings  []finding `json:"findings"`
		}{in.Err() == nil, in.Head.String(), in.Witnessed.String(), behind, in.Rows, fmt.Sprintf("%x", in.Contents), all})
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "store head\t%s\nwitnessed head\t%s\nrows\t%d\n", in.Head, in.Witnessed, in.Rows)
	if behind != "" {
		fmt.Fprintf(w, "rolled back\t%s\n", behind)
	}
	for _, f := range in.Findings {
		fmt.Fprintf(w, "%s\t%s %s, version %d\n", f.Problem, f.Kind, f.ID, f.Version)
	}
	if in.Err() == nil {
		fmt.Fprintf(w, "all holds\t\n")
	}
	return w.Flush()
}
