package integration

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// killsEnv is how often TestChaos kills a daemon; make chaos sets it for a long run.
const killsEnv = "KEYFERRY_KILLS"

// TestChaos kills daemons, takes tokens away and breaks the network while keys are made,
// replicated, used, rotated, handed over, disabled and sent to deletion, and then demands
// that everything converges and that nothing is lost that any Region ever answered with.
func TestChaos(t *testing.T) {
	softhsmtest.Used(t)
	kills := 10
	if s := os.Getenv(killsEnv); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("%s=%q: want a number of kills", killsEnv, s)
		}
		kills = n
	}
	seed := uint64(1)
	if s := os.Getenv("KEYFERRY_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("KEYFERRY_SEED=%q: %v", s, err)
		}
		seed = n
	}
	t.Logf("seed %d, %d kills", seed, kills)
	c := newChaos(t, seed)
	c.begin(t)
	for c.kills < kills {
		c.operate(t)
		c.disturb(t)
	}
	c.heal(t)
	c.settle(t)
	t.Logf("%d kills, %d cuts, %d times a token away; operations: %v; %d ciphertexts, MACs and signatures of %d keys taken everywhere",
		c.kills, c.cuts, c.tokens, c.done, len(c.proofs), len(c.keys))
	if len(c.proofs) == 0 || len(c.keys) == 0 {
		t.Error("nothing was done between the kills")
	}
}

// chaos is the shared deployment, with a link on every way between two Regions and with
// daemons that are this process's own.
type chaos struct {
	rng     *rand.Rand
	links   map[[2]string]*link
	daemons map[string]*exec.Cmd
	keys    []*chaosKey
	proofs  []proof
	dir     string         // of signatures and MACs
	done    map[string]int // operations that were answered, by name
	kills   int
	cuts    int
	tokens  int // how often one was taken away
}

func newChaos(t *testing.T, seed uint64) *chaos {
	t.Helper()
	c := &chaos{
		rng: rand.New(rand.NewPCG(seed, 0)), links: map[[2]string]*link{}, daemons: map[string]*exec.Cmd{}, done: map[string]int{},
		dir: t.TempDir(),
	}
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
			c.links[[2]string{r, other}] = l
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
		c.start(t, r)
		t.Cleanup(func() { c.end(r) })
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
	eventually(t, 60*time.Second, func() (string, bool) {
		_, err := shared.keyferry(nil, "whoami", "--region", region, "--timeout", "2s")
		if err != nil && !alive(cmd) {
			data, _ := os.ReadFile(shared.in(region, "keyferryd.log"))
			lines := strings.Split(strings.TrimSpace(string(data)), "\n")
			t.Fatalf("the daemon of %s ended:\n%s", region, strings.Join(lines[max(0, len(lines)-8):], "\n"))
		}
		return fmt.Sprint(err), err == nil
	})
}

// alive reports whether a child has not ended; one that nobody has waited for is a zombie.
func alive(cmd *exec.Cmd) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

func (c *chaos) end(region string) {
	if cmd := c.daemons[region]; cmd != nil {
		cmd.Process.Kill()
		cmd.Wait()
		c.daemons[region] = nil
	}
}

// disturb breaks something: a way between two Regions, the process of one, and now and then
// its token, which is away before the process is killed and back before or after.
func (c *chaos) disturb(t *testing.T) {
	region, other := pick(c, regions), pick(c, regions)
	if l := c.links[[2]string{region, other}]; l != nil {
		l.set(pick(c, []fault{{}, {cut: true}, {deaf: true}, {delay: 5 * time.Millisecond}}))
		c.cuts++
	}
	back := func() {}
	if c.rng.IntN(4) == 0 {
		back = c.takeToken(t, region)
		c.operate(t)
		if c.rng.IntN(2) == 0 {
			back()
			back = func() {}
		}
	}
	time.Sleep(time.Duration(c.rng.IntN(120)) * time.Millisecond)
	c.end(region)
	c.kills++
	back()
	if c.rng.IntN(3) == 0 {
		c.operate(t) // with the Region dark
	}
	c.start(t, region)
}

// takeToken makes a Region's token vanish under the running daemon, until back is called.
func (c *chaos) takeToken(t *testing.T, region string) (back func()) {
	t.Helper()
	tokens := shared.in(region, "softhsm", "tokens")
	if err := os.Rename(tokens, tokens+"-away"); err != nil {
		t.Fatal(err)
	}
	c.tokens++
	return func() {
		if err := os.Rename(tokens+"-away", tokens); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *chaos) heal(t *testing.T) {
	for _, l := range c.links {
		l.set(fault{})
	}
}

// settle brings every key back to life, waits until every Region agrees about it, and opens
// everything everywhere.
func (c *chaos) settle(t *testing.T) {
	for _, k := range c.keys {
		eventually(t, 90*time.Second, func() (string, bool) { return c.agreed(k) })
		primary := c.lead(k)
		for _, r := range k.members {
			if r != primary {
				shared.awaitSynchronized(t, k.id, primary, r)
			}
		}
	}
	for _, p := range c.proofs {
		for _, r := range p.key.members {
			if err := p.key.kind.check(c, r, p); err != nil {
				t.Errorf("%s does not take what was made with %s, %s: %v", r, p.key.id, p.key.kind.name, err)
			}
		}
	}
}

// agreed reports whether a key is enabled in all its Regions, which name one primary Region
// and one current material. It is brought back where it is disabled or pending deletion.
func (c *chaos) agreed(k *chaosKey) (seen string, ok bool) {
	ok = true
	var first shownKey
	for i, r := range k.members {
		m, err := c.show(r, k)
		seen += fmt.Sprintf("%s in %s: %+v, %v; ", k.id, r, m, err)
		switch m.KeyState {
		case "PendingDeletion", "PendingReplicaDeletion":
			c.ask(nil, r, "key", "undelete", k.id)
		case "Disabled":
			c.ask(nil, r, "key", "enable", k.id)
		}
		if i == 0 {
			first = m
		}
		ok = ok && err == nil && m.KeyState == "Enabled" && m.CurrentKeyMaterialID == first.CurrentKeyMaterialID &&
			m.MultiRegionConfiguration.PrimaryKey == first.MultiRegionConfiguration.PrimaryKey
	}
	return seen, ok
}
