package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/keyferry/keyferry/cmd/internal/config"
)

const (
	alice = "arn:aws:iam::111122223333:user/alice"
	bob   = "arn:aws:iam::111122223333:user/bob"
)

// attached is an identities file with one statement.
func attached(to string) string {
	return `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "` + to + `"}, "Action": "kms:*", "Resource": "*"}]}`
}

func TestIdentityPoliciesFollowTheirFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identities.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(attached(alice))
	log, hook := logtest.NewNullLogger()
	d := &daemon{config: &config.Config{IdentityPolicies: path}, log: log}
	if err := d.readIdentities(t.Context()); err != nil {
		t.Fatal(err)
	}
	inForce := d.identityPolicies()
	// who demands who has policies once the daemon has looked at the file.
	who := func(when string, want ...string) {
		t.Helper()
		d.files.Check(t.Context(), false)
		var got []string
		for _, p := range []string{alice, bob} {
			if len(inForce().For(p)) > 0 {
				got = append(got, p)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: policies are attached to %v, want %v", when, got, want)
		}
	}
	who("at first", alice)
	write(attached(bob))
	who("after a change", bob)
	write(attached(alice)[:60])
	who("half written", bob)
	write(strings.Replace(attached(alice), "Resource", "Resources", 1))
	who("wrong", bob)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	who("missing", bob)
	raised := 0
	for _, e := range hook.AllEntries() {
		if e.Message == "alarm raised" && e.Data["alarm"] == "identity policies" {
			raised++
		}
	}
	if raised < 2 {
		t.Errorf("the alarm was raised %d times for different causes", raised)
	}
	write(attached(alice))
	who("mended", alice)
}

func TestIdentityPoliciesMustBeRightAtTheStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identities.json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	log, _ := logtest.NewNullLogger()
	d := &daemon{config: &config.Config{IdentityPolicies: path}, log: log}
	if err := d.readIdentities(t.Context()); err == nil {
		t.Error("a broken file was taken")
	}
}

func TestWithoutAFileNobodyHasIdentityPolicies(t *testing.T) {
	log, _ := logtest.NewNullLogger()
	d := &daemon{config: &config.Config{}, log: log}
	if err := d.readIdentities(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d.identityPolicies() != nil {
		t.Error("there are some")
	}
}

// TestSIGHUPReadsFilesAgain sends the signal to this process, as an operator would.
func TestSIGHUPReadsFilesAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identities.json")
	if err := os.WriteFile(path, []byte(attached(alice)), 0o600); err != nil {
		t.Fatal(err)
	}
	log, _ := logtest.NewNullLogger()
	d := &daemon{config: &config.Config{IdentityPolicies: path}, log: log}
	if err := d.readIdentities(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	told, done := hangups(), make(chan struct{})
	go func() {
		defer close(done)
		d.files.Run(ctx, time.Hour, told)
	}()
	if err := os.WriteFile(path, []byte(attached(bob)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for range 12_000 {
		if len(d.identityPolicies()().For(bob)) > 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if len(d.identityPolicies()().For(bob)) == 0 {
		t.Error("the file was not read again")
	}
	stop()
	<-done
}
