package ci

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/keyferry/keyferry/"

// pkg is what go list says of a package.
type pkg struct {
	ImportPath   string
	Name         string
	Dir          string
	GoFiles      []string
	CgoFiles     []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func (p pkg) part() string {
	part, _, _ := strings.Cut(strings.TrimPrefix(p.ImportPath, module), "/")
	return part
}

// testOnly reports whether the package is for tests: such packages are named for what they
// help to test, end in test or are below one that does, and are imported by tests and each
// other alone.
func (p pkg) testOnly() bool { return testOnly(p.ImportPath) }

func testOnly(path string) bool {
	path, ours := strings.CutPrefix(path, module)
	return ours && slices.ContainsFunc(strings.Split(path, "/"), func(name string) bool { return strings.HasSuffix(name, "test") })
}

var packages = sync.OnceValues(func() ([]pkg, error) {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Name,Dir,GoFiles,CgoFiles,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		}
		all = append(all, p)
	}
})

func list(t *testing.T) []pkg {
	t.Helper()
	all, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages only", len(all))
	}
	return all
}

// TestParts enforces the one direction of imports between the parts of the repository.
func TestParts(t *testing.T) {
	edges := []struct {
		part   string
		may    []string
		reason string
	}{
		{"hsm", nil, "everything about keys rests on hsm, so it rests on nothing"},
		{"softhsm", []string{"hsm"}, "it provisions tokens and knows nothing of what is kept in them"},
		{"keyops", []string{"hsm"}, "the one door knows no wire format and no peer, so that none can lead around it"},
		{"replication", []string{"keyops", "proto"}, "peers reach tokens through keyops only, where what they say is checked"},
		{"gateway", []string{"keyops", "replication", "proto"}, "clients reach tokens through keyops only, which authorises and audits"},
		{"proto", nil, "generated code"},
		{"cmd", []string{"hsm", "softhsm", "keyops", "replication", "gateway", "proto"}, "commands wire the parts, and nothing imports a command"},
		{"ci", nil, "the checks look at the parts from outside"},
	}
	known := map[string]bool{}
	for _, e := range edges {
		known[e.part] = true
		for _, p := range list(t) {
			if p.part() != e.part || p.testOnly() {
				continue
			}
			for _, imp := range p.Imports {
				to, ours := strings.CutPrefix(imp, module)
				to, _, _ = strings.Cut(to, "/")
				if ours && to != e.part && !slices.Contains(e.may, to) {
					t.Errorf("%s imports %s: %s", p.ImportPath, imp, e.reason)
				}
			}
		}
	}
	for _, p := range list(t) {
		if !known[p.part()] {
			t.Errorf("%s is in no part of the repository: say in this test what it may import", p.ImportPath)
		}
	}
}

// TestForbidden names imports that few packages may have, each with its reason.
func TestForbidden(t *testing.T) {
	rules := []struct {
		imports []string // a path, or a prefix that ends in /
		only    []string // packages, or prefixes that end in /, that may
		reason  string
	}{
		{[]string{"github.com/miekg/pkcs11", "github.com/ThalesIgnite/crypto11", "github.com/ThalesGroup/crypto11"}, []string{"hsm"},
			"hsm is the only door to a token: handles and sessions never leave it"},
		{[]string{module + "hsm"}, []string{"hsm", "hsm/", "softhsm", "softhsm/", "keyops", "keyops/", "cmd/"},
			"only keyops and the commands use hsm: state, authorisation and audit are checked in keyops"},
		{[]string{"google.golang.org/grpc", "google.golang.org/grpc/", "google.golang.org/protobuf/", module + "proto/"},
			[]string{"gateway", "replication", "cmd/", "proto/", "ci/protos"},
			"keyops and what is below it speak Go: messages are converted at the edge"},
		{[]string{"github.com/sirupsen/logrus/hooks/"}, nil,
			"logging is injected, and tests assert entries with the hook only"},
		{[]string{"crypto/aes", "crypto/cipher", "crypto/hmac", "crypto/des", "crypto/rc4", "crypto/md5"}, nil,
			"the token does cryptography; a key in this process's memory is a key that can leak from it"},
		{[]string{"math/rand"}, nil, "math/rand/v2 where chance decides nothing secret, crypto/rand elsewhere"},
		{[]string{"testing"}, nil, "helpers for tests live in packages whose names end in test"},
		{[]string{"github.com/stretchr/testify/"}, nil, "tests use the standard library and go-cmp"},
	}
	for _, r := range rules {
		for _, p := range list(t) {
			if p.testOnly() || within(strings.TrimPrefix(p.ImportPath, module), r.only) {
				continue
			}
			for _, imp := range p.Imports {
				if within(imp, r.imports) {
					t.Errorf("%s imports %s: %s", p.ImportPath, imp, r.reason)
				}
			}
		}
	}
}

// TestTestHelpersStayInTests keeps fakes and fault injection out of the programs.
func TestTestHelpersStayInTests(t *testing.T) {
	for _, p := range list(t) {
		if p.testOnly() {
			continue
		}
		for _, imp := range p.Imports {
			if testOnly(imp) {
				t.Errorf("%s imports %s outside its tests: fakes must not be linked into programs", p.ImportPath, imp)
			}
		}
	}
}

// TestPropertyTestsRepeat demands that what property tests draw is the same in every run: a
// test that fails once in a hundred runs tells of a change that did not cause it.
func TestPropertyTestsRepeat(t *testing.T) {
	const seeded = module + "keyops/keyopstest/seededtest"
	for _, p := range list(t) {
		imports := slices.Concat(p.TestImports, p.XTestImports)
		if slices.Contains(imports, "pgregory.net/rapid") && !slices.Contains(imports, seeded) {
			t.Errorf("the tests of %s use rapid without %s, which fixes the seed", p.ImportPath, seeded)
		}
	}
}

// TestCgoIsInOnePlace keeps C, whose memory nothing checks, in hsm.
func TestCgoIsInOnePlace(t *testing.T) {
	for _, p := range list(t) {
		if len(p.CgoFiles) > 0 && p.ImportPath != module+"hsm" {
			t.Errorf("%s uses cgo in %v: only hsm may", p.ImportPath, p.CgoFiles)
		}
	}
}

// TestCommandLineNeedsNoC checks that keyferry, which users install on their machines, can
// be built without a C compiler, and has no way to a token of its own.
func TestCommandLineNeedsNoC(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "./cmd/keyferry")
	cmd.Dir = ".."
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		if within(dep, []string{"github.com/miekg/pkcs11", "github.com/ThalesIgnite/crypto11", module + "hsm", module + "hsm/", "runtime/cgo"}) {
			t.Errorf("keyferry is linked with %s", dep)
		}
	}
}

func within(path string, list []string) bool {
	return slices.ContainsFunc(list, func(s string) bool {
		return path == s || strings.HasSuffix(s, "/") && strings.HasPrefix(path, s)
	})
}
