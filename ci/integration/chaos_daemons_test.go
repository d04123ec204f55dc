package integration

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// chaos is the shared deployment, with a link on every way between two Regions and with
// daemons that are this process's own.
type chaos struct {
	links   []*link
	daemons map[string]*exec.Cmd
	address map[string]string
	logged  map[string]int64 // how long the daemons' logs were
	crypto  map[string]kmsv1.CryptoServiceClient
	manage  map[string]kmsv1.KeyServiceClient
	keys    []*chaosKey
	proofs  []proof
	dir     string        // of requests and approvals
	command time.Duration // that a command takes on this machine, nothing being wrong
	tallies map[string]tally
	kills   int
	tokens  int // how often one was taken away
	calls   int
}

func newChaos(t *testing.T) *chaos {
	t.Helper()
	c := &chaos{
		daemons: map[string]*exec.Cmd{}, crypto: map[string]kmsv1.CryptoServiceClient{}, manage: map[string]kmsv1.KeyServiceClient{},
		address: map[string]string{}, logged: map[string]int64{}, dir: t.TempDir(), tallies: map[string]tally{},
	}
	status := shared.status(t)
	shared.mustDev(t, "down")
	t.Cleanup(func() { shared.mustDev(t, "up") })
	peers := map[string]string{}
	for _, r := range regions {
		peers[r] = shared.peerAddress(t, r)
	}
	for _, r := range regions {
		data, err := os.ReadFile(shared.in(r, "keyferryd.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range regions {
			if other == r {
				continue
			}
			l := newLink(t, peers[other])
			c.links = append(c.links, l)
			if n := bytes.Count(data, []byte(peers[other])); n != 1 {
				t.Fatalf("the configuration of %s names the address of %s %d times", r, other, n)
			}
			data = bytes.Replace(data, []byte(peers[other]), []byte(l.address()), 1)
		}
		name := shared.in(r, "chaos.yaml")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(name) })
	}
	for _, r := range regions {
		log, err := os.Stat(shared.in(r, "keyferryd.log"))
		if err != nil {
			t.Fatal(err)
		}
		c.address[r], c.logged[r] = status[r].GRPC, log.Size()
		t.Cleanup(func() { c.end(r) })
		c.start(t, r)
		conn := shared.connect(t, c.address[r])
		c.crypto[r], c.manage[r] = kmsv1.NewCryptoServiceClient(conn), kmsv1.NewKeyServiceClient(conn)
	}
	return c
}

// peerAddress is where a Region listens for the others.
func (d deployment) peerAddress(t *testing.T, region string) string {
	t.Helper()
	data, err := os.ReadFile(d.in(region, "keyferryd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, peers, _ := strings.Cut(string(data), "\npeers:")
	for line := range strings.Lines(peers) {
		if address, ok := strings.CutPrefix(strings.TrimSpace(line), "listen: "); ok {
			return address
		}
	}
	t.Fatalf("%s has no peer listener:\n%s", region, data)
	return ""
}

// start runs a Region's daemon and waits until it serves.
func (c *chaos) start(t *testing.T, region string) {
	t.Helper()
	cmd := shared.daemon(context.Background(), region, shared.in(region, "chaos.yaml"))
	cmd.Dir = shared.in(region)
	log, err := os.OpenFile(shared.in(region, "keyferryd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.daemons[region] = cmd
	eventually(t, patience, func() (string, bool) {
		conn, err := net.DialTimeout("tcp", c.address[region], patience) // costs less than a command
		if err == nil {
			conn.Close()
			_, err = shared.keyferry(nil, "whoami", "--region", region)
		}
		if err != nil && !alive(cmd.Process.Pid) {
			data, _ := os.ReadFile(shared.in(region, "keyferryd.log"))
			lines := strings.Split(strings.TrimSpace(string(data)), "\n")
			t.Fatalf("the daemon of %s ended:\n%s", region, strings.Join(lines[max(0, len(lines)-8):], "\n"))
		}
		return fmt.Sprint(err), err == nil
	})
}

// alive reports whether a child has not ended; one that nobody has waited for is a zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

func (c *chaos) end(region string) {
	if cmd := c.daemons[region]; cmd != nil {
		cmd.Process.Kill()
		cmd.Wait()
		c.daemons[region] = nil
	}
}

// takeToken makes a Region's token vanish under the running daemon, until back is called.
func (c *chaos) takeToken(t *testing.T, region string) (back func()) {
	t.Helper()
	tokens := shared.in(region, "softhsm", "tokens")
	if err := os.Rename(tokens, tokens+"-away"); err != nil {
		t.Fatal(err)
	}
	c.tokens++
	back = sync.OnceFunc(func() {
		if err := os.Rename(tokens+"-away", tokens); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(back)
	return back
}

func (c *chaos) heal() {
	for _, l := range c.links {
		l.set(fault{})
	}
}
