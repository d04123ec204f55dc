package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// TestBackup follows docs/backup.md: taken while a daemon serves, restored beside the newer
// audit log, and on a host that has lost everything but the token.
func TestBackup(t *testing.T) {
	softhsmtest.Used(t)
	t.Parallel()
	d := deployment{dir: filepath.Join(t.TempDir(), "d")}
	t.Cleanup(func() { d.dev("down", "--purge") })
	d.mustDev(t, "up", "--base-port", basePort(), "--regions", paris)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	run := func(want int, line string) string {
		t.Helper()
		code, out, err := d.at(ctx, paris, line)
		if err != nil || code != want {
			t.Fatalf("%s: exit code %d, want %d, %v\n%s", line, code, want, err, out)
		}
		return out
	}
	kept := d.createKey(t, paris)
	ciphertext := d.must(t, []byte("x"), "encrypt", kept, "--region", paris)
	page := commandsOf(t, "backup.md")
	if len(page) != 3 || !strings.HasPrefix(page[0].line, "keyferryd backup") {
		t.Fatalf("the page has the commands %v", page)
	}
	if out := run(0, page[0].line); !strings.Contains(out, "copy its files") {
		t.Errorf("it does not say what covers the token:\n%s", out)
	}
	lost := d.createKey(t, paris)
	run(0, page[1].line) // a look changes nothing, so a daemon may be serving
	for line, want := range map[string]string{
		page[0].line: "already exists",
		page[2].line: "a daemon is serving",
		"keyferryd restore --config keyferryd.yaml --from backup-monday": "a store is in the way",
	} {
		if out := run(map[bool]int{true: 1, false: 4}[line == page[0].line], line); !strings.Contains(out, want) {
			t.Errorf("%s does not say %q:\n%s", line, want, out)
		}
	}

	d.mustDev(t, "stop", paris)
	var report struct {
		Behind, MovedAside, AuditLog, RegionDir string
		ChangesSince                            []struct{ Event, KeyID string }
		Materials                               []struct{ What string }
	}
	if err := json.Unmarshal([]byte(run(0, page[2].line+" --json")), &report); err != nil {
		t.Fatal(err)
	}
	if report.AuditLog != "kept" || report.RegionDir != "kept" || !strings.Contains(report.MovedAside, "store.db.before-") {
		t.Errorf("report %+v", report)
	}
	if len(report.ChangesSince) != 1 || report.ChangesSince[0].KeyID != lost || report.ChangesSince[0].Event != "CreateKey" {
		t.Errorf("changed since the backup: %+v, want the creation of %s", report.ChangesSince, lost)
	}
	if len(report.Materials) != 1 || !strings.Contains(report.Materials[0].What, lost) {
		t.Errorf("materials that do not fit: %+v, want that of %s", report.Materials, lost)
	}
	if report.Behind == "" {
		t.Error("the audit log has seen a newer store, and the report does not say so")
	}
	if code, line := d.refusal(t, paris, d.in(paris, "keyferryd.yaml")); code != 4 || !strings.Contains(line, "keyferryd store findings") {
		t.Errorf("a store that its audit log is ahead of: exit code %d, %q", code, line)
	}

	// The host is lost, and the token is not.
	for _, name := range []string{"store.db", "store.db-wal", "store.db-shm", "store.db.lock", "audit", "region"} {
		if err := os.RemoveAll(d.in(paris, name)); err != nil {
			t.Fatal(err)
		}
	}
	if out := run(0, "keyferryd restore --config keyferryd.yaml --from backup-monday"); strings.Count(out, "written") != 2 {
		t.Errorf("audit log and Region directory are not said to be written:\n%s", out)
	}
	d.mustDev(t, "start", paris)
	eventually(t, patience, func() (string, bool) {
		got, err := d.keyferry(ciphertext, "decrypt", "--region", paris)
		return fmt.Sprint(err), string(got) == "x"
	})
	if _, err := d.keyferry(nil, "key", "show", lost, "--region", paris); err == nil {
		t.Errorf("key %s was made after the backup, and is served", lost)
	}
	log, err := os.ReadFile(d.in(paris, "keyferryd.log"))
	if err != nil || !strings.Contains(string(log), "the store has gone back in time") {
		t.Errorf("the daemon does not know that its store was restored: %v", err)
	}
}
