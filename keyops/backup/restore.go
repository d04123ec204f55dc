package backup

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/sqlite"
)

var (
	// ErrInTheWay says that a restore would replace a store.
	ErrInTheWay = errors.New("a store is in the way")
	// ErrServing says that a daemon uses what would be restored.
	ErrServing = errors.New("a daemon is serving")
)

// Backup is a backup whose manifest was verified. What its files hold was not: Verify does
// that, and restoring does it again.
type Backup struct {
	Manifest
	dir string
}

// RegionDir is the Region's directory in a backup that nobody has verified yet: what is in
// it is signed, and has to be compared with the token.
func RegionDir(dir string) region.Dir { return region.Dir(filepath.Join(dir, regionName)) }

// Open reads the manifest, which one of the Region's keys must have signed.
func Open(dir string, keys []crypto.PublicKey) (*Backup, error) {
	var f statement.File
	if err := statement.ReadJSON(filepath.Join(dir, manifestName), &f); err != nil {
		return nil, fmt.Errorf("opening the backup in %s: %w", dir, err)
	}
	m, err := openManifest(f, keys)
	if err != nil {
		return nil, fmt.Errorf("opening the backup in %s: %w", dir, err)
	}
	return &Backup{m, dir}, nil
}

// Verify reads every file, and reports the first that is missing, changed, or not named by
// the manifest.
func (b *Backup) Verify() error {
	found := map[string]bool{}
	err := eachFile(b.dir, func(root *os.Root, name string, size int64) error {
		if name == manifestName {
			return nil
		}
		found[name] = true
		i := slices.IndexFunc(b.Files, func(want File) bool { return want.Name == name })
		if i < 0 {
			return fmt.Errorf("%w: %s is not in the manifest", ErrManifest, name)
		}
		want := b.Files[i]
		if uint64(size) == want.Size {
			got, err := hashOne(root, name, want.Size, io.Discard)
			if err != nil || got == want {
				return err
			}
		}
		return fmt.Errorf("%w: %s was changed", ErrManifest, name)
	})
	if err != nil {
		return fmt.Errorf("reading the backup in %s: %w", b.dir, err)
	}
	for _, want := range b.Files {
		if !found[want.Name] {
			return fmt.Errorf("%w: %s is missing", ErrManifest, want.Name)
		}
	}
	return nil
}

// Target is where a backup is put back.
type Target struct {
	Store, AuditDir string
	RegionDir       region.Dir
	Replace         bool // move a store that is there aside
	// Restored writes into an audit log in a directory, which was copied from the backup and
	// is not yet in its place, that it was.
	Restored func(ctx context.Context, dir string) error
	Now      func() time.Time
}

// Plan says what restoring does with each part.
type Plan struct {
	Store     string // empty, or the name that the store in its place gets
	Audit     bool   // the audit log is written; else the one that is there is kept
	RegionDir bool   // the Region's directory is written; else the one that is there is kept
}

// Plan looks at the target, and refuses what would replace anything. An audit log or a
// Region's directory that is there is newer, or evidence, and is always kept.
func (b *Backup) Plan(t Target) (p Plan, err error) {
	switch _, err := os.Lstat(t.Store); {
	case err == nil && !t.Replace:
		return p, fmt.Errorf("%w: %s", ErrInTheWay, t.Store)
	case err == nil:
		p.Store = t.Store + ".before-" + t.Now().UTC().Format("20060102T150405Z")
	case !errors.Is(err, fs.ErrNotExist):
		return p, err
	}
	if p.Audit, err = absent(t.AuditDir); err != nil {
		return p, err
	}
	if _, err := os.Lstat(t.RegionDir.Own()); err == nil {
		return p, nil
	}
	if p.RegionDir, err = absent(string(t.RegionDir)); err == nil && !p.RegionDir {
		err = fmt.Errorf("%w: %s has files and no descriptor: move it aside", ErrInTheWay, t.RegionDir)
	}
	return p, err
}

