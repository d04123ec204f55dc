package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/keyferry/keyferry/cmd/internal/config"
)

// holds is the directory that this process, started by holdLock, is to lock.
const holds = "KEYFERRY_TEST_HOLDS"

// TestHoldLock is no test but the process that hangs with a lock.
func TestHoldLock(t *testing.T) {
	dir := os.Getenv(holds)
	if dir == "" {
		return
	}
	f, err := os.Open(dir)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("held")
	syscall.Kill(os.Getpid(), syscall.SIGSTOP) // may stop this goroutine a little later only
	time.Sleep(time.Hour)
	runtime.KeepAlive(f)
}

// holdLock starts a process that locks a directory and hangs.
func holdLock(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHoldLock$", "-test.v")
	cmd.Env = append(os.Environ(), holds+"="+dir)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() == "held" {
			go io.Copy(io.Discard, out)
			return cmd
		}
	}
	t.Fatal("the process that was to hold the lock has ended")
	return nil
}

// TestFence: who has let its lease expire and keeps the lock is ended; who gave the lease back
// is not.
func TestFence(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	dir, store := t.TempDir(), filepath.Join(t.TempDir(), "store.db")
	if err := os.WriteFile(store, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := &daemon{config: &config.Config{Store: config.Store{Path: store}}, log: log, waited: true}
	var err error
	if d.storeFile, err = os.Stat(store); err != nil {
		t.Fatal(err)
	}
	cmd := holdLock(t, dir)
	if pid, _, err := holder(dir); err != nil || pid != cmd.Process.Pid {
		t.Errorf("process %d holds the lock, %v; it is %d", pid, err, cmd.Process.Pid)
	}
	if err := d.fence(t.Context(), dir); err != nil {
		t.Errorf("one that gave the lease back: %v", err)
	}
	if free, err := unlocked(t.Context(), dir, 0); free || err != nil {
		t.Fatalf("its lock is free: %v, %v", free, err)
	}
	d.hung = true
	if err := d.fence(t.Context(), dir); err != nil {
		t.Fatalf("one that hangs: %v", err)
	}
	if free, err := unlocked(t.Context(), dir, 0); !free || err != nil {
		t.Errorf("its lock is free: %v, %v", free, err)
	}
	cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v", cmd.ProcessState)
	}
	if pid, _, err := holder(dir); pid != 0 || err != nil {
		t.Errorf("process %d holds a lock that nobody holds, %v", pid, err)
	}

	// A restore has put another store there meanwhile.
	if err := errors.Join(os.Rename(store, store+".before"), os.WriteFile(store, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := d.fence(t.Context(), dir); !errors.Is(err, errReplaced) {
		t.Errorf("with another store: %v", err)
	}
	held := holdLock(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := d.fence(ctx, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a standby that is told to stop: %v", err)
	}
	if err := held.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("and it has ended the other: %v", err)
	}
}
