package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// section returns the commands of one section of docs/runbooks.md, and its first piece of
// JSON that has the word in it.
func section(t *testing.T, heading, word string) (commands []string, document string) {
	t.Helper()
	text := sectionOf(t, "runbooks.md", heading)
	for _, block := range shellBlock.FindAllStringSubmatch(text, -1) {
		commands = append(commands, strings.Split(strings.TrimSpace(block[1]), "\n")...)
	}
	for _, block := range regexp.MustCompile("(?ms)^```json\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		if document == "" && strings.Contains(block[1], word) {
			document = block[1]
		}
	}
	return commands, document
}

// patient gives the commands of a page the time that a machine may need which has much else
// to do. A command that says how long it waits goes by that.
var patient = "keyferry() { command keyferry --timeout " + patience.String() + ` "$@"; }` + "\n"

// shims are the commands of the page that a development deployment has under other names.
func (d deployment) shims(region string, pid int) string {
	return patient + fmt.Sprintf(`
ceremony() { keyferry-ceremony "$@" --region-dir region --module /usr/lib/softhsm/libsofthsm2.so --token %[1]s --pin-file softhsm/%[1]s.pin --profile softhsm2; }
systemctl() { kill -HUP %[2]d; }
journalctl() { for i in $(seq 360); do grep -q 'reloaded' keyferryd.log && break; sleep 0.5; done; cat keyferryd.log; }
export KEYFERRY_CONFIG=%[3]s
`, region, pid, filepath.Join(d.dir, "clients", "admin", "config.yaml"))
}

// TestLeakedCertificateRunbook follows the page from the deny to the look into the log, and
// finds the leaked certificate worth nothing in between.
func TestLeakedCertificateRunbook(t *testing.T) {
	d := shared
	d.mustDev(t, "cert", "--name", "alice")
	alice := func() error {
		cmd := exec.Command(filepath.Join(bin, "keyferry"), "whoami", "--region", paris)
		cmd.Env = append(os.Environ(), "KEYFERRY_CONFIG="+filepath.Join(d.dir, "clients", "alice", "config.yaml"))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		cmd = exec.Command(filepath.Join(bin, "keyferry"), "key", "list", "--region", paris)
		cmd.Env = append(os.Environ(), "KEYFERRY_CONFIG="+filepath.Join(d.dir, "clients", "alice", "config.yaml"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	commands, deny := section(t, "A client certificate was leaked", "Leaked")
	file := filepath.Join(d.dir, "identities.json")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(file, before, 0o600); err != nil {
			t.Error(err)
		}
	}()
	// Alice may do everything, until the deny of the page stands beside that.
	var policy map[string]any
	if err := json.Unmarshal(before, &policy); err != nil {
		t.Fatal(err)
	}
	write := func(name string, statements ...any) {
		t.Helper()
		policy["Statement"] = statements
		data, err := json.MarshalIndent(policy, "", "  ")
		if err == nil {
			err = os.WriteFile(name, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	admin := policy["Statement"].([]any)[0]
	allow := map[string]any{"Sid": "Alice", "Effect": "Allow", "Principal": map[string]any{"AWS": "arn:aws:iam::111122223333:user/alice"}, "Action": "kms:*", "Resource": "*"}
	var leaked any
	if err := json.Unmarshal([]byte(deny), &leaked); err != nil {
		t.Fatalf("the statement of the page: %v\n%s", err, deny)
	}
	write(file, admin, allow)
	eventually(t, patience, func() (string, bool) { err := alice(); return fmt.Sprint(err), err == nil })
	write(d.in(paris, "identities.new"), admin, allow, leaked)
	script := d.shims(paris, d.status(t)[paris].PID)
	for _, c := range commands {
		line := strings.ReplaceAll(c, "/etc/keyferry/identities.json", file)
		code, out, err := d.at(t.Context(), paris, script+line)
		if err != nil || code != 0 {
			t.Fatalf("%s: exit code %d, %v\n%s", c, code, err, out)
		}
		if strings.HasPrefix(c, "jq") && !strings.Contains(out, "ListKeys") {
			t.Errorf("%s does not show what was done:\n%s", c, out)
		}
		if strings.HasPrefix(c, "systemctl") {
			eventually(t, patience, func() (string, bool) {
				err := alice()
				return fmt.Sprint(err), err != nil && strings.Contains(err.Error(), "AccessDenied")
			})
		}
	}
	if err := alice(); err == nil {
		t.Error("the leaked certificate still opens something")
	}
}

// TestStolenPINRunbook runs what the page says to find out what was done, and what to
// replace. Transport and Region keys are replaced by tests of their own.
func TestStolenPINRunbook(t *testing.T) {
	softhsmtest.Used(t)
	d := shared
	key := d.createKey(t, paris)
	commands, _ := section(t, "A PIN was stolen", "")
	links := map[string]string{
		d.in(virginia, "audit"): "us-east-1/audit", d.in(virginia, "region", "region.json"): "us-east-1/region.json",
		d.in(paris, "region", "region.json"): "region.json",
	}
	if err := os.MkdirAll(d.in(paris, "us-east-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	for from, to := range links {
		if err := os.Symlink(from, d.in(paris, to)); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(d.in(paris, to))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	ran := 0
	for _, c := range commands {
		elsewhere := strings.HasPrefix(c, "ceremony re") || strings.HasPrefix(c, "ceremony pin") || strings.HasPrefix(c, "keyferry approve")
		if elsewhere || !regexp.MustCompile(`^(ceremony|keyferryd|keyferry audit|jq)`).MatchString(c) {
			continue
		}
		ran++
		line := strings.ReplaceAll(c, "2026-11-21T00:00:00Z", time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
		code, out, err := d.at(ctx, paris, d.shims(paris, 0)+line)
		if err != nil || code != 0 {
			t.Errorf("%s: exit code %d, %v\n%s", c, code, err, out)
			continue
		}
		lists := strings.HasPrefix(c, "keyferryd store made") || strings.Contains(c, "CreateKey")
		if lists && !strings.Contains(out, key) {
			t.Errorf("%s does not list %s:\n%s", c, key, out)
		}
	}
	if ran < 7 {
		t.Errorf("%d commands of the page were run", ran)
	}
}

// TestLockedOutRunbook repairs the policy of a key as the page says.
func TestLockedOutRunbook(t *testing.T) {
	d := shared
	key := d.createKey(t, paris, "--alias", "payroll")
	defer d.keyferry(nil, "alias", "delete", "payroll", "--region", paris)
	commands, repair := section(t, "An administrator is locked out of a key", "Principal")
	if err := os.WriteFile(d.in(paris, "repair.json"), []byte(repair), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		code, out, err := d.at(t.Context(), paris, d.shims(paris, 0)+strings.ReplaceAll(c, "user/alice", "arn:aws:iam::111122223333:user/alice"))
		// The explanation says that alice may not, which is an exit code of its own.
		if explains := strings.HasPrefix(c, "keyferry policy explain"); err != nil || code != 0 && !(explains && code == 3) {
			t.Fatalf("%s: exit code %d, %v\n%s", c, code, err, out)
		}
	}
	if got := d.must(t, nil, "policy", "get", key, "--region", paris); !strings.Contains(string(got), "user/alice") {
		t.Errorf("the policy is %s", got)
	}
}
