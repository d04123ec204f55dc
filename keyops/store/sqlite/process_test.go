package sqlite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/store"
)

// roles are what this test binary does when it is started as another process.
var roles = map[string]func(path string) error{
	"writer":   roleWriter,
	"big file": roleBigFile,
}

func TestMain(m *testing.M) {
	if role := roles[os.Getenv("SQLITE_TEST_ROLE")]; role != nil {
		if err := role(os.Getenv("SQLITE_TEST_PATH")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func command(t *testing.T, role, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SQLITE_TEST_ROLE="+role, "SQLITE_TEST_PATH="+path)
	cmd.Stderr = os.Stderr
	return cmd
}

// roleWriter takes the lease for an hour and writes rows until it is killed, each printed
// once it is durable.
func roleWriter(path string) error {
	s, err := Open(context.Background(), Config{Path: path})
	if err != nil {
		return err
	}
	if _, err := s.AcquireLease(context.Background(), "child", time.Hour); err != nil {
		return err
	}
	for i := 0; ; i++ {
		id := fmt.Sprintf("k%06d", i)
		if err := put(s, id, 5000); err != nil {
			return err
		}
		fmt.Println(id)
	}
}

func TestKilledWriter(t *testing.T) {
	path := mustCreate(t)
	standby := mustOpen(t, path)
	cmd := command(t, "writer", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var durable []string
	for lines.Scan() {
		durable = append(durable, lines.Text())
		if len(durable) == 1 {
			_, err := standby.AcquireLease(context.Background(), "standby", time.Minute)
			if !errors.Is(err, store.ErrLeaseHeld) {
				t.Errorf("while the writer lives: got %v, want %v", err, store.ErrLeaseHeld)
			}
		}
		if len(durable) == 20 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the writer ended with %v, want killed", err)
	}

	// The lease has an hour to go; the kernel says that its holder is gone.
	if _, err := standby.AcquireLease(context.Background(), "standby", time.Minute); err != nil {
		t.Fatalf("after the writer's death: %v", err)
	}
	got := ids(t, standby)
	if extra := len(got) - len(durable); extra < 0 || extra > 1 {
		t.Fatalf("got %d rows, want the %d that were answered, and at most the one under way", len(got), len(durable))
	}
	if diff := cmp.Diff(durable, got[:len(durable)]); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if err := put(standby, "after", 1); err != nil {
		t.Error(err)
	}
}

// roleBigFile writes until the kernel refuses to let the log grow, which SQLite sees as an
// I/O error in the midst of a commit.
func roleBigFile(path string) error {
	ctx := context.Background()
	signal.Ignore(syscall.SIGXFSZ)
	s, err := Open(ctx, Config{Path: path})
	if err != nil {
		return err
	}
	if _, err := s.AcquireLease(ctx, "child", time.Hour); err != nil {
		return err
	}
	if err := put(s, "before", 1000); err != nil {
		return err
	}
	info, err := os.Stat(path + "-wal")
	if err != nil {
		return err
	}
	limit := syscall.Rlimit{Cur: uint64(info.Size()) + 50_000, Max: 1 << 40}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	if err := put(s, "lost", 100_000); !errors.Is(err, store.ErrOutcomeUnknown) {
		return fmt.Errorf("writing over the limit: got %v, want %v", err, store.ErrOutcomeUnknown)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	if err := put(s, "after", 1); !errors.Is(err, store.ErrClosed) {
		return fmt.Errorf("writing after an unknown outcome: got %v, want %v", err, store.ErrClosed)
	}
	err = s.View(ctx, func(store.Tx) error { return nil })
	if !errors.Is(err, store.ErrClosed) {
		return fmt.Errorf("reading after an unknown outcome: got %v, want %v", err, store.ErrClosed)
	}
	return s.Close()
}

func TestOutcomeUnknown(t *testing.T) {
	path := mustCreate(t)
	if out, err := command(t, "big file", path).Output(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := mustOpen(t, path)
	mustLease(t, s)
	if got := ids(t, s); len(got) == 0 || got[0] != "before" {
		t.Errorf("got rows %v, want at least the one written before", got)
	}
	if err := put(s, "after", 1); err != nil {
		t.Error(err)
	}
}
