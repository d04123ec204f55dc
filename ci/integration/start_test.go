package integration

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// daemon is the command that runs keyferryd with a configuration file, in the environment
// that keyferry-dev gives it.
func (d deployment) daemon(ctx context.Context, region, config string, flags ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "keyferryd"), append([]string{"run", "--config", config}, flags...)...)
	cmd.Env = []string{"SOFTHSM2_CONF=" + d.in(region, "softhsm", "softhsm2.conf")}
	return cmd
}

// changed writes a copy of a Region's configuration beside it, with one line changed.
func changed(t *testing.T, region, pattern, with string) string {
	t.Helper()
	data, err := os.ReadFile(shared.in(region, "keyferryd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	re := regexp.MustCompile("(?m)" + pattern)
	if len(re.FindAll(data, -1)) != 1 {
		t.Fatalf("%q does not match once in\n%s", pattern, data)
	}
	name := shared.in(region, "changed.yaml")
	if err := os.WriteFile(name, re.ReplaceAll(data, []byte(with)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(name) })
	return name
}

// refusal runs a daemon that must not start, and returns its exit code and last line.
func (d deployment) refusal(t *testing.T, region, config string) (code int, line string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := d.daemon(ctx, region, config).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("the daemon ended with %v:\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return exit.ExitCode(), lines[len(lines)-1]
}

func TestStartRefused(t *testing.T) {
	softhsmtest.Used(t)
	shared.mustDev(t, "stop", tokyo)
	t.Cleanup(func() { shared.mustDev(t, "up") })

	wrongPIN := shared.in(tokyo, "wrong.pin")
	if err := os.WriteFile(wrongPIN, []byte("0000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	notStore := shared.in(tokyo, "not-a-store")
	if err := os.WriteFile(notStore, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	empty := t.TempDir()
	forged := forgedRegionDir(t, tokyo)
	tests := []struct {
		name, pattern, with string
		code                int
		line                string
	}{
		{"no such token", `^    label: .*`, `    label: elsewhere`, 3, `opening the token: .*elsewhere`},
		{"wrong PIN", `^    pin_file: .*`, `    pin_file: ` + wrongPIN, 3, `PIN.*not tried again`},
		{"no such module", `^    module: .*`, `    module: ` + notStore, 3, `opening the token: `},
		{"boundary", `^    require_boundary: .*`, `    require_boundary: token`, 3, `boundary is api-only and token.require_boundary is token: use a hardware token`},
		{"no descriptor", `^region_dir: .*`, `region_dir: ` + empty, 6, `has no descriptor: make the Region's keys with keyferry-ceremony init`},
		{"another Region's directory", `^region_dir: .*`, `region_dir: ` + shared.in(paris, "region"), 6, `belongs to Region eu-paris-1 .* names ap-tokyo-1`},
		{"another key's descriptor", `^region_dir: .*`, `region_dir: ` + forged, 3, `is not of this token's Region signing key: find out who replaced it`},
		{"no store", `^    path: .*`, `    path: ` + notStore, 4, `opening the store: .*not a keyferry store.*correct it`},
		{"another daemon's store", `^    path: .*`, `    path: ` + shared.in(paris, "store.db"), 4, `opening the store: `},
		{"port taken", `^    grpc: .*`, `    grpc: ` + taken.Addr().String(), 5, `listening for clients: .*address already in use.*another program listens there`},
		{"peer port taken", `^peers:\n    listen: .*`, "peers:\n    listen: " + taken.Addr().String(), 5, `listening for peers: .*address already in use.*another program listens there`},
		{"no identity policies", `^identity_policies: .*`, `identity_policies: nowhere.json`, 2, `identity_policies: .*no such file`},
		{"misspelt key", `^drain_timeout: .*|^log:`, "log_level: info\nlog:", 2, `log_level: unknown key`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			softhsmtest.Used(t)
			code, line := shared.refusal(t, tokyo, changed(t, tokyo, tt.pattern, tt.with))
			if code != tt.code || !regexp.MustCompile(tt.line).MatchString(line) {
				t.Errorf("exit code %d, line %q; want %d, %q", code, line, tt.code, tt.line)
			}
		})
	}
}

// forgedRegionDir is a Region's directory as somebody would write it who has no token: the
// same Region and instance, peers too, and a signing key of their own.
func forgedRegionDir(t *testing.T, name string) string {
	t.Helper()
	own, err := region.Dir(shared.in(name, "region")).LoadOwn()
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if own.SigningKey, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		t.Fatal(err)
	}
	signed, err := own.Descriptor.Sign(t.Context(), statement.HostKey(key))
	if err != nil {
		t.Fatal(err)
	}
	forged := region.Dir(t.TempDir())
	if err := errors.Join(forged.Make(), signed.Save(forged.Own())); err != nil {
		t.Fatal(err)
	}
	peers := filepath.Dir(forged.Peer("eu-paris-1"))
	if err := errors.Join(os.Remove(peers), os.CopyFS(peers, os.DirFS(shared.in(name, "region", "peers")))); err != nil {
		t.Fatal(err)
	}
	return string(forged)
}

func TestOneWriter(t *testing.T) {
	softhsmtest.Used(t)
	before := shared.serving(t, paris)
	code, line := shared.refusal(t, paris, shared.in(paris, "keyferryd.yaml"))
	if code != 4 || !strings.Contains(line, "another daemon serves from this store: stop it first") {
		t.Errorf("exit code %d, line %q", code, line)
	}
	if after := shared.serving(t, paris); after.PID != before.PID {
		t.Errorf("before %+v, after %+v", before, after)
	}
	shared.createKey(t, paris) // and it still can write
}