// Restore puts the backup back. look is shown the store before anything is in its place, and
// its error ends the restore.
func (b *Backup) Restore(ctx context.Context, t Target, look func(context.Context, store.Store) error) (p Plan, err error) {
	if p, err = b.Plan(t); err != nil {
		return p, err
	}
	release, err := t.alone(ctx)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, release()) }()
	part := t.Store + statement.PartSuffix
	defer func() {
		for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
			os.Remove(part + suffix)
		}
	}()
	if err := b.Look(ctx, part, look); err != nil {
		return p, err
	}
	if p.RegionDir {
		if err := b.write(string(t.RegionDir), regionName, 0o755, 0o644, nil); err != nil {
			return p, err
		}
	}
	if p.Audit {
		told := func(dir string) error { return t.Restored(ctx, dir) }
		if err := b.write(t.AuditDir, auditName, 0o700, 0o600, told); err != nil {
			return p, err
		}
	}
	if p.Store != "" {
		for _, suffix := range []string{"-wal", "-shm", ""} { // the store itself last: a crash leaves it in the way
			if err := os.Rename(t.Store+suffix, p.Store+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return p, err
			}
		}
	}
	if err := errors.Join(syncPath(part), os.Link(part, t.Store)); err != nil {
		return p, err
	}
	return p, syncPath(filepath.Dir(t.Store))
}

// Look shows the store of the backup in a copy of it, at a path that must not exist.
func (b *Backup) Look(ctx context.Context, path string, look func(context.Context, store.Store) error) error {
	if err := b.extract(storeName, path, 0o600); err != nil {
		return err
	}
	s, err := sqlite.Open(ctx, sqlite.Config{Path: path})
	if err != nil {
		return err
	}
	return errors.Join(look(ctx, s), s.Close())
}

// alone makes sure that no daemon serves from the target, until release.
func (t Target) alone(ctx context.Context) (release func() error, err error) {
	release = func() error { return nil }
	dir, err := os.Open(t.AuditDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil { // a daemon holds it
			return nil, errors.Join(fmt.Errorf("%w: it writes the audit log in %s", ErrServing, t.AuditDir), dir.Close())
		}
		release = dir.Close
	}
	s, err := sqlite.Open(ctx, sqlite.Config{Path: t.Store})
	if err != nil {
		return release, nil // no store, or one that no daemon can open either
	}
	_, err = s.AcquireLease(ctx, "restore", time.Minute)
	// Closed before it is moved, so that it is one file; the lock on the log keeps daemons out.
	err = errors.Join(err, s.Close())
	if errors.Is(err, store.ErrLeaseHeld) {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrServing, err), release())
	}
	return release, nil
}

// write makes a directory of the files of one part, whole or not at all: what is there is
// kept by the next restore, so it must not be a half. finish, if not nil, has the last word
// on what is in it.
func (b *Backup) write(dir, part string, dirMode, mode os.FileMode, finish func(made string) error) (err error) {
	made := filepath.Clean(dir) + statement.PartSuffix
	if err := os.RemoveAll(made); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(made)) }()
	if err := os.MkdirAll(made, dirMode); err != nil {
		return err
	}
	if part == regionName { // a daemon wants its directories, also those that are empty
		if err := region.Dir(made).Make(); err != nil {
			return err
		}
	}
	for _, f := range b.below(part) {
		to := filepath.Join(made, filepath.FromSlash(strings.TrimPrefix(f.Name, part+"/")))
		if err := os.MkdirAll(filepath.Dir(to), dirMode); err != nil {
			return err
		}
		if err := b.extract(f.Name, to, mode); err != nil {
			return err
		}
	}
	if finish != nil {
		if err := finish(made); err != nil {
			return err
		}
	}
	if err := syncAll(made); err != nil {
		return err
	}
	if err := os.Rename(made, dir); err != nil { // over an empty directory, and nothing else
		return err
	}
	return syncPath(filepath.Dir(dir))
}

// extract copies one file to a path that must not exist, and takes it back if it is not what
// the manifest says.
func (b *Backup) extract(name, to string, mode os.FileMode) (err error) {
	i := slices.IndexFunc(b.Files, func(f File) bool { return f.Name == name })
	if i < 0 {
		return fmt.Errorf("%w: the manifest names no %s", ErrManifest, name)
	}
	root, err := os.OpenRoot(b.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	got, err := hashOne(root, name, b.Files[i].Size, out)
	if err == nil && got != b.Files[i] {
		err = fmt.Errorf("%w: %s was changed", ErrManifest, name)
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}
