package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cmd/internal/config"
	"github.com/keyferry/keyferry/keyops/audit"
	"github.com/keyferry/keyferry/keyops/statement"
)

// TestBackupNotes: each note that makes sense becomes one record, and what makes none stays,
// and is told.
func TestBackupNotes(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "audit")
	d := &daemon{config: &config.Config{Audit: config.Audit{Dir: dir}}}
	d.audit, err = audit.Open(t.Context(), audit.Config{
		Dir: dir, Region: "eu-paris-1", Instance: "kfi-0123456789ab", Signer: statement.HostKey(key), Keys: []crypto.PublicKey{key.Public()}, CheckpointEvery: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.audit.Close()
	taken := time.Date(2026, 11, 22, 4, 0, 0, 0, time.UTC)
	for i := range 2 {
		if err := (backupNote{taken.Add(time.Duration(i) * time.Hour), "7 (0123)", 42}).leave(dir); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second finds nothing
		if err := d.takeNotes(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	records := func() string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, "audit-000001.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if n := strings.Count(records(), eventTakeBackup); n != 2 || !strings.Contains(records(), `"backupTaken":"2026-11-22T05:00:00Z"`) {
		t.Errorf("%d records of two backups:\n%s", n, records())
	}
	for name, text := range map[string]string{
		"text": "hello", "empty": "{}", "long": `{"taken":"2026-11-22T04:00:00Z","head":"` + strings.Repeat("x", 129) + `"}`, "huge": strings.Repeat(" ", maxNote+1) + "{}",
	} {
		path := filepath.Join(dir, name+noteSuffix)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.takeNotes(t.Context()); err == nil {
			t.Errorf("a note that is none: %s", name)
		}
		if err := os.Remove(path); err != nil {
			t.Errorf("%s was removed: %v", name, err)
		}
	}
	if n := strings.Count(records(), eventTakeBackup); n != 2 {
		t.Errorf("%d records of two backups:\n%s", n, records())
	}
}
