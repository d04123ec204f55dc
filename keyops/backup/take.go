package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/sqlite"
)

// Source is what a backup is taken of. A daemon may be serving from it.
type Source struct {
	Self      region.SignedDescriptor
	RegionDir region.Dir
	AuditDir  string
	Store     interface {
		Backup(ctx context.Context, path string) error
	}
	// Inspect returns the head of the copy, or why it does not hold.
	Inspect func(context.Context, store.Store) (seal.Head, error)
	Signer  statement.Signer // the Region signing key
	Token   string           // its serial
	Release string
	Now     func() time.Time
}

// Take writes a backup to a directory that must not exist. It appears whole or not at all.
func Take(ctx context.Context, s Source, dir string) (Manifest, error) {
	m, err := take(ctx, s, dir)
	if err != nil {
		return Manifest{}, fmt.Errorf("taking a backup to %s: %w", dir, err)
	}
	return m, nil
}

func take(ctx context.Context, s Source, dir string) (m Manifest, err error) {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return m, errors.Join(err, fs.ErrExist)
	}
	part, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".*"+statement.PartSuffix)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(part)) }()
	m = Manifest{
		Taken: s.Now().UTC(), Region: s.Self.Region, Instance: s.Self.Instance, Partition: s.Self.Partition,
		Release: s.Release, Token: s.Token,
	}
	if err := s.copyAudit(part, &m); err != nil {
		return m, fmt.Errorf("copying the audit log: %w", err)
	}
	if err := s.copyStore(ctx, part, &m); err != nil {
		return m, err
	}
	if err := s.copyRegionDir(part); err != nil {
		return m, fmt.Errorf("copying %s: %w", s.RegionDir, err)
	}
	if m.Files, err = hashAll(part); err != nil {
		return m, err
	}
	if err := s.writeManifest(ctx, part, m); err != nil {
		return m, fmt.Errorf("writing the manifest: %w", err)
	}
	if err := syncAll(part); err != nil {
		return m, err
	}
	// A directory that appeared meanwhile is not replaced, unless it is empty.
	if err := os.Rename(part, dir); err != nil {
		return m, err
	}
	return m, syncPath(filepath.Dir(dir))
}

func (s Source) copyAudit(part string, m *Manifest) error {
	to := filepath.Join(part, auditName)
	if err := audit.Copy(to, s.AuditDir); err != nil {
		return err
	}
	keys, err := s.Self.Keys()
	if err != nil {
		return err
	}
	last, seq, err := audit.End(to, keys)
	m.Checkpoint, m.Seq = last.Number, seq
	return err
}

// copyStore copies the store, and believes the copy no more than a start would.
func (s Source) copyStore(ctx context.Context, part string, m *Manifest) (err error) {
	to := filepath.Join(part, storeName)
	if err := s.Store.Backup(ctx, to); err != nil {
		return err
	}
	m.Head, err = inspect(ctx, to, s.Inspect)
	return err
}

// inspect looks at a store that nobody uses, and leaves one file.
func inspect(ctx context.Context, path string, look func(context.Context, store.Store) (seal.Head, error)) (head seal.Head, err error) {
	opened, err := sqlite.Open(ctx, sqlite.Config{Path: path})
	if err != nil {
		return head, err
	}
	head, err = look(ctx, opened)
	return head, errors.Join(err, opened.Close())
}

// copyRegionDir copies what ceremonies have finished: files that are public, and signed. What
// else somebody keeps there, a PIN file perhaps, is no part of a backup.
func (s Source) copyRegionDir(part string) error {
	from, err := filepath.EvalSymlinks(string(s.RegionDir))
	if err != nil {
		return err
	}
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		to := filepath.Join(part, regionName, name)
		switch {
		case e.IsDir() && name != "." && !region.Ours(filepath.ToSlash(name)+"/"):
			return fs.SkipDir
		case e.IsDir():
			return os.MkdirAll(to, 0o700)
		case !e.Type().IsRegular() || !region.Ours(filepath.ToSlash(name)):
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, 0o600)
	})
}

func (s Source) writeManifest(ctx context.Context, part string, m Manifest) error {
	pub, err := s.Self.PublicKey()
	if err != nil {
		return err
	}
	f, err := m.sign(ctx, s.Signer, pub)
	if err != nil {
		return err
	}
	return statement.WriteJSON(filepath.Join(part, manifestName), f)
}

// hashAll lists the files below a directory, by name.
func hashAll(dir string) ([]File, error) {
	var files []File
	err := eachFile(dir, func(root *os.Root, name string, size int64) error {
		f, err := hashOne(root, name, uint64(size), io.Discard)
		files = append(files, f)
		return err
	})
	sortFiles(files)
	return files, err
}

// eachFile calls do for each file below a directory, and refuses what is none.
func eachFile(dir string, do func(root *os.Root, name string, size int64) error) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if !e.Type().IsRegular() { // opening a pipe would wait for ever
			return fmt.Errorf("%w: %s is not a regular file", ErrManifest, name)
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		return do(root, name, info.Size())
	})
}

// hashOne hashes a regular file while it copies it, and of one that is larger than it is said
// to be no more than shows that.
func hashOne(root *os.Root, name string, size uint64, to io.Writer) (File, error) {
	f, err := root.Open(name)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(to, sum), io.LimitReader(f, int64(min(size, math.MaxInt64-1))+1))
	return File{Name: name, Size: uint64(n), Hash: [sha256.Size]byte(sum.Sum(nil))}, err
}
