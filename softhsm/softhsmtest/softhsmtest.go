// Package softhsmtest gives the tests of one package real SoftHSM tokens.
//
// The module reads its configuration once per process, so the tokens of a package are made
// together, before its tests run:
//
//	func TestMain(m *testing.M) { os.Exit(softhsmtest.Main(m, "paris", "tokyo")) }
//
// Tests share tokens and must leave the objects of others alone.
package softhsmtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/softhsm"
)

var tokens = map[string]softhsm.Token{}

// Main provisions the tokens in a temporary directory, sets SOFTHSM2_CONF, runs the tests
// and removes the directory. A machine without SoftHSM fails the run.
func Main(m *testing.M, labels ...string) (code int) {
	return MainWith(m, func() error { return nil }, labels...)
}

// MainWith is Main with something to do between provisioning and the tests, such as a
// ceremony, for which no user may be logged in yet.
func MainWith(m *testing.M, before func() error, labels ...string) (code int) {
	dir, err := tempDir()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	made, err := softhsm.Provision(context.Background(), dir, labels...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, t := range made {
		tokens[t.Label] = t
		os.Setenv(softhsm.ConfEnv, t.Conf)
	}
	if err := before(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Named returns a token that Main made; naming another panics.
func Named(label string) softhsm.Token {
	tok, ok := tokens[label]
	if !ok {
		panic(fmt.Sprintf("token %q was not named in softhsmtest.Main", label))
	}
	return tok
}

// Store provisions tokens in a directory of the test's own, for child processes.
func Store(t testing.TB, labels ...string) []softhsm.Token {
	t.Helper()
	dir, err := tempDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	made, err := softhsm.Provision(t.Context(), dir, labels...)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// Used notes that a test uses a real token, for the count that make test prints and that
// must not be zero: it appends a line to the file that KEYFERRY_TOKEN_TESTS names, if any.
func Used(t testing.TB) {
	t.Helper()
	name := os.Getenv("KEYFERRY_TOKEN_TESTS")
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintf(f, "%s.%s\n", strings.TrimSuffix(filepath.Base(os.Args[0]), ".test"), t.Name())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// tempDir prefers memory to a disk: SoftHSM truncates and rewrites an object's file some
// thirty times to make it, which costs 5 ms in memory and up to 80 ms on a busy disk.
func tempDir() (string, error) {
	const memory = "/dev/shm"
	if info, err := os.Stat(memory); err == nil && info.IsDir() {
		if dir, err := os.MkdirTemp(memory, "keyferry-softhsm-"); err == nil {
			return dir, nil
		}
	}
	return os.MkdirTemp("", "keyferry-softhsm-")
}
