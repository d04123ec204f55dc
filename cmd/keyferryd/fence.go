package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A daemon that hangs loses the lease, and with it the right to write to the store; but it
// keeps its ports and the lock on the audit log until its process ends, and would go on
// writing there when it wakes up. So the standby that has the lease ends it.

const (
	// endsBy is how long a daemon that lost the lease has to end by itself: one that was
	// killed or that closes is gone within that.
	endsBy = 2 * time.Second
	// endedBy is how long the kernel has to end one that was killed. One that waits for a disk
	// ends when the disk answers, and a lease has to be renewed before.
	endedBy   = 5 * time.Second
	fencePoll = 20 * time.Millisecond
)

// errHangs means that the daemon before cannot be ended.
var errHangs = errors.New("the daemon that had the lease hangs, and does not end")

// fence waits until nobody holds the lock on the audit log in dir, and ends a daemon that
// has let its lease expire and does not let go of it. Whoever gave the lease back is no such
// daemon, but may be an operator's command.
func (d *daemon) fence(ctx context.Context, dir string) error {
	free, err := unlocked(ctx, dir, endsBy)
	if err == nil && !free && d.hung {
		err = d.endHolder(ctx, dir)
	}
	if err != nil {
		return err
	}
	return d.sameStore() // a restore may have come in between
}

func (d *daemon) endHolder(ctx context.Context, dir string) error {
	pid, end, err := holder(dir)
	if err != nil {
		return fmt.Errorf("looking for the process that holds %s: %w", dir, err)
	}
	if pid != 0 {
		d.log.WithField("pid", pid).Error("the daemon before has not renewed its lease and does not end: it hangs, and is killed")
		if err := end(); err != nil {
			return fmt.Errorf("ending process %d: %w", pid, err)
		}
	}
	free, err := unlocked(ctx, dir, endedBy)
	if err == nil && !free {
		err = fmt.Errorf("%w: process %d", errHangs, pid)
	}
	return err
}

// unlocked waits for the lock on a directory, and leaves it free.
func unlocked(ctx context.Context, dir string, limit time.Duration) (bool, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // the one before has not come to its first start
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	for deadline := time.Now().Add(limit); ; time.Sleep(fencePoll) {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case err == nil:
			return true, nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return false, err
		case ctx.Err() != nil:
			return false, ctx.Err()
		case time.Now().After(deadline):
			return false, nil
		}
	}
}

// holder returns the process that holds the lock on a directory, and what kills it; 0 if
// none can be seen, as in another container. It goes by the lock itself and not by the name
// in the lease: nobody signs that, and a process ID is given again to others.
func holder(dir string) (pid int, end func() error, err error) {
	want, err := os.Stat(dir)
	if err != nil {
		return 0, nil, err
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, nil, err
	}
	for _, p := range processes {
		pid, err := strconv.Atoi(filepath.Base(p))
		if err != nil || pid == os.Getpid() {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0) // before looking, so that it is this process that is killed
		if err != nil {
			continue
		}
		if locks(p, want) {
			return pid, func() error {
				defer unix.Close(fd)
				return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			}, nil
		}
		unix.Close(fd)
	}
	return 0, nil, nil
}

// locks reports whether a process, by its directory in /proc, holds a lock on a file.
func locks(process string, want os.FileInfo) bool {
	files, err := filepath.Glob(process + "/fd/*")
	if err != nil {
		return false
	}
	for _, name := range files {
		if info, err := os.Stat(name); err != nil || !os.SameFile(info, want) {
			continue
		}
		held, err := os.ReadFile(filepath.Join(process, "fdinfo", filepath.Base(name)))
		if err == nil && bytes.Contains(held, []byte("FLOCK")) {
			return true
		}
	}
	return false
}
