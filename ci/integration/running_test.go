package integration

import (
	"bufio"
	"context"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// running is a daemon that a test has started, and what it has logged.
type running struct {
	cmd  *exec.Cmd
	read chan struct{} // closed when all that it logged is read

	mu    sync.Mutex
	lines []string
	heard int // lines that await has gone past
}

func (d deployment) start(t *testing.T, region, config string, flags ...string) *running {
	t.Helper()
	p := &running{cmd: d.daemon(context.Background(), region, config, flags...), read: make(chan struct{})}
	out, err := p.cmd.StderrPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, lines.Text())
			p.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.cmd.Process.Kill()
			<-p.read
			p.cmd.Wait()
		}
	})
	return p
}

// await waits for a message in the daemon's log, after the one that was awaited before.
func (p *running) await(t *testing.T, message string) {
	t.Helper()
	eventually(t, patience, func() (string, bool) {
		ended := p.ended() // before looking, so that nothing is missed
		p.mu.Lock()
		defer p.mu.Unlock()
		at := slices.IndexFunc(p.lines[p.heard:], func(line string) bool { return strings.Contains(line, `"msg":"`+message) })
		if at >= 0 {
			p.heard += at + 1
			return "", true
		}
		if ended {
			t.Fatalf("the daemon ended before it said %q:\n%s", message, p.last())
		}
		return "the daemon has not said " + message + ":\n" + p.last(), false
	})
}

func (p *running) ended() bool {
	select {
	case <-p.read:
		return true
	default:
		return false
	}
}

// last returns the end of the log. The caller holds mu.
func (p *running) last() string {
	return strings.Join(p.lines[max(0, len(p.lines)-20):], "\n")
}

// stop tells the daemon to stop, and demands that it does so in order.
func (p *running) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-p.read
	p.cmd.Wait()
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
		t.Errorf("a daemon that was told to stop ended with exit code %d:\n%s", code, p.last())
	}
}
