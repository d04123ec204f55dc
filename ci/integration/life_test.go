package integration

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/transport"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// lives is a deployment whose Regions come and go, as docs/region-life.md tells it.
type lives struct {
	deployment
	*typist
	t       *testing.T
	daemons map[string]*running // those that this test has started
	pids    map[string]int      // those that keyferry-dev has started
	sets    int
}

func newLives(t *testing.T, d deployment) *lives {
	l := &lives{deployment: d, typist: newTypist(t, d, "region-life.md"), t: t, daemons: map[string]*running{}, pids: map[string]int{}}
	for name, s := range d.status(t) {
		l.pids[name] = s.PID
	}
	return l
}

// configured writes a Region's configuration with other peers, and returns its path.
func (l *lives) configured(name, file string, peers map[string]string) string {
	l.t.Helper()
	data, err := os.ReadFile(l.in(name, "keyferryd.yaml"))
	if err != nil {
		l.t.Fatal(err)
	}
	var c map[string]any
	if err := yaml.Unmarshal(data, &c); err != nil {
		l.t.Fatal(err)
	}
	section := c["peers"].(map[string]any)
	own := section["listen"].(string)
	addresses := map[string]string{}
	for peer, address := range peers {
		if peer != name && address != own {
			addresses[peer] = address
		}
	}
	section["addresses"] = addresses
	if data, err = yaml.Marshal(c); err == nil {
		err = os.WriteFile(l.in(name, file), data, 0o600)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return l.in(name, file)
}

// stopDaemon stops whichever daemon serves a Region.
func (l *lives) stopDaemon(name string) {
	l.t.Helper()
	if d := l.daemons[name]; d != nil {
		d.stop(l.t)
		delete(l.daemons, name)
		return
	}
	if err := syscall.Kill(l.pids[name], syscall.SIGTERM); err != nil {
		l.t.Fatal(err)
	}
	eventually(l.t, patience, func() (string, bool) {
		return "the daemon of " + name + " does not end", !alive(l.pids[name])
	})
}

// startDaemon starts one, and waits until it serves.
func (l *lives) startDaemon(name, config string) {
	l.t.Helper()
	d := l.start(l.t, name, config)
	d.await(l.t, "serving")
	l.daemons[name] = d
}

// handOver has a standby with another configuration take over.
func (l *lives) handOver(name, config string) {
	l.t.Helper()
	next := l.start(l.t, name, config, "--standby")
	next.await(l.t, "another daemon serves, waiting as a standby")
	l.stopDaemon(name)
	next.await(l.t, "serving")
	l.daemons[name] = next
}

// hold holds the ceremony for an ordered pair, and returns the name of the set that it made.
func (l *lives) hold(source, destination string) string {
	l.t.Helper()
	l.sets++
	offer, answer := filepath.Join(l.t.TempDir(), fmt.Sprintf("offer-%d.json", l.sets)), filepath.Join(l.t.TempDir(), fmt.Sprintf("package-%d.json", l.sets))
	accepted := make(chan string, 1)
	go func() {
		_, out := l.ceremony(l.t.Context(), destination, "accept", "--from", source, "--offer", offer, "--package", answer,
			"--operator-key", filepath.Join(l.dir, "operators", "dev.key"))
		accepted <- out
	}()
	eventually(l.t, patience, func() (string, bool) {
		select {
		case out := <-accepted:
			l.t.Fatalf("accept ended without an offer:\n%s", out)
		default:
		}
		_, err := os.Stat(offer)
		return "no offer", err == nil
	})
	code, out, err := l.at(l.t.Context(), source, l.shims(source, 0)+fmt.Sprintf("ceremony establish %s --package %s --so-pin-file softhsm/%s.so-pin", offer, answer, source))
	if err != nil || code != 0 {
		l.t.Fatalf("establishing from %s to %s: exit code %d, %v\n%s", source, destination, code, err, out)
	}
	select {
	case <-accepted:
	case <-time.After(patience):
		l.t.Fatalf("%s does not accept the package of %s", destination, source)
	}
	return l.newest(source, destination)
}

// newest returns the name of the newest set that is live at the destination.
func (l *lives) newest(source, destination string) string {
	l.t.Helper()
	set, err := transport.Load(region.Dir(l.in(destination, "region")))
	if err != nil {
		l.t.Fatal(err)
	}
	for _, k := range set.All() {
		if string(k.Name.Source.Region) == source && string(k.Name.Destination.Region) == destination {
			return k.Name.String()
		}
	}
	l.t.Fatalf("%s has no transport keys from %s", destination, source)
	return ""
}

// transcript is the path of the destination's word that it has retired a set.
func (l *lives) transcript(destination, set string) string {
	l.t.Helper()
	all, err := transport.Load(region.Dir(l.in(destination, "region")))
	if err != nil {
		l.t.Fatal(err)
	}
	for _, tr := range all.Transcripts() {
		if tr.Name.String() == set && tr.Event == transport.Retired {
			return filepath.Join(l.in(destination, "region", "transcripts"), tr.File())
		}
	}
	l.t.Fatalf("%s has not retired %s", destination, set)
	return ""
}

// calls are loads in several Regions.
type calls map[string]*load

func (l *lives) call(key string, regions map[string]kmsv1.CryptoServiceClient) calls {
	all := calls{}
	for name, client := range regions {
		all[name] = startCalls(l.t, client, key, 1, 100*time.Millisecond)
	}
	return all
}

// none ends the calls, prints what became of them, and wants none to have failed.
func (c calls) none(t *testing.T, what string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(c)) {
		c[name].answered(t) // it goes on after what was done
		c[name].stop()
		t.Logf("%s: %d of %d calls failed in %s, longest time without an answer %v", what, len(c[name].failed), c[name].calls, name, c[name].gap.Round(time.Millisecond))
		if len(c[name].failed) > 0 {
			t.Errorf("%s: calls failed in %s: %v", what, name, c[name].failed)
		}
	}
}

func (l *lives) verifyAudit(name string) {
	l.t.Helper()
	out, err := exec.Command(filepath.Join(bin, "keyferry"), "audit", "verify", l.in(name, "audit"), "--descriptor", l.in(name, "region", "region.json")).CombinedOutput()
	if err != nil {
		l.t.Errorf("the audit log of %s: %v\n%s", name, err, out)
	}
}
