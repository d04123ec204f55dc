package integration

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// command is a line of a shell block of a page, and the exit code that its comment promises.
type command struct {
	line string
	code int
}

var shellBlock = regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```$")

func commandsOf(t *testing.T, page string) []command {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	var all []command
	for _, block := range shellBlock.FindAllSubmatch(data, -1) {
		for line := range strings.Lines(string(block[1])) {
			line, comment, _ := strings.Cut(strings.TrimSpace(line), " # exit code ")
			c := command{line: line}
			if comment != "" {
				if c.code, err = strconv.Atoi(comment); err != nil {
					t.Fatal(err)
				}
			}
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s has no commands", page)
	}
	return all
}

// at runs a command line as an operator does who answers yes, in a Region's directory.
func (d deployment) at(ctx context.Context, region, line string) (code int, out string, err error) {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir = d.in(region)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "SOFTHSM2_CONF="+d.in(region, "softhsm", "softhsm2.conf"))
	cmd.Stdin = strings.NewReader("yes\n")
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), string(b), nil
	}
	return 0, string(b), err
}

// TestRollback puts back an older store, as a restored backup does, and follows
// docs/restore.md.
func TestRollback(t *testing.T) {
	softhsmtest.Used(t)
	t.Parallel()
	d := deployment{dir: filepath.Join(t.TempDir(), "d")}
	t.Cleanup(func() { d.dev("down", "--purge") })
	d.mustDev(t, "up", "--base-port", basePort(), "--regions", paris)
	kept := d.createKey(t, paris)
	ciphertext := d.must(t, []byte("x"), "encrypt", kept, "--region", paris)
	d.mustDev(t, "stop", paris) // an orderly stop leaves one file and a checkpoint
	old, err := os.ReadFile(d.in(paris, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	d.mustDev(t, "start", paris)
	lost := d.createKey(t, paris)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if code, out, err := d.at(ctx, paris, "keyferryd store findings --config keyferryd.yaml"); err != nil || code != 0 || !strings.Contains(out, "all holds") {
		t.Errorf("a store that a daemon serves from: exit code %d, %v\n%s", code, err, out)
	}
	code, out, err := d.at(ctx, paris, "keyferryd store reseal --config keyferryd.yaml")
	if err != nil || code != 4 || !strings.Contains(out, "stop it first") {
		t.Errorf("sealing under a daemon: exit code %d, %v\n%s", code, err, out)
	}
	d.mustDev(t, "stop", paris)
	putBack := func() {
		t.Helper()
		for _, name := range []string{"store.db-wal", "store.db-shm"} {
			os.Remove(d.in(paris, name))
		}
		if err := os.WriteFile(d.in(paris, "store.db"), old, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	putBack()
	refused := func(code int, want string) {
		t.Helper()
		if got, line := d.refusal(t, paris, d.in(paris, "keyferryd.yaml")); got != code || !strings.Contains(line, want) {
			t.Errorf("exit code %d, line %q; want %d with %q", got, line, code, want)
		}
	}
	refused(4, "keyferryd store findings says what is wrong")

	// The page's operator is anna; the deployment's is dev.
	if err := os.Symlink(filepath.Join(d.dir, "operators", "dev.key"), d.in(paris, "anna.key")); err != nil {
		t.Fatal(err)
	}
	for _, c := range commandsOf(t, "restore.md") {
		code, out, err := d.at(ctx, paris, c.line)
		if err != nil || code != c.code {
			t.Fatalf("%s: exit code %d, want %d, %v\n%s", c.line, code, c.code, err, out)
		}
		t.Logf("%s\n%s", c.line, out)
	}
	d.mustDev(t, "start", paris)
	eventually(t, patience, func() (string, bool) {
		got, err := d.keyferry(ciphertext, "decrypt", "--region", paris)
		return fmt.Sprint(err), string(got) == "x"
	})
	if _, err := d.keyferry(nil, "key", "show", lost, "--region", paris); err == nil {
		t.Errorf("key %s, of which the store knows nothing, is served: whose policy would it have?", lost)
	}
	d.mustDev(t, "stop", paris)

	// What was approved once is not approved for the same old store again.
	putBack()
	refused(4, "keyferryd store findings says what is wrong")
	code, out, err = d.at(ctx, paris, "keyferryd store reseal --config keyferryd.yaml --approval restore.approval-anna")
	if err != nil || code != 4 || !strings.Contains(out, "approved another request") {
		t.Errorf("approvals used again: exit code %d, %v\n%s", code, err, out)
	}
	refused(4, "keyferryd store findings says what is wrong")

	// Who edits the checkpoint that stands in the way needs the signing key.
	logs, err := filepath.Glob(d.in(paris, "audit", "audit-*.jsonl"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("audit logs: %v, %v", logs, err)
	}
	newest := logs[len(logs)-1]
	data, err := os.ReadFile(newest)
	if err != nil {
		t.Fatal(err)
	}
	forged := regexp.MustCompile(`"storeVersion":\d+`).ReplaceAll(data, []byte(`"storeVersion":1`))
	if bytes.Equal(forged, data) {
		t.Fatal("no checkpoint in the audit log")
	}
	if err := os.WriteFile(newest, forged, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(1, "audit log damaged")
}

// TestQuorumPage follows docs/quorum.md, as an operator without a Region or a token.
func TestQuorumPage(t *testing.T) {
	dir := t.TempDir()
	d := deployment{dir: dir}
	if err := os.MkdirAll(d.in(paris), 0o700); err != nil {
		t.Fatal(err)
	}
	q := approval.Request{
		Operation: approval.ResealStore, Region: paris, Instance: "kfi-0123456789ab", Serial: approval.NewSerial(),
		Expires: time.Now().Add(time.Hour).Truncate(time.Second).UTC(), Object: []approval.Detail{{Name: "store head", Text: "5"}},
	}
	if err := statement.WriteJSON(d.in(paris, "restore.request"), q); err != nil {
		t.Fatal(err)
	}
	for _, c := range commandsOf(t, "quorum.md") {
		if strings.HasPrefix(c.line, "keyferry-ceremony") {
			d.withOperatorAnna(t)
		}
		if code, out, err := d.at(t.Context(), paris, c.line); err != nil || code != c.code {
			t.Fatalf("%s: exit code %d, want %d, %v\n%s", c.line, code, c.code, err, out)
		}
	}
	public, err := os.ReadFile(d.in(paris, "anna.pub.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(public)
	var f statement.File
	if err := statement.ReadJSON(d.in(paris, "restore.approval-anna"), &f); err != nil {
		t.Fatal(err)
	}
	roster := approval.Roster{Threshold: 1, Operators: []approval.Operator{{Name: "anna", Key: block.Bytes}}}
	if err := roster.Check(q, time.Now(), []statement.File{f}); err != nil {
		t.Error(err)
	}
	kept := region.Dir(d.in(paris, "region"))
	own, err := kept.LoadOwn()
	if err != nil {
		t.Fatal(err)
	}
	if newest, _, err := kept.LoadRosters(own.Descriptor); err != nil || newest.Version != 1 || newest.Threshold != 2 {
		t.Errorf("the newest roster is %+v, %v", newest, err)
	}
}

// withOperatorAnna makes the directory of a Region whose one operator is anna, and who
// wants cleo as a second.
func (d deployment) withOperatorAnna(t *testing.T) {
	t.Helper()
	dir := region.Dir(d.in(paris, "region"))
	if _, err := os.Stat(string(dir)); err == nil {
		return
	}
	write := func(name, text string) string {
		t.Helper()
		if err := os.WriteFile(d.in(paris, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return d.in(paris, name)
	}
	for _, line := range []string{"openssl genpkey -algorithm ed25519 -out cleo.key", "chmod 600 cleo.key", "openssl pkey -in cleo.key -pubout -out cleo.pub.pem"} {
		if code, out, err := d.at(t.Context(), paris, line); err != nil || code != 0 {
			t.Fatalf("%s: %d, %v\n%s", line, code, err, out)
		}
	}
	const anna = "  - name: anna\n    key: anna.pub.pem\n"
	write("next.yaml", "threshold: 2\noperators:\n"+anna+"  - name: cleo\n    key: cleo.pub.pem\n")
	roster, err := approval.LoadRoster(write("operators.yaml", "threshold: 1\noperators:\n"+anna))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	own, err := region.Descriptor{
		Region: paris, Instance: region.NewInstanceID(), Partition: "aws", SigningKey: public, Operators: roster, Version: 1,
		Created: time.Now().Truncate(time.Second).UTC(),
	}.Sign(t.Context(), statement.HostKey(key))
	if err := errors.Join(err, dir.Make(), own.Save(dir.Own())); err != nil {
		t.Fatal(err)
	}
}
