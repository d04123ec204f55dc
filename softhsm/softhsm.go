// Package softhsm provisions SoftHSMv2 tokens for development and tests.
//
// A store is a directory with its own SoftHSM configuration file and any number of tokens.
// A process names the configuration in the environment variable SOFTHSM2_CONF before it
// loads the module, which reads it once; all tokens that a process uses must therefore be
// in one store, and exist before the module is loaded.
//
// Trust: SoftHSM's tokens are files. Whoever can read the store and a PIN has the keys, so
// nothing made here belongs in production. PINs are random and are written to files of mode
// 0600 in the store; softhsm2-util takes them as arguments only, so that they are visible
// in the process list for the moment of provisioning.
package softhsm

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// ErrNotInstalled means that SoftHSM's library or tool is missing on this machine.
var ErrNotInstalled = errors.New("SoftHSM is not installed; on Debian: apt-get install softhsm2")

// ErrExists means that the store has a token with this label already.
var ErrExists = errors.New("token exists already")

// ConfEnv is the environment variable that names the configuration file to the module.
const ConfEnv = "SOFTHSM2_CONF"

const (
	tool     = "softhsm2-util"
	confFile = "softhsm2.conf"
)

// modulePaths are where Debian and its relatives, Fedora, Alpine and Homebrew put the library.
var modulePaths = []string{
	"/usr/lib/softhsm/libsofthsm2.so",
	"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib64/pkcs11/libsofthsm2.so",
	"/usr/lib64/libsofthsm2.so",
	"/usr/local/lib/softhsm/libsofthsm2.so",
	"/opt/homebrew/lib/softhsm/libsofthsm2.so",
}

// Module returns the path of SoftHSM's PKCS#11 library.
func Module() (string, error) {
	for _, p := range modulePaths {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("looking for libsofthsm2.so: %w", ErrNotInstalled)
}

// Token says how to use one token of a store.
type Token struct {
	Label     string
	Serial    string
	Module    string // path of the library
	Conf      string // what SOFTHSM2_CONF must name
	PINFile   string // user PIN, mode 0600
	SOPINFile string // security officer's PIN, mode 0600
}

var labelPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// Provision makes tokens in the store at dir, which it creates if need be, one for each
// label. A label is 1 to 32 lower-case letters, digits and dashes; one that the store has
// is [ErrExists]. If it fails, what it made so far stays.
func Provision(ctx context.Context, dir string, labels ...string) ([]Token, error) {
	module, err := Module()
	if err != nil {
		return nil, err
	}
	if _, err := exec.LookPath(tool); err != nil {
		return nil, fmt.Errorf("looking for %s: %w", tool, ErrNotInstalled)
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("naming store: %w", err)
	}
	conf, err := createStore(dir)
	if err != nil {
		return nil, fmt.Errorf("creating store %q: %w", dir, err)
	}
	var tokens []Token
	for _, label := range labels {
		t := Token{
			Label: label, Module: module, Conf: conf,
			PINFile:   filepath.Join(dir, label+".pin"),
			SOPINFile: filepath.Join(dir, label+".so-pin"),
		}
		if err := t.create(ctx); err != nil {
			return tokens, fmt.Errorf("provisioning token %q: %w", label, err)
		}
		tokens = append(tokens, t)
	}
	return tokens, nil
}

// createStore makes the directory and its configuration, or leaves them as they are.
func createStore(dir string) (conf string, err error) {
	if strings.ContainsAny(dir, "#\n") {
		return "", fmt.Errorf("the configuration file has no way to write %q", dir)
	}
	if err := os.MkdirAll(filepath.Join(dir, "tokens"), 0o700); err != nil {
		return "", err
	}
	conf = filepath.Join(dir, confFile)
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nobjectstore.umask = 0077\nlog.level = ERROR\nslots.removable = false\n",
		filepath.Join(dir, "tokens"))
	err = writeNew(conf, text)
	if errors.Is(err, fs.ErrExist) {
		return conf, nil
	}
	return conf, err
}

func (t *Token) create(ctx context.Context) error {
	if !labelPattern.MatchString(t.Label) {
		return fmt.Errorf("label does not match %s", labelPattern)
	}
	pin, soPIN := randomPIN(), randomPIN()
	// The PIN file is the claim on the label: of two at once, one fails here.
	if err := writeNew(t.PINFile, pin+"\n"); errors.Is(err, fs.ErrExist) {
		return ErrExists
	} else if err != nil {
		return err
	}
	if err := writeNew(t.SOPINFile, soPIN+"\n"); err != nil {
		return err
	}
	if _, err := t.run(ctx, "--init-token", "--free", "--label", t.Label, "--pin", pin, "--so-pin", soPIN); err != nil {
		return err
	}
	slots, err := t.run(ctx, "--show-slots")
	if err != nil {
		return err
	}
	t.Serial, err = serialOf(slots, t.Label)
	return err
}

// Open returns the token of a store that Provision made earlier.
func Open(ctx context.Context, dir, label string) (Token, error) {
	module, err := Module()
	if err != nil {
		return Token{}, err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return Token{}, fmt.Errorf("naming store: %w", err)
	}
	t := Token{
		Label: label, Module: module,
		Conf:      filepath.Join(dir, confFile),
		PINFile:   filepath.Join(dir, label+".pin"),
		SOPINFile: filepath.Join(dir, label+".so-pin"),
	}
	slots, err := t.run(ctx, "--show-slots")
	if err != nil {
		return Token{}, fmt.Errorf("opening token %q: %w", label, err)
	}
	if t.Serial, err = serialOf(slots, label); err != nil {
		return Token{}, fmt.Errorf("opening token %q: %w", label, err)
	}
	return t, nil
}

// run calls the tool on the token's store. Its arguments may be PINs and stay out of errors.
func (t *Token) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Env = append(os.Environ(), ConfEnv+"="+t.Conf)
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("looking for %s: %w", tool, ErrNotInstalled)
	}
	if err != nil {
		return "", fmt.Errorf("running %s %s: %w: %s", tool, args[0], err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// serialOf finds the serial number of the one token with the label in the tool's listing,
// where it stands above the label.
func serialOf(slots, label string) (string, error) {
	var serial, found string
	for line := range strings.Lines(slots) {
		name, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); strings.TrimSpace(name) {
		case "Serial number":
			serial = value
		case "Label":
			if value != label {
				continue
			}
			if found != "" {
				return "", fmt.Errorf("two tokens are labelled %q", label)
			}
			found = serial
		}
	}
	if found == "" {
		return "", fmt.Errorf("no token is labelled %q", label)
	}
	return found, nil
}

func randomPIN() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}

// writeNew writes a file that must not exist, readable by its owner only.
func writeNew(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
