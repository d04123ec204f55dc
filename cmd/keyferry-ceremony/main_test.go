package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/softhsm"
)

// A ceremony is a process of its own, so the tests run this binary as the tool.
const mainEnv = "KEYFERRY_CEREMONY_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		os.Exit(run())
	}
	os.Exit(m.Run())
}

// place is one Region: a token, a directory and its operators' keys.
type place struct {
	t         *testing.T
	name      region.Name
	dir       region.Dir
	token     softhsm.Token
	operators []string // private key files
}

// places provisions and initialises Regions that have pinned each other. Each has as many
// operators as threshold, and needs all of them.
func places(t *testing.T, threshold int, names ...string) []place {
	t.Helper()
	tokens, err := softhsm.Provision(t.Context(), filepath.Join(t.TempDir(), "store"), names...)
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	var all []place
	serials := map[string]string{}
	for i, n := range names {
		p := place{t: t, name: region.Name(n), dir: region.Dir(filepath.Join(work, n)), token: tokens[i]}
		if other, ok := serials[tokens[i].Serial]; ok {
			t.Fatalf("%s and %s have one token", n, other)
		}
		serials[tokens[i].Serial] = n
		roster := fmt.Sprintf("threshold: %d\noperators:\n", threshold)
		for o := range threshold {
			key := filepath.Join(work, fmt.Sprintf("%s-operator-%d", n, o))
			p.must("operator-key", key)
			p.operators = append(p.operators, key)
			roster += fmt.Sprintf("  - name: operator-%d\n    key: %s.pub\n", o, key)
		}
		file := filepath.Join(work, n+".yaml")
		if err := os.WriteFile(file, []byte(roster), 0o600); err != nil {
			t.Fatal(err)
		}
		p.must("init", "--region", n, "--operators", file)
		all = append(all, p)
	}
	for _, p := range all {
		for _, q := range all {
			if p.name != q.name {
				d, err := q.dir.LoadOwn()
				if err != nil {
					t.Fatal(err)
				}
				p.must("pin", q.dir.Own(), "--yes", "--fingerprint", d.Fingerprint())
			}
		}
	}
	return all
}

// command is the tool beside this Region's token.
func (p place) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], append(args, "--region-dir", string(p.dir), "--module", p.token.Module,
		"--token", p.token.Label, "--pin-file", p.token.PINFile, "--profile", "softhsm2")...)
	cmd.Env = append(os.Environ(), mainEnv+"=1", softhsm.ConfEnv+"="+p.token.Conf)
	return cmd
}

// run runs the tool to its end and returns what it said and its exit code.
func (p place) run(args ...string) (string, int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 3*time.Minute)
	defer cancel()
	out, err := p.command(ctx, args...).CombinedOutput()
	p.checkSaid(out)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	if exit != nil {
		return string(out), exit.ExitCode()
	}
	return string(out), 0
}

// checkSaid fails if a PIN is in the output.
func (p place) checkSaid(out []byte) {
	p.t.Helper()
	for _, file := range []string{p.token.PINFile, p.token.SOPINFile} {
		pin, err := os.ReadFile(file)
		if err != nil {
			p.t.Fatal(err)
		}
		if bytes.Contains(out, bytes.TrimSpace(pin)) {
			p.t.Errorf("the PIN of %s was printed", file)
		}
	}
}

func (p place) must(args ...string) string {
	p.t.Helper()
	out, code := p.run(args...)
	if code != 0 {
		p.t.Fatalf("%s at %s: exit %d\n%s", args[0], p.name, code, out)
	}
	return out
}

// refuses runs the tool and wants exit code 1 and an error that says why.
func (p place) refuses(why string, args ...string) {
	p.t.Helper()
	out, code := p.run(args...)
	if code != 1 || !strings.Contains(out, why) {
		p.t.Errorf("%s at %s: exit %d, want 1 and %q:\n%s", args[0], p.name, code, why, out)
	}
}

// accepting is a waiting accept process.
type accepting struct {
	place
	cmd           *exec.Cmd
	out           *syncBuffer
	offer, answer string
}

// accept starts an accept and waits until its offer is written. The operators approve in
// the process unless extra says otherwise.
func (p place) accept(from place, extra ...string) *accepting {
	p.t.Helper()
	a := p.startAccept(from, append(p.keyFlags(), extra...)...)
	a.awaitFile(a.offer)
	a.awaitSaid("waiting for " + a.answer)
	return a
}

func (p place) keyFlags() (flags []string) {
	for _, k := range p.operators {
		flags = append(flags, "--operator-key", k)
	}
	return flags
}

func (p place) startAccept(from place, extra ...string) *accepting {
	p.t.Helper()
	work := p.t.TempDir()
	a := &accepting{place: p, out: &syncBuffer{}, offer: filepath.Join(work, "offer.json"), answer: filepath.Join(work, "package.json")}
	a.cmd = p.command(p.t.Context(), append([]string{"accept", "--from", string(from.name), "--offer", a.offer, "--package", a.answer}, extra...)...)
	a.cmd.Stdout, a.cmd.Stderr = a.out, a.out
	if err := a.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = a.cmd.Process.Kill(); _ = a.cmd.Wait() })
	return a
}

func (a *accepting) await(what string, ready func() bool) {
	a.t.Helper()
	for end := time.Now().Add(3 * time.Minute); !ready(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			a.t.Fatalf("waiting for %s:\n%s", what, a.out)
		}
	}
}

func (a *accepting) awaitFile(path string) {
	a.t.Helper()
	a.await(path, func() bool { _, err := os.Stat(path); return err == nil })
}

func (a *accepting) awaitSaid(text string) {
	a.t.Helper()
	a.await(text, func() bool { return strings.Contains(a.out.String(), text) })
}

// fingerprint is what the destination's operator reads out.
func (a *accepting) fingerprint() string {
	a.t.Helper()
	for _, line := range strings.Split(a.out.String(), "\n") {
		if f, ok := strings.CutPrefix(line, "offer fingerprint "); ok {
			return f
		}
	}
	a.t.Fatalf("no fingerprint was printed:\n%s", a.out)
	return ""
}

// establish answers the offer at the source.
func (a *accepting) establish(source place) {
	a.t.Helper()
	source.must(a.establishArgs(source)...)
}

func (a *accepting) establishArgs(source place) []string {
	return []string{"establish", a.offer, "--package", a.answer, "--so-pin-file", source.token.SOPINFile, "--yes", "--fingerprint", a.fingerprint()}
}

// ends waits for the process and wants this exit code and, if it is not 0, this reason.
func (a *accepting) ends(code int, why string) {
	a.t.Helper()
	_ = a.cmd.Wait()
	a.checkSaid([]byte(a.out.String()))
	if got := a.cmd.ProcessState.ExitCode(); got != code || !strings.Contains(a.out.String(), why) {
		a.t.Errorf("accept at %s: exit %d, want %d and %q:\n%s", a.name, got, code, why, a.out)
	}
}

// hold establishes one transport key set.
func hold(source, destination place) *accepting {
	source.t.Helper()
	a := destination.accept(source)
	a.establish(source)
	a.ends(0, "no wrapping, unwrapping or trusted object is unknown")
	return a
}

// randomFile writes a key of known bytes.
func randomFile(t *testing.T, n int) string {
	t.Helper()
	b := make([]byte, n)
	rand.Read(b)
	path := filepath.Join(t.TempDir(), "bytes")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// syncBuffer collects a process's output while the test reads it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
