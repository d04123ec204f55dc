package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/cmd/internal/config"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/backup"
	"github.com/keyferry/keyferry/keyops/region"
)

func newRestore() *cobra.Command {
	var file, from string
	var peers []string
	var replace, check, asJSON bool
	cmd := &cobra.Command{
		Use:   "restore --config FILE --from DIR",
		Short: "Put a backup back for a stopped daemon, and report what it is behind",
		Long: `Put a backup back for a stopped daemon, and report what it is behind.

Everything is checked before anything is written: the manifest's signature under the Region
signing key of the token, every file, and every seal of the store. An audit log or a Region
directory that is there is kept. A store that is there is refused, or with --replace moved
aside. With --check, all of that and no write (see docs/backup.md).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" || from == "" {
				return fail(exitUsage, errors.New("give --config FILE and --from DIR"))
			}
			// Not LoadOnHost: what is missing on this host may be what is restored.
			c, err := config.Load(file)
			if err != nil {
				return fail(exitUsage, err)
			}
			d := &daemon{config: c, log: newLog(c.Log, cmd.ErrOrStderr()), begun: time.Now()}
			r, err := d.restore(cmd.Context(), from, peers, replace, check)
			if err != nil {
				return err
			}
			return r.print(cmd.OutOrStdout(), asJSON)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file")
	cmd.Flags().StringVar(&from, "from", "", "directory `DIR` of the backup")
	cmd.Flags().StringArrayVar(&peers, "peer-audit", nil, "`REGION=DIR` with a copy of a pinned peer's audit log, which has witnessed the lost store; may be repeated")
	cmd.Flags().BoolVar(&replace, "replace", false, "move a store that is in the way aside")
	cmd.Flags().BoolVar(&check, "check", false, "check and report, and write nothing")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// restored is what a restore reports.
type restored struct {
	manifest   backup.Manifest
	plan       backup.Plan
	check      bool
	target     backup.Target
	inspection keyops.StoreInspection
	suspects   []keyops.MadeMaterial
	since      []audit.Change
	sinceErr   error
}

func (d *daemon) restore(ctx context.Context, from string, peers []string, replace, check bool) (*restored, error) {
	r := &restored{check: check, target: backup.Target{
		Store: d.config.Store.Path, AuditDir: d.config.Audit.Dir, RegionDir: region.Dir(d.config.RegionDir),
		Replace: replace, Now: time.Now,
	}}
	// The Region's directory of the backup serves if there is no other. Either has to be of
	// this token's signing key.
	if _, err := os.Lstat(r.target.RegionDir.Own()); errors.Is(err, fs.ErrNotExist) {
		d.config.RegionDir = string(backup.RegionDir(from))
	}
	custody, err := d.custody(ctx, peers)
	if err != nil {
		return nil, err
	}
	keys, err := d.self.Keys()
	if err != nil {
		return nil, err
	}
	b, err := backup.Open(from, keys)
	if err != nil {
		return nil, fail(exitOther, err)
	}
	r.manifest = b.Manifest
	if b.Instance != d.self.Instance || b.Region != d.self.Region {
		return nil, fail(exitRegionDir, fmt.Errorf("the backup is of instance %s in %s, and this is %s in %s", b.Instance, b.Region, d.self.Instance, d.self.Region))
	}
	if err := b.Verify(); err != nil {
		return nil, fail(exitOther, err)
	}
	cfg, err := d.auditConfig()
	if err != nil {
		return nil, err
	}
	r.target.Restored = func(ctx context.Context, dir string) error {
		cfg := cfg
		cfg.Dir = dir
		return audit.Restored(ctx, cfg, r.details())
	}
	if check {
		if r.plan, err = b.Plan(r.target); err == nil {
			err = d.lookOnly(ctx, b, custody, r)
		}
	} else {
		r.plan, err = b.Restore(ctx, r.target, look(custody, r))
	}
	if err != nil {
		return nil, fail(exitStore, advise(err))
	}
	if r.plan.Audit {
		return r, nil
	}
	r.since, r.sinceErr = audit.Changes(os.DirFS(d.config.Audit.Dir), keys, b.Seq)
	if !check {
		err = r.record(ctx, cfg)
	}
	return r, err
}

// eventRestoreBackup is the audit event of a store that was put back from a backup beside an
// audit log that goes on.
const eventRestoreBackup = "RestoreBackup"

// details say which backup it was.
func (r *restored) details() map[string]string {
	return map[string]string{
		"backupTaken": r.manifest.Taken.Format(time.RFC3339), "backupHead": r.manifest.Head.String(),
		"backupSequence": strconv.FormatUint(r.manifest.Seq, 10),
	}
}

// record writes down in the audit log that was kept that the store was restored.
func (r *restored) record(ctx context.Context, cfg audit.Config) (err error) {
	log, err := audit.Open(ctx, cfg)
	if err != nil {
		return fmt.Errorf("restored, and not written down: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	return log.Append(ctx, audit.Record{Type: audit.ServiceEvent, Event: eventRestoreBackup, Outcome: audit.Success, Details: r.details()})
}

// lookOnly looks at the store of the backup in a place that is forgotten.
func (d *daemon) lookOnly(ctx context.Context, b *backup.Backup, c keyops.Custody, r *restored) (err error) {
	dir, err := os.MkdirTemp("", "keyferry-restore-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return b.Look(ctx, filepath.Join(dir, "store.db"), look(c, r))
}

// next says what has to be done before the daemon can serve.
func (r *restored) next() []string {
	var steps []string
	if r.check {
		steps = append(steps, "restore without --check")
	}
	if r.inspection.Err() != nil {
		steps = append(steps, "have the store sealed anew with the operators' approvals: keyferryd store findings --request, and docs/restore.md")
	}
	if r.plan.Audit {
		steps = append(steps, "compare with the peers' audit logs: keyferryd store findings --peer-audit; without them nobody knows what the store is behind")
	}
	return append(steps,
		"start the daemon; it manages multi-Region keys once it has heard every peer, and deletes no key for a day",
		"repeat what changed since and does not come from peers: policies, aliases, grants, single-Region keys")
}

func (r *restored) print(out io.Writer, asJSON bool) error {
	type suspect struct {
		Key    string `json:"keyId,omitempty"`
		Object string `json:"object"`
		What   string `json:"what"`
	}
	kept := func(written bool) string {
		if written {
			return "written"
		}
		return "kept"
	}
	report := struct {
		Written   bool           `json:"written"`
		Region    string         `json:"region"`
		Instance  string         `json:"instance"`
		Taken     time.Time      `json:"taken"`
		Head      string         `json:"head"`
		Witnessed string         `json:"witnessed"`
		Behind    string         `json:"behind,omitempty"`
		Aside     string         `json:"movedAside,omitempty"`
		AuditLog  string         `json:"auditLog"`
		RegionDir string         `json:"regionDir"`
		Since     []audit.Change `json:"changesSince"`
		SinceErr  string         `json:"changesUnknown,omitempty"`
		Suspects  []suspect      `json:"materials"`
		Next      []string       `json:"next"`
	}{
		Written: !r.check, Region: string(r.manifest.Region), Instance: string(r.manifest.Instance), Taken: r.manifest.Taken,
		Head: r.inspection.Head.String(), Witnessed: r.inspection.Witnessed.String(), Aside: r.plan.Store,
		AuditLog: kept(r.plan.Audit), RegionDir: kept(r.plan.RegionDir),
		Since: r.since, Suspects: []suspect{}, Next: r.next(),
	}
	if r.inspection.Behind != nil {
		report.Behind = r.inspection.Behind.Error()
	}
	if r.sinceErr != nil {
		report.SinceErr = r.sinceErr.Error()
	}
	for _, s := range r.suspects {
		report.Suspects = append(report.Suspects, suspect{string(s.Key), s.Object.String(), s.Suspect})
	}
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(report)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "backup of\t%s, instance %s\ntaken\t%s, %s ago\n", report.Region, report.Instance,
		report.Taken.Format(time.RFC3339), time.Since(report.Taken).Round(time.Second))
	fmt.Fprintf(w, "store head\t%s\nwitnessed head\t%s\n", report.Head, report.Witnessed)
	for _, row := range [][2]string{
		{"behind", report.Behind}, {"moved aside", report.Aside}, {"audit log", report.AuditLog},
		{"region_dir", report.RegionDir}, {"changes unknown", report.SinceErr},
	} {
		if row[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
		}
	}
	for _, c := range report.Since {
		fmt.Fprintf(w, "changed since\t%s  %s  %s\n", c.Time.Format(time.RFC3339), c.Event, c.KeyID)
	}
	for _, s := range report.Suspects {
		fmt.Fprintf(w, "does not fit\t%s %s: %s\n", s.Key, s.Object, s.What)
	}
	for _, step := range report.Next {
		fmt.Fprintf(w, "next\t%s\n", step)
	}
	return w.Flush()
}
