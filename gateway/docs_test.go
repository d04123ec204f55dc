package gateway_test

import (
	"bytes"
	"crypto/x509"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"

	"github.com/keyferry/keyferry/gateway"
	"github.com/keyferry/keyferry/keyops"
)

var update = flag.Bool("update", false, "rewrite the tables of docs/reference")

// checkTable compares what stands between two markers of a page with what the code says.
func checkTable(t *testing.T, page, name, want string) {
	t.Helper()
	path := filepath.Join("..", "docs", "reference", page)
	text, err := os.ReadFile(path)
	must(t, err)
	begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->"
	before, rest, ok := strings.Cut(string(text), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no markers of %s", page, name)
	}
	if got == want {
		return
	}
	if *update {
		must(t, os.WriteFile(path, []byte(before+begin+want+end+after), 0o644))
		return
	}
	t.Errorf("the table of %s in %s is out of date: go test ./gateway -run Docs -update", name, page)
}

func TestDocsListEveryRoute(t *testing.T) {
	routes, err := gateway.Routes()
	must(t, err)
	rows := gateway.MethodRows()
	var out strings.Builder
	out.WriteString("| request | RPC | permission | on | recorded as | rate | largest request |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, rt := range routes {
		row := rows[rt.Method]
		service, method, _ := strings.Cut(strings.TrimPrefix(rt.Method, "/keyferry.kms.v1."), "/")
		fmt.Fprintf(&out, "| `%s %s` | %s.%s | %s | %s | %s | %s | %d KiB |\n",
			rt.Verb, rt.Pattern, service, method, orDash(row.Action), orDash(row.Resource), row.Audit, row.Class, row.MaxBytes>>10)
	}
	checkTable(t, "rest.md", "routes", out.String())
}

func orDash(s string) string {
	if s == "" {
		return "—"
	}
	return s
}

func TestDocsListEveryReason(t *testing.T) {
	says := comments(t, "../keyops/errors.go")
	var out strings.Builder
	out.WriteString("| reason | gRPC code | HTTP | when |\n| --- | --- | --- | --- |\n")
	for _, reason := range keyops.Reasons {
		code := gateway.ReasonCodes()[reason]
		if says[string(reason)] == "" {
			t.Errorf("%s has no comment", reason)
		}
		fmt.Fprintf(&out, "| %s | %v | %d | %s |\n", reason, code, runtime.HTTPStatusFromCode(code), says[string(reason)])
	}
	checkTable(t, "errors.md", "reasons", out.String())

	page, err := os.ReadFile("../docs/reference/errors.md")
	must(t, err)
	own := strings.Split(gateway.OwnReasons, " ")
	declaredHere := regexp.MustCompile(`(?m)^\treason\w+ += "(\w+)"`)
	source, err := os.ReadFile("errors.go")
	must(t, err)
	var found []string
	for _, m := range declaredHere.FindAllStringSubmatch(string(source), -1) {
		found = append(found, m[1])
		if !bytes.Contains(page, []byte("| "+m[1]+" |")) {
			t.Errorf("errors.md does not explain %s", m[1])
		}
	}
	if slices.Sort(found); len(found) == 0 || !slices.Equal(found, slices.Sorted(slices.Values(own))) {
		t.Errorf("errors.go declares %v, the package has %v", found, own)
	}
}

// comments returns what the comment of each reason in keyops's source says after its name.
func comments(t *testing.T, path string) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	must(t, err)
	out := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if value, ok := spec.Values[0].(*ast.BasicLit); ok {
			_, says, _ := strings.Cut(strings.Join(strings.Fields(spec.Doc.Text()), " "), ": ")
			out[strings.Trim(value.Value, `"`)] = says
		}
		return true
	})
	return out
}

// writeFor writes the files that the commands of pages name, with a certificate of Alice's.
func (a *authority) writeFor(uri, dir string) {
	a.t.Helper()
	alice := a.issue(uri, nil)
	write := func(name, kind string, der []byte, err error) {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), pemOf(kind, der), 0o600)
		}
		if err != nil {
			a.t.Fatal(err)
		}
	}
	write("ca.crt", "CERTIFICATE", a.cert.Raw, nil)
	write("alice.crt", "CERTIFICATE", alice.Certificate[0], nil)
	for name, key := range map[string]any{"ca.key": a.key, "alice.key": alice.PrivateKey} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		write(name, "PRIVATE KEY", der, err)
	}
}

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```\n+```json\n(.*?)```")

// TestDocsCommandsWork runs each command of the page with curl and compares its answer.
func TestDocsCommandsWork(t *testing.T) {
	page, err := os.ReadFile("../docs/reference/rest.md")
	must(t, err)
	blocks := shellBlock.FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 2 {
		t.Fatalf("the page has %d commands", len(blocks))
	}
	s := start(t, nil)
	dir := t.TempDir()
	s.ca.writeFor(aliceURI, dir)
	for _, block := range blocks {
		if got := s.shell(dir, block[1]); got != block[2] {
			t.Errorf("%s\nanswers %s\nthe page says %s", block[1], got, block[2])
		}
	}
}

// varying is what differs from run to run in an answer.
var varying = regexp.MustCompile(`"(requestId|expireTime)":"[0-9a-zA-Z:.-]+"`)

// shell runs commands of a page and returns what they print, without what varies.
func (s *served) shell(dir, commands string) string {
	s.t.Helper()
	cmd := exec.Command("sh", "-euc", commands)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "KEYFERRY_REST="+s.RESTAddr().String())
	var out, errors strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errors
	if err := cmd.Run(); err != nil {
		s.t.Fatalf("%s\n%v %s", commands, err, errors.String())
	}
	return varying.ReplaceAllString(out.String(), `"$1":"…"`)
}
