package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	paris    = "eu-paris-1"
	virginia = "us-east-1"
	tokyo    = "ap-tokyo-1"
)

// shared is the deployment of three Regions on which the tests run.
var shared deployment

var regions = []string{paris, virginia, tokyo}

// bin is the directory of the programs under test.
var bin string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "keyferry-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	bin = filepath.Join(dir, "bin")
	build := exec.Command("go", "build", "-o", bin+"/", "./cmd/...")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the programs: %v\n%s", err, out)
		return 1
	}
	shared = deployment{dir: filepath.Join(dir, "deployment")}
	defer func() {
		out, err := shared.dev("down", "--purge")
		if left := shared.processes(); err != nil || len(left) > 0 {
			fmt.Fprintf(os.Stderr, "taking the deployment down: %v\n%s\nleft running: %v\n", err, out, left)
			code = 1
		}
		os.RemoveAll(dir)
	}()
	if out, err := shared.dev("up", "--base-port", basePort()); err != nil {
		fmt.Fprintf(os.Stderr, "keyferry-dev up: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

var deployments atomic.Int64

// basePort returns where the ports of a new deployment begin. Without it keyferry-dev takes
// free ones, among them some that a deployment made at the same time is yet to listen on.
func basePort() string {
	const each, most, processes = 4 * 5, 12, 50 // ports of five Regions; 20,000 to 31,999
	return strconv.Itoa(20_000 + each*(most*(os.Getpid()%processes)+int(deployments.Add(1)-1)%most))
}

// deployment is one made by keyferry-dev in a directory.
type deployment struct{ dir string }

func (d deployment) dev(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(bin, "keyferry-dev"), append([]string{"--dir", d.dir}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (d deployment) mustDev(t *testing.T, args ...string) string {
	t.Helper()
	out, err := d.dev(args...)
	if err != nil {
		t.Fatalf("keyferry-dev %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// in is a path in a Region's directory.
func (d deployment) in(region string, elem ...string) string {
	return filepath.Join(append([]string{d.dir, "regions", region}, elem...)...)
}

// processes lists the processes whose command lines name the deployment, but keyferry-dev.
func (d deployment) processes() []string {
	var left []string
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range all {
		line, _ := os.ReadFile(name)
		if bytes.Contains(line, []byte(d.dir+"/")) {
			left = append(left, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return left
}

// regionStatus is what keyferry-dev status --json says of a Region.
type regionStatus struct {
	Region  string `json:"region"`
	GRPC    string `json:"grpc"`
	REST    string `json:"rest"`
	PID     int    `json:"pid"`
	Serving bool   `json:"serving"`
	Token   string `json:"token_serial"`
}

func (d deployment) status(t *testing.T) map[string]regionStatus {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "keyferry-dev"), "--dir", d.dir, "status", "--json")
	out, _ := cmd.Output() // fails when a Region is down, which the caller sees in the answer
	var all []regionStatus
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatalf("keyferry-dev status: %v\n%s", err, out)
	}
	byName := map[string]regionStatus{}
	for _, s := range all {
		byName[s.Region] = s
	}
	return byName
}

// serving waits until a Region serves, and returns its status.
func (d deployment) serving(t *testing.T, region string) regionStatus {
	t.Helper()
	var s regionStatus
	eventually(t, patience, func() (string, bool) {
		s = d.status(t)[region]
		return fmt.Sprintf("%+v", s), s.Serving
	})
	return s
}

// keyferry runs the command line as admin, with stdin, and returns its standard output.
func (d deployment) keyferry(stdin []byte, args ...string) ([]byte, error) {
	cmd := exec.Command(filepath.Join(bin, "keyferry"), append([]string{"--timeout", patience.String()}, args...)...)
	cmd.Env = append(os.Environ(), "KEYFERRY_CONFIG="+filepath.Join(d.dir, "clients", "admin", "config.yaml"))
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("keyferry %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

func (d deployment) must(t *testing.T, stdin []byte, args ...string) []byte {
	t.Helper()
	out, err := d.keyferry(stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (d deployment) createKey(t *testing.T, region string, args ...string) string {
	t.Helper()
	out := d.must(t, nil, append([]string{"key", "create", "--multi-region", "--region", region}, args...)...)
	return strings.TrimSpace(string(out))
}

func (d deployment) replicate(t *testing.T, key, from, to string) {
	t.Helper()
	d.must(t, nil, "key", "replicate", key, "--region", from, "--to", to, "--wait")
}

// replica is one row of keyferry key replicas --json.
type replica struct {
	Region       string `json:"region"`
	Status       string `json:"status"`
	FailureCause string `json:"failureCause"`
	Attempts     int    `json:"attempts"`
}

// replica returns how a Region sees the replica in another.
func (d deployment) replica(t *testing.T, key, from, of string) replica {
	t.Helper()
	var answer struct{ Replicas []replica }
	out := d.must(t, nil, "key", "replicas", key, "--region", from, "--json")
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatalf("keyferry key replicas: %v\n%s", err, out)
	}
	for _, r := range answer.Replicas {
		if r.Region == of {
			return r
		}
	}
	t.Fatalf("%s does not list %s among the replicas of %s: %s", from, of, key, out)
	return replica{}
}

// material returns the ID of the key material with which a Region encrypts.
func (d deployment) material(t *testing.T, key, region string) string {
	t.Helper()
	for line := range strings.Lines(string(d.must(t, nil, "key", "show", key, "--region", region))) {
		if id, ok := strings.CutPrefix(line, "material ID"); ok {
			return strings.TrimSpace(id)
		}
	}
	return ""
}

// patience is how long anything may take on a machine that has much else to do.
const patience = 3 * time.Minute

// eventually waits until the condition holds. The text says what was last seen.
func eventually(t *testing.T, limit time.Duration, condition func() (seen string, ok bool)) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		seen, ok := condition()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %s", limit, seen)
		}
	}
}

func (d deployment) awaitSynchronized(t *testing.T, key, from, of string) {
	t.Helper()
	eventually(t, patience, func() (string, bool) {
		r := d.replica(t, key, from, of)
		return fmt.Sprintf("replica of %s in %s: %+v", key, of, r), r.Status == "REPLICATION_STATUS_SYNCHRONIZED"
	})
}
