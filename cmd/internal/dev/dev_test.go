package dev

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/cmd/internal/cliconfig"
	"github.com/keyferry/keyferry/cmd/internal/config"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/softhsm"
)

func create(t *testing.T, names ...region.Name) *Deployment {
	t.Helper()
	d, err := OpenOrCreate(filepath.Join(t.TempDir(), "d"), Binaries{}, io.Discard, names, 0)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestPlanIsDecidedOnce(t *testing.T) {
	d := create(t, "eu-paris-1", "us-east-1")
	again, err := OpenOrCreate(d.dir, Binaries{}, io.Discard, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d.plan, again.plan); diff != "" {
		t.Errorf("second look (-first +second):\n%s", diff)
	}
	if _, err := OpenOrCreate(d.dir, Binaries{}, io.Discard, []region.Name{"eu-paris-1"}, 0); err == nil {
		t.Error("another set of Regions was accepted")
	}
	if _, err := Open(t.TempDir(), Binaries{}, io.Discard); !errors.Is(err, ErrNone) {
		t.Errorf("empty directory: %v, want ErrNone", err)
	}
}

func TestPlansRefused(t *testing.T) {
	tests := []struct {
		name  string
		names []region.Name
		base  int
	}{
		{"bad name", []region.Name{"Paris"}, 0},
		{"twice", []region.Name{"eu-paris-1", "eu-paris-1"}, 0},
		{"six", []region.Name{"a-b-1", "a-b-2", "a-b-3", "a-b-4", "a-b-5", "a-b-6"}, 0},
		{"privileged ports", []region.Name{"eu-paris-1"}, 80},
		{"ports past the last", []region.Name{"eu-paris-1"}, 65_530},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "d")
			if _, err := OpenOrCreate(dir, Binaries{}, io.Discard, tt.names, tt.base); err == nil {
				t.Error("accepted")
			}
			if exists(dir) {
				t.Error("a refused plan left a directory")
			}
		})
	}
}

func TestPorts(t *testing.T) {
	seen := map[int]bool{}
	for _, r := range create(t).plan.Regions {
		for _, p := range []int{r.GRPC, r.REST, r.Peer, r.Metrics} {
			if seen[p] || p < lowestPort || p >= highestPort {
				t.Errorf("port %d of %s: used twice or out of range", p, r.Name)
			}
			seen[p] = true
		}
	}
	if len(seen) != 12 {
		t.Errorf("%d ports for three Regions, want 12", len(seen))
	}
	fixed, err := newPlan([]region.Name{"eu-paris-1", "us-east-1"}, 7100)
	want := []RegionPlan{{"eu-paris-1", 7100, 7101, 7102, 7103}, {"us-east-1", 7104, 7105, 7106, 7107}}
	if diff := cmp.Diff(want, fixed.Regions); diff != "" || err != nil {
		t.Errorf("ports from 7100, %v (-want +got):\n%s", err, diff)
	}
}

func TestCertificates(t *testing.T) {
	d := create(t, "eu-paris-1")
	if err := d.makeCertificates(t.Context()); err != nil {
		t.Fatal(err)
	}
	bob, err := d.MakeClient("bob")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate(t, d.path("ca.crt")))
	server := certificate(t, d.in("eu-paris-1", "server.crt"))
	if _, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: "127.0.0.1"}); err != nil {
		t.Errorf("server certificate: %v", err)
	}
	client := certificate(t, d.path("clients", "bob", "client.crt"))
	if _, err := client.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Errorf("client certificate: %v", err)
	}
	if _, err := client.Verify(x509.VerifyOptions{Roots: roots}); err == nil {
		t.Error("a client certificate passes as a server's")
	}
	if len(client.URIs) != 1 || client.URIs[0].String() != "spiffe://keyferry.dev/user/bob" {
		t.Errorf("URI names of bob: %v", client.URIs)
	}
	if c, err := cliconfig.Load(bob); err != nil || c.Regions["eu-paris-1"].Cert != d.path("clients", "bob", "client.crt") {
		t.Errorf("configuration of bob: %+v, %v", c, err)
	}
	if _, err := d.clientTLS("bob"); err != nil {
		t.Error(err)
	}
	for _, key := range []string{d.path("ca.key"), d.in("eu-paris-1", "server.key"), d.path("clients", "bob", "client.key")} {
		if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", key, info.Mode(), err)
		}
	}
	// Made once: whoever trusts the authority or holds a certificate can rely on it.
	before := certificate(t, d.path("ca.crt"))
	if err := d.makeCertificates(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !before.Equal(certificate(t, d.path("ca.crt"))) {
		t.Error("a second run made another authority")
	}
	for _, name := range []string{"", "../x", "a/b", "-x", strings.Repeat("a", 65)} {
		if _, err := d.MakeClient(name); err == nil {
			t.Errorf("client name %q was accepted", name)
		}
	}
}

