package softhsm_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/softhsm"
)

func TestProvision(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	made, err := softhsm.Provision(t.Context(), dir, "paris", "tokyo")
	if err != nil {
		t.Fatal(err)
	}
	if len(made) != 2 || made[0].Serial == "" || made[0].Serial == made[1].Serial {
		t.Fatalf("tokens %+v: want two with serial numbers of their own", made)
	}
	if made[0].Conf != made[1].Conf {
		t.Errorf("configurations %q and %q: want one", made[0].Conf, made[1].Conf)
	}
	pins := map[string]bool{}
	for _, tok := range made {
		for _, file := range []string{tok.PINFile, tok.SOPINFile} {
			info, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != 0o600 {
				t.Errorf("%s has mode %v, want 0600", file, info.Mode())
			}
			pin, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(strings.TrimSpace(string(pin))) != 32 {
				t.Errorf("%s holds %d bytes, want 32 and a newline", file, len(pin))
			}
			pins[string(pin)] = true
		}
	}
	if len(pins) != 4 {
		t.Errorf("%d different PINs, want 4", len(pins))
	}
	again, err := softhsm.Open(t.Context(), dir, "tokyo")
	if err != nil {
		t.Fatal(err)
	}
	if again != made[1] {
		t.Errorf("opened %+v, want %+v", again, made[1])
	}
	more, err := softhsm.Provision(t.Context(), dir, "us")
	if err != nil || len(more) != 1 {
		t.Errorf("another token in the same store: %v", err)
	}
}

func TestProvisionRefuses(t *testing.T) {
	before := os.Getenv(softhsm.ConfEnv)
	dir := t.TempDir()
	if _, err := softhsm.Provision(t.Context(), dir, "paris"); err != nil {
		t.Fatal(err)
	}
	if _, err := softhsm.Provision(t.Context(), dir, "paris"); !errors.Is(err, softhsm.ErrExists) {
		t.Errorf("the same label again: got %v, want %v", err, softhsm.ErrExists)
	}
	for _, label := range []string{"", "Paris", "a b", "../x", strings.Repeat("a", 33)} {
		if _, err := softhsm.Provision(t.Context(), dir, label); err == nil {
			t.Errorf("label %q was accepted", label)
		}
	}
	if _, err := softhsm.Provision(t.Context(), filepath.Join(dir, "a#b"), "x"); err == nil {
		t.Error("a directory that the configuration cannot name was accepted")
	}
	if _, err := softhsm.Open(t.Context(), dir, "nowhere"); err == nil {
		t.Error("a token that does not exist was opened")
	}
	if got := os.Getenv(softhsm.ConfEnv); got != before {
		t.Errorf("%s became %q in this process, was %q", softhsm.ConfEnv, got, before)
	}
}

func TestNotInstalled(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := softhsm.Provision(t.Context(), t.TempDir(), "paris")
	if !errors.Is(err, softhsm.ErrNotInstalled) || !strings.Contains(err.Error(), "apt-get install softhsm2") {
		t.Errorf("without the tool: got %v, want what to install", err)
	}
}
