package backup_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/backup"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/seal"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/keyops/store"
	"github.com/keyferry/keyferry/keyops/store/sqlite"
)

// site is a Region that is being backed up: its store is held, its log is written.
type site struct {
	dir    string
	self   region.SignedDescriptor
	key    *ecdsa.PrivateKey
	keys   []crypto.PublicKey
	store  *sqlite.Store
	log    *audit.Log
	source backup.Source
}

var head = seal.Head{Version: 7}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{dir: t.TempDir()}
	var err error
	if s.key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(s.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	s.self, err = region.Descriptor{
		Region: "eu-paris-1", Instance: region.NewInstanceID(), Partition: "aws", SigningKey: public, Version: 1,
		Operators: approval.Roster{Threshold: 1, Operators: []approval.Operator{{Name: "anna", Key: public256(t)}}},
		Created:   time.Now().Truncate(time.Second).UTC(),
	}.Sign(t.Context(), statement.HostKey(s.key))
	if err != nil {
		t.Fatal(err)
	}
	dir := region.Dir(filepath.Join(s.dir, "region"))
	if err := errors.Join(dir.Make(), s.self.Save(dir.Own())); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.dir, "store.db")
	if err := sqlite.Create(t.Context(), path, s.self.Instance); err != nil {
		t.Fatal(err)
	}
	if s.store, err = sqlite.Open(t.Context(), sqlite.Config{Path: path}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.store.Close() })
	if _, err := s.store.AcquireLease(t.Context(), "daemon", time.Minute); err != nil {
		t.Fatal(err)
	}
	s.put(t, "before")
	s.log, err = audit.Open(t.Context(), audit.Config{
		Dir: filepath.Join(s.dir, "audit"), Region: s.self.Region, Instance: s.self.Instance, Signer: statement.HostKey(s.key), CheckpointEvery: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.log.Close() })
	s.keys = []crypto.PublicKey{s.key.Public()}
	s.source = backup.Source{
		Self: s.self, RegionDir: dir, AuditDir: filepath.Join(s.dir, "audit"), Store: s.store,
		Inspect: func(context.Context, store.Store) (seal.Head, error) { return head, nil },
		Signer:  statement.HostKey(s.key), Token: "0123", Release: "test", Now: time.Now,
	}
	return s
}