func certificate(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestDaemonConfigIsValid(t *testing.T) {
	d := create(t, "eu-paris-1", "us-east-1")
	r := d.plan.Regions[0]
	if err := d.writeDaemonConfig(r, softhsm.Token{Module: "/lib/p11.so", Label: "t", PINFile: "/pin"}); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(d.in(r.Name, "keyferryd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Store.Path != d.in(r.Name, "store.db") || c.Peers.Addresses["us-east-1"] != loopback(d.plan.Regions[1].Peer) {
		t.Errorf("store %s, peers %v", c.Store.Path, c.Peers.Addresses)
	}
	alone := create(t, "eu-paris-1")
	if err := alone.writeDaemonConfig(alone.plan.Regions[0], softhsm.Token{Module: "/lib/p11.so", Label: "t", PINFile: "/pin"}); err != nil {
		t.Errorf("a deployment in one Region: %v", err)
	}
}

func TestProcessIdentity(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	p, err := identify(cmd.Process.Pid)
	if err != nil || !p.running() {
		t.Fatalf("identify = %+v, %v; running %v", p, err, p.running())
	}
	later := p
	later.Start += "1"
	if later.running() || !errors.Is(later.signal(syscall.SIGKILL), os.ErrProcessDone) || !p.running() {
		t.Error("a process with the same PID and another start time was taken for ours")
	}
	if p.wait(20 * time.Millisecond) {
		t.Error("a running process was reported as ended")
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Nobody has waited for it, so it is a zombie, which is as good as gone.
	if !p.wait(time.Minute) {
		t.Error("a killed process was reported as running")
	}
}

func TestStrayedDaemonIsFound(t *testing.T) {
	d := create(t, "eu-paris-1")
	d.bin.Daemon = "/bin/sh" // stands in for the daemon
	if _, running := d.process("eu-paris-1"); running {
		t.Fatal("found a daemon where none is")
	}
	// sh reads "run" from its directory, and keeps the command line that a daemon would have.
	cmd := exec.Command("/bin/sh", d.daemonArgs("eu-paris-1")[1:]...)
	cmd.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(cmd.Dir, "run"), []byte("sleep 60 & wait\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); cmd.Wait() })
	if p, running := d.process("eu-paris-1"); !running || p.PID != cmd.Process.Pid {
		t.Errorf("found %+v, %v; want process %d", p, running, cmd.Process.Pid)
	}
	var written process
	if err := readJSON(d.in("eu-paris-1", "keyferryd.pid"), &written); err != nil || written.PID != cmd.Process.Pid {
		t.Errorf("PID file %+v, %v", written, err)
	}
}

func TestOneAtATime(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(name); err == nil {
		t.Error("locked twice")
	}
	unlock()
	if unlock, err = lock(name); err != nil {
		t.Fatalf("after unlocking: %v", err)
	}
	unlock()
}

func TestStatusLine(t *testing.T) {
	tests := []struct {
		name   string
		status RegionStatus
		want   string
		ready  bool
	}{
		{"down", RegionStatus{Region: "eu-paris-1"}, "eu-paris-1   down", false},
		{"starting", RegionStatus{Region: "eu-paris-1", PID: 7, Problem: "refused"}, "eu-paris-1   process 7, not serving: refused", false},
		{"alone", RegionStatus{Region: "eu-paris-1", PID: 7, Serving: true, GRPC: "g", REST: "r", Token: "t", Boundary: "api-only"},
			"eu-paris-1   serving, process 7, gRPC g, REST r, token t, boundary api-only", true},
		{"a peer is dark", RegionStatus{Region: "eu-paris-1", PID: 7, Serving: true, GRPC: "g", REST: "r", Token: "t", Boundary: "api-only",
			Peers: []PeerLink{{"us-east-1", true, ""}, {"ap-tokyo-1", false, "refused"}}},
			"eu-paris-1   serving, process 7, gRPC g, REST r, token t, boundary api-only, peers: us-east-1, not ap-tokyo-1 (refused)", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.status.String(); got != tt.want || tt.status.Ready() != tt.ready {
				t.Errorf("got %q, ready %v; want %q, ready %v", got, tt.status.Ready(), tt.want, tt.ready)
			}
		})
	}
}

func TestEnvIsQuoted(t *testing.T) {
	d, err := OpenOrCreate(filepath.Join(t.TempDir(), "it's here"), Binaries{}, io.Discard, []region.Name{"eu-paris-1"}, 7100)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.makeCertificates(t.Context()); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	if err := d.Env(&script, Admin); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", script.String()+`printf '%s|%s' "$KEYFERRY_CONFIG" "$KEYFERRY_REST_EU_PARIS_1"`).Output()
	if want := d.path("clients", "admin", "config.yaml") + "|https://127.0.0.1:7101"; err != nil || string(out) != want {
		t.Errorf("a shell sees %q, %v; want %q", out, err, want)
	}
}
