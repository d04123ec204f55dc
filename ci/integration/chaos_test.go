package integration

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// killsEnv is how often TestChaos kills a daemon; make chaos sets it for a long run.
const killsEnv = "KEYFERRY_KILLS"

// TestChaos kills daemons and breaks the network while keys are made, replicated, used and
// managed, and then demands that everything converges and that nothing that was ever
// encrypted is lost.
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
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("KEYFERRY_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("KEYFERRY_SEED=%q: %v", s, err)
		}
		seed = n
	}
	t.Logf("seed %d, %d kills", seed, kills)
	c := newChaos(t, seed)
	for c.kills < kills {
		c.operate(t)
		c.disturb(t)
	}
	c.heal(t)
	c.settle(t)
	t.Logf("%d kills, %d cuts; operations: %v; %d ciphertexts of %d keys opened everywhere", c.kills, c.cuts, c.done, len(c.sealed), len(c.keys))
	if len(c.sealed) == 0 || len(c.keys) == 0 {
		t.Error("nothing was done between the kills")
	}
}

var regions = []string{paris, virginia, tokyo}

// chaos is the shared deployment, with a link on every way between two Regions and with
// daemons that are this process's own.
type chaos struct {
	rng     *rand.Rand
	links   map[[2]string]*link
	daemons map[string]*exec.Cmd
	keys    []*chaosKey
	sealed  []sealed
	done    map[string]int // operations that were answered, by name
	kills   int
	cuts    int
}

// chaosKey is a key and where it was told to be. A call that got no answer may have been
// carried out all the same.
type chaosKey struct {
	id      string
	primary string
	members []string
}

// sealed is a ciphertext that a Region has answered with: from then on it must never be lost.
type sealed struct {
	key        *chaosKey
	ciphertext []byte
	plaintext  []byte
}

func newChaos(t *testing.T, seed uint64) *chaos {
	t.Helper()
	c := &chaos{
		rng: rand.New(rand.NewPCG(seed, 0)), links: map[[2]string]*link{}, daemons: map[string]*exec.Cmd{}, done: map[string]int{},
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

// chaosOperations is what the client does between faults. Each says whether it was answered;
// without an answer nothing is concluded.
var chaosOperations = []struct {
	name string
	do   func(*chaos, *testing.T) bool
}{
	{"create", (*chaos).create},
	{"replicate", (*chaos).replicate},
	{"encrypt", (*chaos).encrypt},
	{"encrypt", (*chaos).encrypt},
	{"decrypt", (*chaos).decrypt},
}

func (c *chaos) operate(t *testing.T) {
	for range 1 + c.rng.IntN(4) {
		op := chaosOperations[c.rng.IntN(len(chaosOperations))]
		if op.do(c, t) {
			c.done[op.name]++
		}
	}
}

// ask runs a command with little patience: a Region may be down.
func (c *chaos) ask(stdin []byte, region string, args ...string) ([]byte, error) {
	return shared.keyferry(stdin, append(args, "--region", region, "--timeout", "5s")...)
}

func pick[T any](c *chaos, from []T) T { return from[c.rng.IntN(len(from))] }

func (c *chaos) create(t *testing.T) bool {
	region := pick(c, regions)
	out, err := c.ask(nil, region, "key", "create", "--multi-region")
	if err != nil {
		return false
	}
	c.keys = append(c.keys, &chaosKey{id: strings.TrimSpace(string(out)), primary: region, members: []string{region}})
	return true
}

func (c *chaos) replicate(t *testing.T) bool {
	if len(c.keys) == 0 {
		return false
	}
	k, to := pick(c, c.keys), pick(c, regions)
	if slices.Contains(k.members, to) {
		return false
	}
	if _, err := c.ask(nil, k.primary, "key", "replicate", k.id, "--to", to); err != nil {
		return false
	}
	k.members = append(k.members, to)
	return true
}

func (c *chaos) encrypt(t *testing.T) bool {
	if len(c.keys) == 0 {
		return false
	}
	k := pick(c, c.keys)
	plaintext := fmt.Appendf(nil, "secret %d", len(c.sealed))
	out, err := c.ask(plaintext, pick(c, k.members), "encrypt", k.id)
	if err != nil {
		return false
	}
	c.sealed = append(c.sealed, sealed{k, out, plaintext})
	return true
}

// decrypt opens a ciphertext somewhere. A Region may be unable to, but not say another text.
func (c *chaos) decrypt(t *testing.T) bool {
	if len(c.sealed) == 0 {
		return false
	}
	s := pick(c, c.sealed)
	region := pick(c, s.key.members)
	got, err := c.ask(s.ciphertext, region, "decrypt")
	if err == nil && !bytes.Equal(got, s.plaintext) {
		t.Errorf("%s decrypts %q to %q", region, s.plaintext, got)
	}
	return err == nil
}

// disturb breaks something: the process of a Region, or a way between two.
func (c *chaos) disturb(t *testing.T) {
	region, other := pick(c, regions), pick(c, regions)
	if l := c.links[[2]string{region, other}]; l != nil {
		l.set(pick(c, []fault{{}, {cut: true}, {deaf: true}, {delay: 5 * time.Millisecond}}))
		c.cuts++
	}
	time.Sleep(time.Duration(c.rng.IntN(120)) * time.Millisecond)
	c.end(region)
	c.kills++
	if c.rng.IntN(3) == 0 {
		c.operate(t) // with the Region dark
	}
	c.start(t, region)
}

func (c *chaos) heal(t *testing.T) {
	for _, l := range c.links {
		l.set(fault{})
	}
}

// settle waits until every Region agrees, and opens everything everywhere.
func (c *chaos) settle(t *testing.T) {
	for _, k := range c.keys {
		for _, r := range k.members {
			if r != k.primary {
				shared.awaitSynchronized(t, k.id, k.primary, r)
			}
			eventually(t, 60*time.Second, func() (string, bool) {
				out, err := c.ask(nil, r, "key", "show", k.id)
				return fmt.Sprintf("%s in %s: %s %v", k.id, r, out, err), err == nil && bytes.Contains(out, []byte("Enabled"))
			})
		}
	}
	for _, s := range c.sealed {
		for _, r := range s.key.members {
			if got, err := c.ask(s.ciphertext, r, "decrypt"); err != nil || !bytes.Equal(got, s.plaintext) {
				t.Errorf("%s does not open a ciphertext of %s: %q, %v", r, s.key.id, got, err)
			}
		}
	}
}
