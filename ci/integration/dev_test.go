package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

func TestUpResumes(t *testing.T) {
	softhsmtest.Used(t)
	d := deployment{dir: filepath.Join(t.TempDir(), "d")}
	t.Cleanup(func() { d.dev("down", "--purge") })
	up := []string{"--dir", d.dir, "up", "--base-port", basePort(), "--regions", paris + "," + virginia}
	for _, after := range []time.Duration{50, 400, 1200, 2500, 4000} {
		ctx, cancel := context.WithTimeout(t.Context(), after*time.Millisecond)
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "keyferry-dev"), up...) // killed when ctx ends
		cmd.Run()
		cancel()
	}
	d.mustDev(t, up[2:]...)
	d.mustDev(t, up[2:]...) // again changes nothing
	key := d.createKey(t, paris)
	d.replicate(t, key, paris, virginia)
	ciphertext := d.must(t, []byte("x"), "encrypt", key, "--region", paris)
	if got := d.must(t, ciphertext, "decrypt", "--region", virginia); string(got) != "x" {
		t.Errorf("decrypted %q", got)
	}
	d.mustDev(t, "down", "--purge")
	if left := d.processes(); len(left) > 0 {
		t.Errorf("left running: %v", left)
	}
	if _, err := os.Stat(d.dir); !os.IsNotExist(err) {
		t.Errorf("left behind: %s, %v", d.dir, err)
	}
	d.mustDev(t, "down", "--purge") // of nothing is no error
}

// TestPageForCI types the commands of the page, and checks that the workflow on it uses
// commands that were typed.
func TestPageForCI(t *testing.T) {
	softhsmtest.Used(t)
	page, err := os.ReadFile("../../docs/ci-with-keyferry.md")
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	script.WriteString("set -eu\n")
	for _, m := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(string(page), -1) {
		script.WriteString(m[1])
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script.String())
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		down := exec.Command(filepath.Join(bin, "keyferry-dev"), "down", "--purge")
		down.Dir = cmd.Dir
		down.Run()
		t.Fatalf("the page's commands: %v\n%s", err, out)
	}
	for _, want := range []string{"the plaintext", "user/bob", `"region":`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the page's commands do not print %q:\n%s", want, out)
		}
	}
	workflow := regexp.MustCompile(`(?m)^ *(?:- )?run: (keyferry.*?)(?: \||$)`).FindAllStringSubmatch(string(page), -1)
	if len(workflow) < 4 {
		t.Errorf("%d commands found in the workflow", len(workflow))
	}
	for _, m := range workflow {
		if typed := strings.ReplaceAll(script.String(), `"$(keyferry-dev env)"`, "keyferry-dev env"); !strings.Contains(typed, m[1]) {
			t.Errorf("the workflow runs %q, which the page does not have elsewhere", m[1])
		}
	}
}
