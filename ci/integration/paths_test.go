package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// TestOpenedPaths traces a daemon from start to stop, while it creates, uses and receives
// keys, and compares every path that it opened with the committed list.
func TestOpenedPaths(t *testing.T) {
	softhsmtest.Used(t)
	shared.mustDev(t, "stop", tokyo)
	t.Cleanup(func() { shared.mustDev(t, "up") })
	trace := filepath.Join(t.TempDir(), "trace")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	inner := shared.daemon(ctx, tokyo, shared.in(tokyo, "keyferryd.yaml"))
	cmd := exec.CommandContext(ctx, "strace", append([]string{"-f", "-qq", "-y", "-s", "4096", "-e", "trace=open,openat,openat2,creat", "-o", trace}, inner.Args...)...)
	cmd.Env, cmd.Dir = inner.Env, shared.in(tokyo)
	cmd.Env = append(cmd.Env, "PATH="+os.Getenv("PATH"))
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, func() (string, bool) {
		_, err := shared.keyferry(nil, "whoami", "--region", tokyo)
		return fmt.Sprint(err), err == nil
	})
	own := shared.createKey(t, tokyo)
	shared.must(t, []byte("x"), "encrypt", own, "--region", tokyo)
	shared.replicate(t, own, tokyo, paris)
	other := shared.createKey(t, paris)
	shared.replicate(t, other, paris, tokyo)
	if err := syscall.Kill(child(t, cmd.Process.Pid), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the traced daemon ended with %v\n%s", err, &log)
	}
	compare(t, opened(t, trace))
}

// child returns the one child process, which is the traced daemon.
func child(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	var found int
	if _, scanErr := fmt.Sscan(string(data), &found); err != nil || scanErr != nil {
		t.Fatalf("children of strace: %q, %v", data, err)
	}
	return found
}

// With -y strace prints the path of the directory that a relative path starts from, and of
// the file that was opened: openat(AT_FDCWD</dir>, "name", ...) = 3</dir/name>.
var success = regexp.MustCompile(`= \d+<([^>]+)>$`)

var process = regexp.MustCompile(`^/proc/\d+/`)

// opened lists the paths that were opened, once each, with what differs from run to run
// replaced.
func opened(t *testing.T, trace string) []string {
	t.Helper()
	data, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range []struct{ path, name string }{{shared.in(tokyo), "$REGION"}, {shared.dir, "$DEPLOYMENT"}, {bin, "$BIN"}} {
		path, err := filepath.EvalSymlinks(n.path)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, path, n.name)
	}
	shorten := strings.NewReplacer(names...)
	var paths []string
	for line := range strings.Lines(string(data)) {
		if m := success.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			paths = append(paths, process.ReplaceAllString(shorten.Replace(m[1]), "/proc/self/"))
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// compare checks that each path matches a line of the list, and that each line has a path,
// but for those with a question mark, which differ between machines. A * stands for any
// name without a slash.
func compare(t *testing.T, paths []string) {
	t.Helper()
	data, err := os.ReadFile("testdata/opened-paths.txt")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	var lines []string
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	for _, path := range paths {
		matched := false
		for _, line := range lines {
			ok, err := filepath.Match(strings.TrimPrefix(line, "? "), path)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if ok {
				used[line], matched = true, true
			}
		}
		if !matched {
			t.Errorf("the daemon opened %s, which is not in testdata/opened-paths.txt", path)
		}
	}
	for _, line := range lines {
		if !used[line] && !strings.HasPrefix(line, "? ") {
			t.Errorf("the daemon did not open %s of testdata/opened-paths.txt", line)
		}
	}
}
