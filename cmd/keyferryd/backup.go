package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/backup"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/sqlite"
)

func newBackup() *cobra.Command {
	var file, out string
	cmd := &cobra.Command{
		Use:   "backup --config FILE --out DIR",
		Short: "Copy store, audit log and Region directory; a daemon may be serving",
		Long: `Copy store, audit log and Region directory; a daemon may be serving.

The new directory holds a consistent copy and a manifest that the Region signing key signs.
It has no key material and no secret: the token's own means back the token up. A store that
does not hold is not copied (exit code 7).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return fail(exitUsage, errors.New("no --out DIR"))
			}
			d, err := newDaemon(cmd, file)
			if err != nil {
				return err
			}
			m, err := d.backup(cmd.Context(), out)
			if err != nil {
				return err
			}
			if err := d.note(cmd.Context(), m); err != nil {
				return fmt.Errorf("the backup is in %s, and could not be written down in the audit log: %w", out, err)
			}
			w := cmd.OutOrStdout()
			fmt.Fprintf(w, "backup of %s, instance %s, in %s\nstore head %s, audit log to line %d, %d files\n", m.Region, m.Instance, out, m.Head, m.Seq, len(m.Files))
			fmt.Fprintf(w, "the token %s is not in it: %s\n", m.Token, d.tokenBackup())
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file")
	cmd.Flags().StringVar(&out, "out", "", "new directory `DIR` for the backup")
	return cmd
}

// errNotHeld says that a store was not copied, since a restore of it would not start.
var errNotHeld = errors.New("the store does not hold")

func (d *daemon) backup(ctx context.Context, out string) (backup.Manifest, error) {
	c, err := d.custody(ctx, nil)
	if err != nil {
		return backup.Manifest{}, err
	}
	s, err := sqlite.Open(ctx, sqlite.Config{Path: d.config.Store.Path})
	if err != nil {
		return backup.Manifest{}, fail(exitStore, advise(err))
	}
	defer s.Close()
	m, err := backup.Take(ctx, backup.Source{
		Self: d.self, RegionDir: region.Dir(d.config.RegionDir), AuditDir: d.config.Audit.Dir, Store: s,
		Inspect: func(ctx context.Context, copied store.Store) (seal.Head, error) {
			c.Store = copied
			in, err := c.Inspect(ctx)
			if err == nil && in.Err() != nil {
				err = fmt.Errorf("%w: %w", errNotHeld, in.Err())
			}
			return in.Head, err
		},
		Signer: d.signer(),
		Token:  d.token.Info().Serial, Release: version(), Now: time.Now,
	}, out)
	if errors.Is(err, errNotHeld) {
		return m, fail(exitFindings, advise(err))
	}
	return m, fail(exitOther, advise(err))
}

// look inspects a store that is to be put back.
func look(c keyops.Custody, r *restored) func(context.Context, store.Store) error {
	return func(ctx context.Context, copied store.Store) (err error) {
		c.Store = copied
		if r.inspection, err = c.Inspect(ctx); err != nil {
			return err
		}
		r.suspects, err = c.Made(ctx, time.Now().AddDate(100, 0, 0))
		return err
	}
}

// tokenBackup says in words what brings the token's keys back.
func (d *daemon) tokenBackup() string {
	switch d.token.Info().Backup {
	case hsm.BackupFiles:
		return "copy its files, and keep the copy like the token: whoever has it and the PIN has the keys"
	case hsm.BackupClone:
		return "clone it with the vendor's tool"
	}
	return "nothing known backs it up, so single-Region keys are lost with it; multi-Region keys come back from other Regions"
}
