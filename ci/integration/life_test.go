package integration

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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
	t       *testing.T
	page    map[string]int      // its commands, and how often each was typed
	codes   map[string]int      // the exit codes that they promise
	daemons map[string]*running // those that this test has started
	pids    map[string]int      // those that keyferry-dev has started
	sets    int
}

func newLives(t *testing.T, d deployment) *lives {
	l := &lives{deployment: d, t: t, page: map[string]int{}, codes: map[string]int{}, daemons: map[string]*running{}, pids: map[string]int{}}
	for _, c := range commandsOf(t, "region-life.md") {
		l.page[c.line], l.codes[c.line] = 0, c.code
	}
	for name, s := range d.status(t) {
		l.pids[name] = s.PID
	}
	return l
}

// typed runs a command of the page in a Region. with says what stands for what in it.
func (l *lives) typed(region, line string, with ...string) string {
	l.t.Helper()
	l.mark(line)
	command := strings.NewReplacer(with...).Replace(line)
	code, out, err := l.at(l.t.Context(), region, l.shims(region, 0)+command)
	if err != nil || code != l.codes[line] {
		l.t.Fatalf("%s: %s: exit code %d, want %d, %v\n%s", region, command, code, l.codes[line], err, out)
	}
	return out
}

// mark notes a command that is typed by other means.
func (l *lives) mark(line string) {
	l.t.Helper()
	if _, ok := l.page[line]; !ok {
		l.t.Fatalf("the page has no command %q", line)
	}
	l.page[line]++
}

// refused runs a command that must fail, and say why.
func (l *lives) refused(region, command, why string) {
	l.t.Helper()
	code, out, err := l.at(l.t.Context(), region, l.shims(region, 0)+command)
	if err != nil || code == 0 || !strings.Contains(out, why) {
		l.t.Errorf("%s: %s: exit code %d, %v, want a refusal with %q:\n%s", region, command, code, err, why, out)
	}
}

// untyped lists the commands of the page that nobody has typed.
func (l *lives) untyped() []string {
	return slices.Sorted(func(yield func(string) bool) {
		for line, n := range l.page {
			if n == 0 && !yield(line) {
				return
			}
		}
	})
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

// link makes files of one Region visible in the directory of another, by the names that the
// page has.
func (l *lives) link(in, from, to string) {
	l.t.Helper()
	if err := os.MkdirAll(filepath.Dir(l.in(in, to)), 0o700); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Symlink(from, l.in(in, to)); err != nil && !os.IsExist(err) {
		l.t.Fatal(err)
	}
}

func (l *lives) verifyAudit(name string) {
	l.t.Helper()
	out, err := exec.Command(filepath.Join(bin, "keyferry"), "audit", "verify", l.in(name, "audit"), "--descriptor", l.in(name, "region", "region.json")).CombinedOutput()
	if err != nil {
		l.t.Errorf("the audit log of %s: %v\n%s", name, err, out)
	}
}
