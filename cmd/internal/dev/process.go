package dev

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/softhsm"
)

// process names one process for good: a PID alone is given again to others.
type process struct {
	PID   int    `json:"pid"`
	Start string `json:"start"` // clock ticks after boot
	Boot  string `json:"boot"`  // the kernel's boot ID
}

// identify returns the process that has this PID now. A zombie is no process any more.
func identify(pid int) (process, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, err
	}
	// pid (comm) state ppid ...: comm may hold spaces and brackets, so count after the last one.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const state, start = 0, 19
	if len(fields) <= start || fields[state] == "Z" || fields[state] == "X" {
		return process{}, os.ErrProcessDone
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return process{}, err
	}
	return process{PID: pid, Start: fields[start], Boot: string(bytes.TrimSpace(boot))}, nil
}

func (p process) running() bool {
	now, err := identify(p.PID)
	return err == nil && now == p
}

// signal sends sig if the process still is the one that it was.
func (p process) signal(sig syscall.Signal) error {
	if !p.running() {
		return os.ErrProcessDone
	}
	return syscall.Kill(p.PID, sig)
}

// wait waits until the process has ended.
func (p process) wait(limit time.Duration) bool {
	for deadline := time.Now().Add(limit); p.running(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// process returns the daemon of a Region and whether it runs.
func (d *Deployment) process(r region.Name) (process, bool) {
	var p process
	if err := readJSON(d.in(r, "keyferryd.pid"), &p); err == nil && p.running() {
		return p, true
	}
	return d.strayed(r)
}

// strayed finds a daemon whose PID file was not written, because keyferry-dev was killed
// just after it had started it. The command line names the one configuration file.
func (d *Deployment) strayed(r region.Name) (process, bool) {
	want := strings.Join(d.daemonArgs(r), "\x00") + "\x00"
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline") // fails for malformed patterns only
	for _, name := range lines {
		if line, err := os.ReadFile(name); err != nil || string(line) != want {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			continue
		}
		if p, err := identify(pid); err == nil {
			return p, writeJSON(d.in(r, "keyferryd.pid"), p) == nil
		}
	}
	return process{}, false
}

func (d *Deployment) daemonArgs(r region.Name) []string {
	return []string{d.bin.Daemon, "run", "--config", d.in(r, "keyferryd.yaml")}
}

// launch starts the daemon of a Region in a session of its own, so that neither this
// process nor its terminal ends it, and with nothing in its environment but where the
// token is.
func (d *Deployment) launch(r region.Name, token softhsm.Token) (process, error) {
	log, err := os.OpenFile(d.in(r, "keyferryd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return process{}, err
	}
	defer log.Close()
	args := d.daemonArgs(r)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = d.in(r)
	cmd.Env = tokenEnv(token)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return process{}, fmt.Errorf("starting the daemon of %s: %w", r, err)
	}
	go cmd.Wait() // it is a zombie otherwise, if it ends before this process
	p, err := identify(cmd.Process.Pid)
	if err != nil {
		return process{}, fmt.Errorf("daemon of %s: %w\n%s", r, errEnded, d.logTail(r))
	}
	if err := writeJSON(d.in(r, "keyferryd.pid"), p); err != nil {
		return process{}, errors.Join(err, p.signal(syscall.SIGKILL))
	}
	return p, nil
}

var errEnded = errors.New("it ended at once")

// logTail returns the last lines of a daemon's log, for a message about its end.
func (d *Deployment) logTail(r region.Name) string {
	data, _ := os.ReadFile(d.in(r, "keyferryd.log"))
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// Stop stops the daemon of one Region and waits until it is gone. A daemon that does not
// stop when asked is killed. With kill it is killed without being asked.
func (d *Deployment) Stop(r region.Name, kill bool) error {
	if _, err := d.region(r); err != nil {
		return err
	}
	p, running := d.process(r)
	if !running {
		d.say("%s is not running", r)
		return nil
	}
	steps := []struct {
		sig   syscall.Signal
		limit time.Duration
	}{{syscall.SIGTERM, 20 * time.Second}, {syscall.SIGKILL, 5 * time.Second}}
	if kill {
		steps = steps[1:]
	}
	for _, s := range steps {
		if err := p.signal(s.sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stopping %s, process %d: %w", r, p.PID, err)
		}
		if p.wait(s.limit) {
			d.say("%s stopped (process %d, %s)", r, p.PID, s.sig)
			return os.Remove(d.in(r, "keyferryd.pid"))
		}
	}
	return fmt.Errorf("stopping %s: process %d does not end", r, p.PID)
}

// Down stops every daemon of the deployment.
func (d *Deployment) Down() error {
	unlock, err := lock(d.path("lock"))
	if err != nil {
		return err
	}
	defer unlock()
	var all []error
	for _, r := range d.Regions() {
		all = append(all, d.Stop(r, false))
	}
	return errors.Join(all...)
}
