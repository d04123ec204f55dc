// Package wycheproof reads the test vectors of project Wycheproof (C2SP), which know most of
// the mistakes that were ever made in checking signatures, points and paddings.
//
// The vectors are no part of this repository: they are a Go module, fetched by the go command
// and checked against the sum below. make deps fetches it, so that tests need no network.
package wycheproof

import (
	_ "embed" // for the module's name and version
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

//go:embed module.txt
var module string

// sum is what go.sum would say of the module.
const sum = "h1:5BKKVVVj676FUWirLcouEEL6GCYR9X0opkMlEUck8FY="

// Hex is bytes that the vectors write in hexadecimal.
type Hex []byte

// UnmarshalText decodes the hexadecimal digits.
func (h *Hex) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// Result is what has to become of a vector.
type Result string

// Results. What is acceptable may be refused; if it is taken, it must be taken rightly.
const (
	Valid      Result = "valid"
	Invalid    Result = "invalid"
	Acceptable Result = "acceptable"
)

// Vector is one test. Each kind of test uses some of the fields.
type Vector struct {
	ID      int      `json:"tcId"`
	Comment string   `json:"comment"`
	Flags   []string `json:"flags"`
	Result  Result   `json:"result"`

	Msg     Hex    `json:"msg"`
	Sig     Hex    `json:"sig"`
	Key     Hex    `json:"key"`
	Tag     Hex    `json:"tag"`
	CT      Hex    `json:"ct"`
	Label   Hex    `json:"label"`
	Public  Hex    `json:"public"`
	Private string `json:"private"` // a number, in hexadecimal, or bytes
	Shared  Hex    `json:"shared"`
}

// Group is the tests that share parameters, among them keys.
type Group struct {
	Type            string   `json:"type"`
	SHA             string   `json:"sha"`
	MGFSHA          string   `json:"mgfSha"`
	SaltBytes       int      `json:"sLen"`
	KeyBits         int      `json:"keySize"`
	TagBits         int      `json:"tagSize"`
	Curve           string   `json:"curve"`
	PublicKeyDER    Hex      `json:"publicKeyDer"`
	PrivateKeyPKCS8 Hex      `json:"privateKeyPkcs8"`
	Tests           []Vector `json:"tests"`
}

var directory = sync.OnceValues(func() (string, error) {
	name := strings.TrimSpace(module)
	cmd := exec.Command("go", "mod", "download", "-json", name)
	cmd.Dir = os.TempDir() // outside of our module, which does not require this one
	out, err := cmd.Output()
	var found struct{ Dir, Sum, Error string }
	if json.Unmarshal(out, &found); err != nil || found.Error != "" {
		return "", fmt.Errorf("fetching %s: %w %s; run make deps where there is a network", name, err, found.Error)
	}
	if found.Sum != sum {
		return "", fmt.Errorf("%s has the sum %s, want %s", name, found.Sum, sum)
	}
	return filepath.Join(found.Dir, "testvectors_v1"), nil
})

// Load returns the groups of a file of vectors, such as "ecdsa_secp256r1_sha256". Vectors
// that cannot be had fail the test, as do a file without any.
func Load(t testing.TB, name string) []Group {
	t.Helper()
	dir, err := directory()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, name+"_test.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Count  int     `json:"numberOfTests"`
		Groups []Group `json:"testGroups"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	n := 0
	for _, g := range file.Groups {
		n += len(g.Tests)
	}
	if n == 0 || n != file.Count {
		t.Fatalf("%s has %d vectors, and says %d", name, n, file.Count)
	}
	return file.Groups
}

// Tally counts the vectors of a test by what was done with them.
type Tally struct {
	Ran     int // that were tried
	Refused int // of them, what was right to refuse
	Left    int // that the API cannot express, or that repeat others
}

// Report prints the tally, and fails a test that tried fewer vectors than it has to.
func (c *Tally) Report(t testing.TB, least int) {
	t.Helper()
	t.Logf("%d vectors ran, %d of them refused as they must be; %d left out", c.Ran, c.Refused, c.Left)
	if c.Ran < least {
		t.Errorf("%d vectors ran, want at least %d", c.Ran, least)
	}
}