func public256(t *testing.T) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (s *site) put(t *testing.T, id string) {
	t.Helper()
	err := s.store.Update(t.Context(), func(tx store.Tx) error {
		return tx.Put(store.Row{Kind: "test", ID: id, Version: 1, Body: []byte("x")})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// stop ends the daemon of the site.
func (s *site) stop(t *testing.T) {
	t.Helper()
	if err := errors.Join(s.log.Close(), s.store.Close()); err != nil {
		t.Fatal(err)
	}
}

func (s *site) take(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "b")
	if _, err := backup.Take(t.Context(), s.source, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (s *site) target(dir string) backup.Target {
	return backup.Target{
		Store: filepath.Join(dir, "store.db"), AuditDir: filepath.Join(dir, "audit"), RegionDir: region.Dir(filepath.Join(dir, "region")),
		Now: func() time.Time { return time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC) },
		Restored: func(ctx context.Context, dir string) error {
			return audit.Restored(ctx, audit.Config{
				Dir: dir, Region: s.self.Region, Instance: s.self.Instance, Signer: statement.HostKey(s.key), Keys: s.keys, CheckpointEvery: -1,
			}, nil)
		},
	}
}

func nothing(context.Context, store.Store) error { return nil }

// rows lists the test rows of a store, and says whether it is stamped.
func rows(t *testing.T, path string) (ids []string, stamped bool) {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.View(t.Context(), func(tx store.Tx) error {
		meta, err := store.ReadMeta(tx)
		if err != nil {
			return err
		}
		stamped = !meta.Restored.IsZero()
		return tx.Scan("test", func(r store.Row) error { ids = append(ids, r.ID); return nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids, stamped
}

// TestEmptyHost restores on a host that has lost everything but the token.
func TestEmptyHost(t *testing.T) {
	s := newSite(t)
	// What somebody else keeps in the Region's directory may be a secret, and stays there.
	for _, name := range []string{"pin", "notes.json", "peers/pin", "keys/pin.json"} {
		path := filepath.Join(s.dir, "region", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("4711"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	dir := s.take(t)
	s.put(t, "after")
	b, err := backup.Open(dir, s.keys)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Verify(); err != nil {
		t.Fatal(err)
	}
	for _, f := range b.Files {
		if strings.Contains(f.Name, "pin") || strings.Contains(f.Name, "notes") {
			t.Errorf("the backup has %s", f.Name)
		}
	}
	if b.Instance != s.self.Instance || b.Head != head || b.Token != "0123" {
		t.Errorf("manifest %+v", b.Manifest)
	}
	own, err := backup.RegionDir(dir).LoadOwn()
	if err != nil || own.Fingerprint() != s.self.Fingerprint() {
		t.Errorf("descriptor of the backup: %v, %v", own, err)
	}
	target := s.target(t.TempDir())
	looked := false
	plan, err := b.Restore(t.Context(), target, func(ctx context.Context, st store.Store) error {
		looked = true
		if _, err := os.Lstat(target.Store); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the store is in place before it was looked at: %v", err)
		}
		return nil
	})
	if err != nil || !looked {
		t.Fatalf("looked %v, %v", looked, err)
	}
	if diff := cmp.Diff(backup.Plan{Audit: true, RegionDir: true}, plan); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	ids, stamped := rows(t, target.Store)
	if !stamped || !cmp.Equal(ids, []string{"before"}) {
		t.Errorf("rows %v, stamped %v", ids, stamped)
	}
	if r, err := audit.Verify(os.DirFS(target.AuditDir), s.keys); err != nil || r.Records == 0 || len(r.Restores) != 1 {
		t.Errorf("restored log: %+v, %v", r, err)
	}
	if info, err := os.Stat(target.RegionDir.Transcripts()); err != nil || !info.IsDir() {
		t.Errorf("an empty directory that a daemon wants: %v", err)
	}
	if got, err := target.RegionDir.LoadOwn(); err != nil || got.Fingerprint() != s.self.Fingerprint() {
		t.Errorf("restored descriptor: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(target.Store), "*.part*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := b.Restore(t.Context(), target, nothing); !errors.Is(err, backup.ErrInTheWay) {
		t.Errorf("a second restore: %v", err)
	}
}

// TestInPlace restores where a newer store, log and directory are: the store is moved aside
// when that is asked for, and the others are kept.
func TestInPlace(t *testing.T) {
	s := newSite(t)
	// What somebody else keeps in the Region's directory may be a secret, and stays there.
	for _, name := range []string{"pin", "notes.json", "peers/pin", "keys/pin.json"} {
		path := filepath.Join(s.dir, "region", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("4711"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	dir := s.take(t)
	s.put(t, "after")
	b, err := backup.Open(dir, s.keys)
	if err != nil {
		t.Fatal(err)
	}
	target := s.target(s.dir)
	if _, err := b.Restore(t.Context(), target, nothing); !errors.Is(err, backup.ErrInTheWay) {
		t.Errorf("without being asked to replace: %v", err)
	}
	target.Replace = true
	if _, err := b.Restore(t.Context(), target, nothing); !errors.Is(err, backup.ErrServing) {
		t.Errorf("under a daemon: %v", err)
	}
	if err := s.log.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Restore(t.Context(), target, nothing); !errors.Is(err, backup.ErrServing) {
		t.Errorf("under a holder of the lease: %v", err)
	}
	s.stop(t)
	wrong := errors.New("wrong")
	if _, err := b.Restore(t.Context(), target, func(context.Context, store.Store) error { return wrong }); !errors.Is(err, wrong) {
		t.Errorf("a store that nobody likes: %v", err)
	}
	if ids, _ := rows(t, target.Store); !cmp.Equal(ids, []string{"after", "before"}) {
		t.Fatalf("refused restores left the rows %v", ids)
	}
	line, err := os.ReadFile(filepath.Join(s.dir, "audit", "audit-000001.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := b.Restore(t.Context(), target, nothing)
	if err != nil {
		t.Fatal(err)
	}
	if want := (backup.Plan{Store: target.Store + ".before-20261122T010203Z"}); plan != want {
		t.Errorf("plan %+v, want %+v", plan, want)
	}
	if ids, stamped := rows(t, target.Store); !stamped || !cmp.Equal(ids, []string{"before"}) {
		t.Errorf("rows %v, stamped %v", ids, stamped)
	}
	if ids, stamped := rows(t, plan.Store); stamped || !cmp.Equal(ids, []string{"after", "before"}) {
		t.Errorf("moved aside: rows %v, stamped %v", ids, stamped)
	}
	if after, err := os.ReadFile(filepath.Join(s.dir, "audit", "audit-000001.jsonl")); err != nil || string(after) != string(line) {
		t.Errorf("the audit log was touched: %v", err)
	}
}

// TestChanged: whatever was changed in a backup is noticed before anything is written.
func TestChanged(t *testing.T) {
	s := newSite(t)
	other := newSite(t)
	forgery := other.take(t)
	tests := []struct {
		name   string
		change func(dir string) error
		want   string
		opens  bool // the manifest itself is sound
	}{
		{"a byte of the store", func(dir string) error { return flip(filepath.Join(dir, "store.db")) }, "store.db was changed", true},
		{"a byte of the log", func(dir string) error { return flip(filepath.Join(dir, "audit", "audit-000001.jsonl")) }, "was changed", true},
		{"a file fewer", func(dir string) error { return os.Remove(filepath.Join(dir, "region", "region.json")) }, "region/region.json is missing", true},
		{"a file more", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "region", "peers", "x.json"), nil, 0o600)
		}, "x.json is not in the manifest", true},
		{"a link", func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "audit", "x")) }, "not a regular file", true},
		{"another Region's manifest", func(dir string) error {
			data, err := os.ReadFile(filepath.Join(forgery, "manifest.json"))
			return errors.Join(err, os.WriteFile(filepath.Join(dir, "manifest.json"), data, 0o600))
		}, "signature not valid", false},
		{"no manifest", func(dir string) error { return os.Remove(filepath.Join(dir, "manifest.json")) }, "no such file", false},
		{"the manifest in another form", func(dir string) error {
			data, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
			return errors.Join(err, os.WriteFile(filepath.Join(dir, "manifest.json"), append(data, ' '), 0o600))
		}, "not in the form", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := s.take(t)
			if err := tt.change(dir); err != nil {
				t.Fatal(err)
			}
			b, err := backup.Open(dir, s.keys)
			if (err == nil) != tt.opens {
				t.Fatalf("opening: %v", err)
			}
			if err == nil {
				err = b.Verify()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if b == nil || !strings.Contains(tt.name, "store") {
				return
			}
			// And restoring does not rely on somebody having called Verify.
			target := s.target(t.TempDir())
			if _, err := b.Restore(t.Context(), target, nothing); !errors.Is(err, backup.ErrManifest) {
				t.Errorf("restoring: %v", err)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(target.Store), "*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func flip(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 1
	return os.WriteFile(path, data, 0o600)
}

// TestNotTaken: what cannot be a backup leaves nothing.
func TestNotTaken(t *testing.T) {
	s := newSite(t)
	wrong := errors.New("wrong")
	there := s.take(t)
	tests := []struct {
		name   string
		dir    string
		change func(*backup.Source)
		want   error
	}{
		{"a directory that is there", there, func(*backup.Source) {}, fs.ErrExist},
		{"a store that does not hold", "", func(src *backup.Source) {
			src.Inspect = func(context.Context, store.Store) (seal.Head, error) { return head, wrong }
		}, wrong},
		{"a token that does not sign", "", func(src *backup.Source) {
			src.Signer = statement.SignerFunc(func(context.Context, []byte) ([]byte, error) { return nil, wrong })
		}, wrong},
		{"no Region directory", "", func(src *backup.Source) { src.RegionDir = region.Dir(filepath.Join(s.dir, "none")) }, fs.ErrNotExist},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parent := t.TempDir()
			dir := tt.dir
			if dir == "" {
				dir = filepath.Join(parent, "b")
			}
			source := s.source
			tt.change(&source)
			if _, err := backup.Take(t.Context(), source, dir); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if left, _ := filepath.Glob(filepath.Join(parent, "*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestHalfDirectory: a Region directory that has files and no descriptor is nobody's to replace.
func TestHalfDirectory(t *testing.T) {
	s := newSite(t)
	b, err := backup.Open(s.take(t), s.keys)
	if err != nil {
		t.Fatal(err)
	}
	target := s.target(t.TempDir())
	if err := os.MkdirAll(target.RegionDir.Transcripts(), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Restore(t.Context(), target, nothing); !errors.Is(err, backup.ErrInTheWay) {
		t.Errorf("error %v", err)
	}
}
