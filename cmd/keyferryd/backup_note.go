package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/keyferry/keyferry/gateway/reload"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/backup"
)

// A backup is taken by a process of its own, and the audit log has one writer: the daemon, if
// it serves. It is told by a note beside the log, which it writes down and removes. Who can
// write a note there can write into the log.

// eventTakeBackup is the audit event of a backup that was taken.
const eventTakeBackup = "TakeBackup"

const (
	noteSuffix  = ".backup-note"
	maxNote     = 1024
	maxHeadText = 128
)

// backupNote is what the log is to have of a backup.
type backupNote struct {
	Taken time.Time `json:"taken"`
	Head  string    `json:"head"`
	Seq   uint64    `json:"sequence"`
}

// record returns the note as a record of the audit log.
func (n backupNote) record() (audit.Record, error) {
	if n.Taken.IsZero() || len(n.Head) > maxHeadText {
		return audit.Record{}, errors.New("not a note of a backup")
	}
	return audit.Record{Type: audit.ServiceEvent, Event: eventTakeBackup, Outcome: audit.Success, ReadOnly: true, Details: map[string]string{
		"backupTaken": n.Taken.UTC().Format(time.RFC3339), "backupHead": n.Head, "backupSequence": strconv.FormatUint(n.Seq, 10),
	}}, nil
}

// note has the audit log say that a backup was taken: at once, or by the daemon that serves.
func (d *daemon) note(ctx context.Context, m backup.Manifest) error {
	n := backupNote{m.Taken, m.Head.String(), m.Seq}
	cfg, err := d.auditConfig()
	if err != nil {
		return err
	}
	log, err := audit.Open(ctx, cfg)
	if err != nil { // it is being written
		return n.leave(d.config.Audit.Dir)
	}
	r, err := n.record()
	if err == nil {
		err = log.Append(ctx, r)
	}
	return errors.Join(err, log.Close())
}

// leave writes the note, whole or not at all. There is no secret in it, and the daemon may be
// another user.
func (n backupNote) leave(dir string) error {
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, strconv.FormatInt(n.Taken.UnixNano(), 10)+noteSuffix)
	if err := os.WriteFile(name+".part", data, 0o644); err != nil {
		return err
	}
	return os.Rename(name+".part", name)
}

// takeNotes writes down what commands have left beside the audit log.
func (d *daemon) takeNotes(ctx context.Context) error {
	names, err := filepath.Glob(filepath.Join(d.config.Audit.Dir, "*"+noteSuffix))
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := d.takeNote(ctx, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (d *daemon) takeNote(ctx context.Context, name string) error {
	data, err := reload.ReadFile(name, maxNote)
	if err != nil {
		return err
	}
	var n backupNote
	if err := json.Unmarshal(data, &n); err != nil {
		return err
	}
	r, err := n.record()
	if err != nil {
		return err
	}
	if err := d.audit.Append(ctx, r); err != nil {
		return err
	}
	return os.Remove(name)
}
