// Command testsummary runs go test with the given arguments and counts what happened.
//
// It prints the output of what failed, one line per package, and a last line
// "N passed, N failed". It also counts the tests that used a PKCS#11 token: each adds its
// name to the file that KEYFERRY_TOKEN_TESTS names. A run in which none did proves nothing
// about tokens, and a skipped test proves nothing at all, so both fail.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const tokenTests = "KEYFERRY_TOKEN_TESTS"

func main() {
	passed, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsummary:", err)
	}
	if err != nil || !passed {
		os.Exit(1)
	}
}

func run(args []string) (bool, error) {
	dir, err := os.MkdirTemp("", "testsummary-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	tokens := filepath.Join(dir, "token-tests")

	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Env = append(os.Environ(), tokenTests+"="+tokens)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	s := summary{out: os.Stdout}
	if err := s.read(events); err != nil {
		return false, err
	}
	failed := cmd.Wait() != nil // which test it was is in the events
	names, err := os.ReadFile(tokens)
	if err != nil && !os.IsNotExist(err) {
		return false, err
	}
	s.countTokens(string(names))
	return s.finish() && !failed, nil
}
