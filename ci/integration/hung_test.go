package integration

import (
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// TestHungDaemon stops the process that serves as a debugger, or a host that stalls, would: it
// is alive, and keeps its ports and locks. The standby, of the same configuration, takes over
// once the lease has expired, and the audit log has one writer throughout.
func TestHungDaemon(t *testing.T) {
	softhsmtest.Used(t)
	t.Parallel() // it mostly waits
	d := deployment{dir: filepath.Join(t.TempDir(), "d")}
	t.Cleanup(func() { d.dev("down", "--purge") })
	d.mustDev(t, "up", "--base-port", basePort(), "--regions", paris)
	key := d.createKey(t, paris)
	first := d.status(t)[paris]
	standby := d.start(t, paris, d.in(paris, "keyferryd.yaml"), "--standby")
	standby.await(t, "another daemon serves, waiting as a standby")
	l := startLoad(t, d.client(t, first.GRPC), key)
	l.answered(t)
	if err := syscall.Kill(first.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	standby.await(t, "taking over")
	standby.await(t, "the daemon before has not renewed its lease")
	standby.await(t, "serving")
	l.answered(t)
	l.stop()
	t.Logf("hung: %d of %d calls failed, longest time without an answer %v", len(l.failed), l.calls, l.gap)
	// What the hung process had taken has no answer. Nothing else is lost.
	if len(l.failed) > callers {
		t.Errorf("%d calls failed, and %d were in flight: %v", len(l.failed), callers, l.failed)
	}
	// It wakes up, if it is still there.
	if err := syscall.Kill(first.PID, syscall.SIGCONT); err == nil && d.status(t)[paris].PID == first.PID {
		t.Error("the hung process was not ended")
	}
	d.createKey(t, paris)
	standby.stop(t)
	out, err := exec.Command(filepath.Join(bin, "keyferry"), "audit", "verify", d.in(paris, "audit"), "--descriptor", d.in(paris, "region", "region.json")).CombinedOutput()
	if err != nil {
		t.Errorf("the audit log: %v\n%s", err, out)
	}
}
