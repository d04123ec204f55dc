package backup

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// ErrManifest says that a backup's manifest is not what this Region signs, or that a file is
// not what the manifest says.
var ErrManifest = errors.New("backup not as it was made")

// Names within a backup.
const (
	manifestName = "manifest.json"
	storeName    = "store.db"
	auditName    = "audit"
	regionName   = "region"
)

// File is one file of a backup.
type File struct {
	Name string // below the backup's directory, with slashes
	Size uint64
	Hash [sha256.Size]byte
}

// Manifest says what a backup is of and what it holds.
type Manifest struct {
	Taken     time.Time
	Region    region.Name
	Instance  region.InstanceID
	Partition string
	Release   string    // of the program that took it
	Token     string    // serial of the token that the Region's keys are in
	Head      seal.Head // of the store
	// Checkpoint and Seq are the numbers of the last checkpoint and of the last line of the
	// audit log; 0 if there is none.
	Checkpoint, Seq uint64
	Files           []File // by name
}

const (
	manifestForm = 1
	// maxFiles bounds the files of a backup: their names and hashes fit into one statement.
	maxFiles = 6000
	maxName  = 128
)

func (m Manifest) payload() []byte {
	var w wire.Writer
	w.Uint(manifestForm)
	w.Uint(uint64(m.Taken.UnixNano()))
	w.String(string(m.Region))
	w.String(string(m.Instance))
	w.String(m.Partition)
	w.String(m.Release)
	w.String(m.Token)
	w.Uint(m.Head.Version)
	w.Bytes(m.Head.Hash[:])
	w.Uint(m.Checkpoint)
	w.Uint(m.Seq)
	w.Count(len(m.Files))
	for _, f := range m.Files {
		w.String(f.Name)
		w.Uint(f.Size)
		w.Bytes(f.Hash[:])
	}
	return w.Out()
}

// parseManifest reads a payload whose signature has been verified.
func parseManifest(payload []byte) (Manifest, error) {
	r := wire.NewReader(payload)
	if v := r.Uint(); r.Err() == nil && v != manifestForm {
		r.Fail("manifest of form %d", v)
	}
	m := Manifest{
		Taken: time.Unix(0, int64(r.Uint())).UTC(), Region: region.Name(r.String(64)), Instance: region.InstanceID(r.String(64)),
		Partition: r.String(64), Release: r.String(256), Token: r.String(64),
	}
	m.Head.Version = r.Uint()
	r.Fixed(m.Head.Hash[:])
	m.Checkpoint, m.Seq = r.Uint(), r.Uint()
	for range r.Count(maxFiles) {
		f := File{Name: r.String(maxName), Size: r.Uint()}
		r.Fixed(f.Hash[:])
		m.Files = append(m.Files, f)
	}
	if err := r.Done(); err != nil {
		return Manifest{}, fmt.Errorf("parsing the manifest: %w", err)
	}
	return m, m.check()
}

// check refuses names that lead out of the directory, or that no backup has.
func (m Manifest) check() error {
	if !slices.IsSortedFunc(m.Files, func(a, b File) int { return strings.Compare(a.Name, b.Name) }) {
		return fmt.Errorf("%w: files out of order", ErrManifest)
	}
	for i, f := range m.Files {
		top, _, below := strings.Cut(f.Name, "/")
		known := f.Name == storeName || below && (top == auditName || top == regionName)
		if !known || !filepath.IsLocal(f.Name) || filepath.ToSlash(filepath.Clean(f.Name)) != f.Name || i > 0 && m.Files[i-1].Name == f.Name {
			return fmt.Errorf("%w: file %.128q", ErrManifest, f.Name)
		}
	}
	return nil
}

// below returns the files of one part.
func (m Manifest) below(part string) (files []File) {
	for _, f := range m.Files {
		if strings.HasPrefix(f.Name, part+"/") {
			files = append(files, f)
		}
	}
	return files
}

// sign returns the manifest as it is written beside the files.
func (m Manifest) sign(ctx context.Context, s statement.Signer, pub crypto.PublicKey) (statement.File, error) {
	if err := m.check(); err != nil {
		return statement.File{}, err
	}
	if len(m.Files) > maxFiles {
		return statement.File{}, fmt.Errorf("%d files, at most %d fit into a backup: move old files of the audit log away", len(m.Files), maxFiles)
	}
	signed, err := statement.Sign(ctx, s, statement.Backup, m.payload())
	if err != nil {
		return statement.File{}, err
	}
	return statement.NewFile(signed, pub)
}

// openManifest verifies the signature under any of the Region's keys before it reads.
func openManifest(f statement.File, keys []crypto.PublicKey) (Manifest, error) {
	s, err := f.Signed(statement.Backup)
	if err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	err = errors.New("no key to verify it with")
	for _, key := range keys {
		if err = s.Verify(key); err == nil {
			return parseManifest(s.Payload)
		}
	}
	return Manifest{}, fmt.Errorf("%w: %w", ErrManifest, err)
}
